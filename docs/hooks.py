"""Makes the pages of the site that describe the code from the code itself, when mkdocs builds it.

The help of every command and script, every setting of a recipe, a page for each room of the package, the drawing of
who imports whom, and the pages of the notebooks. Nothing here is written into `docs/`.
"""

import configparser
import dataclasses
import html
import importlib
import inspect
import io
import json
import os
import re
import runpy
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_metaqap"
NAME = PACKAGE.name

#: Rooms in the order of the menu. The model's files and the two at the bottom have pages of their own.
ROOMS = ("data", "training", "inference", "fusion", "evaluation", "publishing", "demo")
MODEL_FILES = (
    *("modeling", "assessment", "configuration", "losses", "interval", "image_processing"),
    *("crops", "decoding", "fetching", "pipeline"),
)


# Help texts.


@contextmanager
def _called_as(program: str, *arguments: str) -> Iterator[io.StringIO]:
    """What a program prints until it exits, in a terminal of 100 columns without colours."""
    text = io.StringIO()
    environment = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", [program, *arguments]),
        redirect_stdout(text),
    ):
        try:
            yield text
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{program} {' '.join(arguments)} has failed: {text.getvalue()}") from end


def command_help(*command: str) -> str:
    """What `metaqap COMMAND --help` prints."""
    from modeling_metaqap.cli.app import main

    with _called_as("metaqap", *command, "--help") as text:
        main()
    return text.getvalue().rstrip()


def commands() -> list[str]:
    """Names of the commands of `metaqap`, in the order of its help."""
    listed = command_help().split("Commands:\n", 1)[1]
    return re.findall(r"^  (\S+)", listed, flags=re.MULTILINE)


def script_help(path: Path) -> str:
    """What `python SCRIPT --help` prints."""
    with _called_as(path.name, "--help") as text:
        runpy.run_path(str(path), run_name="__main__")
    return text.getvalue().rstrip()


def scripts() -> list[Path]:
    return sorted((ROOT / "scripts").glob("*.py"))


def help_page(title: str, about: str, helps: dict[str, str]) -> str:
    """A page of help texts, each under the name of its program."""
    parts = [f"# {title}", about]
    for name, text in helps.items():
        parts += [f"## {name}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def cli_page() -> str:
    return help_page(
        "The `metaqap` command",
        "What each command prints with `--help`. The exit status is 0 when all went well, 1 when an image could not "
        "be read (the others are done), and 2 for a wrong call, which is explained in one sentence.",
        {f"metaqap {name}": command_help(name) for name in commands()},
    )


def scripts_page() -> str:
    return help_page(
        "Scripts",
        "Programs in the folder `scripts/` of the repository. Those for the steps of the method are commands of "
        "`metaqap` too, which need no clone, and write options with dashes. They need the `train` "
        'extra (`pip install ".[train]"`). This is what each prints with `--help`.',
        {path.name: script_help(path) for path in scripts()},
    )


# Recipes.


def recipe_settings() -> dict[str, str]:
    """The meaning of each setting, from the docstring of `Recipe`, as Markdown."""
    from modeling_metaqap.training.recipe import Recipe

    section = inspect.cleandoc(Recipe.__doc__ or "").split("Attributes:\n", 1)[1]
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", section.rstrip()):
        names, meaning = entry.strip().split(":", 1)
        for name in names.split(","):
            meanings[name.strip()] = " ".join(meaning.split())
    return meanings


def recipe_page() -> str:
    from modeling_metaqap.training.recipe import Recipe

    meanings = recipe_settings()
    rows = []
    for field in dataclasses.fields(Recipe):
        needed = field.default is dataclasses.MISSING
        default = "must be given" if needed else f"`{json.dumps(field.default)}`"
        rows.append(f"| `{field.name}` | {default} | {_cell(meanings[field.name])} |")
    return "\n".join(
        [
            "# Recipes",
            "",
            "A recipe is a YAML file with every setting of one training run. "
            "`metaqap train --recipe FILE` reads it, and refuses settings that it does not know. "
            "The recipes that `metaqap recipes` lists are good places to start from: copy one and change it.",
            "",
            "```yaml",
            (PACKAGE / "training/recipes/metaqap-lite/efficientnet-lite0-1.yaml").read_text().rstrip(),
            "```",
            "",
            "## Every setting",
            "",
            "| setting | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# Python.


def modules_of(room: str) -> list[str]:
    """Dotted names of the modules of a room, sub-rooms after their parents."""
    files = sorted((PACKAGE / room).rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path))
    names = []
    for path in files:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        names.append(dotted)
    return names


def public_names_page() -> str:
    import modeling_metaqap

    rows = []
    for name in sorted(modeling_metaqap.__all__, key=str.lower):
        home = modeling_metaqap._PUBLIC.get(name)
        if home is not None:
            value = getattr(modeling_metaqap, name)
            summary = inspect.getdoc(value) if callable(value) else None
            first = re.split(r"(?<=[.:])\s", " ".join((summary or _comment(home, name)).split()), maxsplit=1)[0]
            rows.append(f"| `{name}` | `{NAME}.{home}` | {_cell(_plain(first))} |")
    return "\n".join(
        [
            "# Public names",
            "",
            f"These can be imported from `{NAME}` itself. Each is loaded when it is first used, so "
            f"`import {NAME}` takes next to no time.",
            "",
            "```python",
            f"from {NAME} import MetaQAPModel, Scorer, evaluate_scores",
            "```",
            "",
            "| name | defined in | what it is |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _comment(home: str, name: str) -> str:
    """The comment `#: ...` above a constant."""
    path = PACKAGE.joinpath(*home.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    match = re.search(rf"((?:^#: .*\n)+){name}\b", source, flags=re.MULTILINE)
    return "" if match is None else match[1].replace("#: ", "")


def _plain(text: str) -> str:
    """Without the brackets that transformers' docstrings put around names."""
    return re.sub(r"\[`([^`\]]+)`\](?!\[|\()", r"`\1`", text)


def room_page(title: str, modules: list[str], introduction: str) -> str:
    parts = [f"# {title}", introduction]
    for module in modules:
        parts.append(f"::: {module}")
    return "\n\n".join(parts) + "\n"


def api_pages() -> dict[str, str]:
    pages = {"reference/api/index.md": public_names_page()}
    model = [f"{NAME}.{name}_metaqap" for name in MODEL_FILES]
    about = "The files of the model lie at the top of the package. `save_pretrained` copies them beside the weights."
    pages["reference/api/model.md"] = room_page("The model", model, about)
    for room in ROOMS:
        modules = modules_of(room)
        first = inspect.getdoc(importlib.import_module(modules[0])) or ""
        # A room whose `__init__` has names of its own shows them; another one is only described.
        source = (PACKAGE / room / "__init__.py").read_text()
        shown = modules if re.search(r"^(def|class) ", source, flags=re.MULTILINE) else modules[1:]
        pages[f"reference/api/{room}.md"] = room_page(f"{NAME}.{room}", shown, first.split("\n\n")[0])
    bottom = [
        f"{NAME}.{name}"
        for name in (
            "errors",
            "installing",
            "lineage",
            "devices",
            "memory",
            "folding",
            "checkpoint_places",
            "checkpoint_reading",
        )
    ]
    about = "What every room may use, and what itself uses no room."
    pages["reference/api/errors.md"] = room_page("What every room uses", bottom, about)
    return pages


# The drawing of who imports whom.


def layers() -> list[list[str]]:
    """The layers of the contract in setup.cfg, the top one first."""
    return [[part.strip().removeprefix(f"{NAME}.") for part in line.split("|")] for line in _contract("layers")]


def _contract(setting: str) -> list[str]:
    """The lines of a setting of the contract about rooms in setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings["importlinter:contract:rooms"][setting].strip().splitlines()


def imports_between_rooms() -> set[tuple[str, str]]:
    """(who imports, what is imported), of the modules right under the package."""
    import grimp

    graph = grimp.build_graph(NAME, exclude_type_checking_imports=True)
    exceptions = [[part.strip() for part in line.split("->")] for line in _contract("ignore_imports")]
    pairs = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            if f"{NAME}." in importer and f"{NAME}." in imported:
                # The door of the house, `python -m modeling_metaqap`, is no room.
                if importer == f"{NAME}.__main__":
                    continue
                # What the contract lets pass, each with its reason in setup.cfg.
                if any(fnmatchcase(importer, one) and fnmatchcase(imported, other) for one, other in exceptions):
                    continue
                pairs.add((importer.split(".")[1], imported.split(".")[1]))
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def without_detours(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Only those imports that do not follow from two or more others (the transitive reduction)."""
    following: dict[str, set[str]] = {}
    for importer, imported in pairs:
        following.setdefault(importer, set()).add(imported)

    def reaches(start: str, goal: str) -> bool:
        return any(step == goal or reaches(step, goal) for step in following.get(start, ()))

    return {
        (importer, imported)
        for importer, imported in pairs
        if not any(reaches(step, imported) for step in following[importer] if step != imported)
    }


def _drawn(name: str) -> str:
    """The box that a module is drawn as: the files of the model share one."""
    return "the model" if name.endswith("_metaqap") else name


def rooms_drawing() -> str:
    """The layers of the package as SVG, the top one first, with an arrow for each import."""
    width, height, gap_x, gap_y, lane = 150, 40, 70, 44, 26
    rows: list[list[str]] = []
    for layer in layers():
        boxes = list(dict.fromkeys(map(_drawn, layer)))
        if boxes not in rows:
            rows.append(boxes)
    lines_of = {name: line for line, row in enumerate(rows) for name in row}
    pairs = {(_drawn(importer), _drawn(imported)) for importer, imported in imports_between_rooms()}
    arrows = sorted(without_detours({pair for pair in pairs if pair[0] != pair[1]}))
    if unknown := sorted({name for pair in arrows for name in pair} - set(lines_of)):
        raise ValueError(f"{unknown[0]} is in no layer of setup.cfg.")
    inner = 2 * width + gap_x
    total_width, total_height = inner + 2 * lane * (len(rows) + 1), len(rows) * (height + gap_y) - gap_y + 20
    middle = total_width / 2
    place: dict[str, tuple[float, float]] = {}
    for line, row in enumerate(rows):
        left = middle - (len(row) * (width + gap_x) - gap_x) / 2
        for column, name in enumerate(row):
            place[name] = (left + column * (width + gap_x), 10 + line * (height + gap_y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" width="{total_width}" '
        f'font-family="sans-serif" font-size="15">',
        "<title>Who imports whom</title>",
        f'<rect width="{total_width}" height="{total_height}" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#5b6b73"/></marker></defs>',
    ]
    for importer, imported in arrows:
        (x1, y1), (x2, y2) = place[importer], place[imported]
        lines = lines_of[imported] - lines_of[importer]
        if lines == 1:
            path = f"M{x1 + width / 2},{y1 + height} L{x2 + width / 2},{y2 - 2}"
        else:
            # Around the boxes in between, the longer the way the farther out; in the middle on the left.
            side = 1 if x1 + x2 + width > 2 * middle + 1 else -1
            start, end = (x + (width if side > 0 else 0) for x in (x1, x2))
            out = middle + side * (inner / 2 + lane * lines)
            top, bottom = y1 + height * 0.65, y2 + height * (0.5 - 0.06 * lines)
            path = f"M{start},{top} C{out},{top + 10} {out},{bottom - 10} {end + 2 * side},{bottom}"
        parts.append(f'<path d="{path}" fill="none" stroke="#5b6b73" stroke-width="1.6" marker-end="url(#tip)"/>')
    colors = {"the model": "#d7efe9", "errors": "#e6ecf0", "lineage": "#e6ecf0"}
    for name, (x, y) in place.items():
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{colors.get(name, "#fdf1d8")}" '
            f'stroke="#5b6b73"/><text x="{x + width / 2}" y="{y + height / 2 + 5}" text-anchor="middle" '
            f'fill="#1d2a30">{html.escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def imports_table() -> str:
    """Every import between rooms, also those that the drawing leaves out."""
    pairs = imports_between_rooms()
    rows = []
    for name in (name for row in layers() for name in row):
        imported = sorted(goal for importer, goal in pairs if importer == name)
        rows.append(f"| `{name}` | {', '.join(f'`{goal}`' for goal in imported) or 'nothing'} |")
    return "\n".join(["| room or file | imports from |", "| --- | --- |", *rows])


# Notebooks.


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook with its outputs as Markdown, and its pictures by file name."""
    notebook = json.loads(path.read_text())
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures)}.png"
                pictures[name] = b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({name})")
            else:
                printed += "".join(data.get("text/plain", ""))
        if printed.strip():
            parts.append(f"``` {{ .text .cell-output }}\n{printed.rstrip()}\n```")
    note = f"[This page is a notebook: take it with you]({path.name})"
    title, _, first = parts[0].partition("\n")
    return "\n\n".join([title, note, first.strip(), *parts[1:]]) + "\n", pictures


def notebooks() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.ipynb"))


# What mkdocs calls.


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    makers: dict[str, Callable[[], str]] = {
        "reference/cli.md": cli_page,
        "reference/scripts.md": scripts_page,
        "reference/recipe.md": recipe_page,
        "concepts/rooms.svg": rooms_drawing,
    }
    for uri, make in makers.items():
        add(uri, make())
    for uri, page in api_pages().items():
        add(uri, page)
    for path in notebooks():
        folder = path.parent.relative_to(ROOT / "docs").as_posix()
        page, pictures = notebook_page(path)
        add(f"{folder}/{path.stem}.md", page)
        for name, picture in pictures.items():
            add(f"{folder}/{name}", picture)
    add("changelog.md", (ROOT / "CHANGELOG.md").read_text())
    add("contributing.md", (ROOT / "CONTRIBUTING.md").read_text())
    for picture in ("space/screenshot.jpg",):
        files.append(File.generated(config, f"assets/{Path(picture).name}", abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    mark = "<!-- imports table -->"
    return markdown.replace(mark, imports_table()) if mark in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    # Docstrings in transformers' style have names in brackets that lead nowhere.
    return re.sub(r"\[(<code>[^<]+</code>)\](?!\()", r"\1", content)
