"""README, docs/ and the notebooks: what they say can be done, can be done."""

import dataclasses
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from repository import ROOT, SCRIPTS, measured_on
from rich.console import Console
from study_tables import fleet_table
from typer.main import get_command

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPConfig, Scorer
from modeling_metaqap.cli import app
from modeling_metaqap.cli.program import Program
from modeling_metaqap.cli.score_table import ScoreTable
from modeling_metaqap.evaluation.tables import results_table

sys.path.insert(0, str(ROOT / "docs"))
import hooks  # noqa: E402

README = ROOT / "README.md"
NOTEBOOKS = hooks.notebooks()
PROGRAMS = [module.PROGRAM for module in vars(app).values() if isinstance(getattr(module, "PROGRAM", None), Program)]
PAGES = sorted(
    [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "space").glob("*.md")]
    + [*(ROOT / "modeling_metaqap/training/recipes").rglob("*.md"), *(ROOT / "studies").glob("*.md")]
)


def text_of(path):
    """A page, or a notebook as the page that is made of it."""
    return hooks.notebook_page(path)[0] if path.suffix == ".ipynb" else path.read_text()


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(text, language):
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 9000


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL)
    made = {f"docs/{uri}" for uri in made_pages()}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            goal = (path.parent / target.split("#")[0]).resolve()
            assert goal.exists() or goal.relative_to(ROOT).as_posix() in made, target


def made_pages():
    """What docs/hooks.py adds to the site."""
    yield from ("reference/cli.md", "reference/scripts.md", "reference/recipe.md", "reference/api/index.md")
    yield from (f"reference/api/{room}.md" for room in (*hooks.ROOMS, "model", "errors"))
    yield from ("concepts/rooms.svg", "assets/screenshot.jpg")
    for path in NOTEBOOKS:
        page = path.relative_to(ROOT / "docs").with_suffix(".md")
        yield page.as_posix()
        yield from ((page.parent / picture).as_posix() for picture in hooks.notebook_page(path)[1])


# Results.


def test_the_readme_quotes_the_measured_results():
    at_home, livec = measured_on("biq2021"), measured_on("livec")["metaqap-lite"]
    assert at_home.keys() >= {"metaqap-lite", "brisque", "piqe"}
    assert results_table(list(at_home.values())) in README.read_text()
    curves = json.loads((ROOT / "studies" / "results" / "learning_curves.json").read_text())["livec"]
    most, adapted = list(curves["curves"].items())[-1]
    text = " ".join(README.read_text().split())
    plcc, srocc = (f"{livec[name]['value']:.3f}" for name in ("plcc", "srocc"))
    assert f"the {livec['n']:,} photographs of LIVE In the Wild" in text
    assert f"a PLCC of {plcc} and an SROCC of {srocc}" in text
    assert f"interval holds {100 * livec['interval']['coverage']:.1f} % of the opinions" in text
    before, after = (
        f"{figures['plcc']['value']:.3f} and {figures['srocc']['value']:.3f}"
        for figures in (curves["before"], adapted["adapted"])
    )
    assert f"to {most} of their ratings takes the others from {before} to {after}" in text


def test_the_readme_quotes_what_is_reached_on_photographs_from_elsewhere():
    fusions = json.loads((ROOT / "studies" / "results" / "fusions.json").read_text())
    [shipped] = [row for label, row in fusions["rows"].items() if label.endswith("(shipped)")]
    *first, last = (f"{figures['srocc']:.3f}" for figures in shipped.values())
    assert f"an SROCC of {', '.join(first)} and {last}" in " ".join(README.read_text().split())


def test_the_page_on_many_machines_works_out_the_cost_from_what_was_measured():
    measured = json.loads((ROOT / "studies/results/scoring.json").read_text())["scoring"]
    section = measured["512 x 512, 2 threads"]
    page = " ".join((ROOT / "docs/how-to/many-machines.md").read_text().split())
    assert " ".join(fleet_table(section).markdown().split()) in page
    rate = section["contenders"]["default, with ONNX Runtime"]["images_per_second"] / section["threads"]
    core_hours = 1e8 / rate / 3600
    assert (
        f"{round(core_hours, -2):,.0f} hours of a core, or {round(core_hours / 32, -1):.0f} hours of a machine" in page
    )
    assert f"at {rate:.1f} a second on 3,200 cores is {rate * 3200 * 200e3 / 1e9:.1f} GB a second" in page


def test_the_page_on_the_interval_quotes_its_radius_and_coverage():
    page = (ROOT / "docs" / "concepts" / "score-and-interval.md").read_text()
    fit = json.loads((DEFAULT_CHECKPOINT / "fit.json").read_text())
    row = measured_on("biq2021")["metaqap-lite"]
    assert f"{fit['interval_radius']:.3f} for the shipped ensemble" in page
    assert f"{row['interval']['coverage']:.1%} of the opinions".replace("%", " %") in page


# Scores.


@pytest.fixture(scope="module")
def records():
    paths = sorted((ROOT / "space" / "examples").glob("*.jpg"))
    return {f"space/examples/{Path(record.path).name}": record for record in Scorer(device="cpu").score(paths)}


@pytest.mark.parametrize("path", [README, ROOT / "docs" / "quickstart.md"], ids=name_of)
def test_pasted_scores_are_the_ones_that_the_shipped_ensemble_gives(path, records):
    text = path.read_text()
    comments = re.findall(r"^# (space/\S+): (\S+) \((\S+) to (\S+)\)$", text, flags=re.MULTILINE)
    assert len(comments) == 2
    [table] = [block for block in blocks(text, "text") if block.startswith("quality")]
    pasted = [line for line in table.splitlines() if "space/" in line]
    config = MetaQAPConfig.from_pretrained(DEFAULT_CHECKPOINT)
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system=None)
    printed = ScoreTable(terminal, coverage=config.interval_coverage, distortions=config.distortion_labels)
    for line in pasted:
        image = line.split()[-1]
        printed.print(dataclasses.replace(records[image], path=image))
    assert len(pasted) >= 2
    assert terminal.file.getvalue().splitlines() == [table.splitlines()[0], *pasted]
    for image, *scores in comments:
        record = records[image]
        assert scores == [f"{value:.2f}" for value in (record.quality, record.quality_low, record.quality_high)]


def test_the_snippet_of_the_readme_prints_what_stands_below_it(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    [snippet] = [block for block in blocks(README.read_text(), "python") if "Scorer" in block]
    exec(snippet, {})
    assert capsys.readouterr().out.splitlines() == [line[2:] for line in snippet.splitlines() if line[:2] == "# "]


# Names, commands and options.


@pytest.mark.parametrize(
    "path", [*PAGES, *NOTEBOOKS, *sorted((ROOT / "modeling_metaqap").rglob("*.py")), *hooks.scripts()], ids=name_of
)
def test_imports_that_are_shown_work(path):
    text = text_of(path)
    if path.suffix == ".py":
        text = "\n".join(re.findall(r"^ *>>> .*|^.*from modeling_metaqap.*", text, flags=re.MULTILINE))
    for module, names in re.findall(r"from (modeling_metaqap[\w.]*) import ([\w, ]+)", text):
        for name in names.split(","):
            # A name may also be that of a module within, which this imports.
            exec(f"from {module} import {name}", {})


def test_the_new_paths_in_the_changelog_exist():
    rows = re.findall(r"^    \| (`.*) \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 10
    for before, now in rows:
        for dotted in re.findall(r"`([\w.]+)`", now.replace("`modeling_metaqap`", "")):
            module, _, name = f"modeling_metaqap.{dotted}".rpartition(".")
            found = hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}")
            assert found, f"{before}: there is no {dotted}"


def commands_of(path):
    """Words of each command line of a page's bash blocks and of a notebook's lines that begin with "!"."""
    text = text_of(path)
    lines = chain(
        *(block.replace("\\\n", " ").splitlines() for block in blocks(text, "bash")),
        *(re.findall(r"^!(.*)", block.replace("\\\n", " "), flags=re.M) for block in blocks(text, "python")),
    )
    folder = re.search(r"^recipes=(\S+)$", text, flags=re.M)
    for line in lines:
        line = line.replace("{repository}/", "").replace("$recipes", folder[1] if folder else "$recipes")
        line = re.sub(r"\s2?>\s?\S+", "", line.split(" #")[0])
        for command in re.split(r"\s[|;]\s|&&", line):
            yield shlex.split(command, comments=True)


@cache
def help_of(program):
    if program.startswith("metaqap "):
        return hooks.command_help(program.split()[1])
    return hooks.script_help(ROOT / program)


def parse(words, program, options):
    """Read a command line as the program does, so that a missing or wrong value is found; nothing is run."""
    as_script = program.startswith("scripts/")
    steps = {one.script if as_script else one.command: one for one in PROGRAMS}
    name = Path(program).stem if as_script else words[1]
    if name in steps:
        steps[name].parser(as_script=as_script).parse_args(options)
    elif not as_script and name in hooks.commands():
        get_command(app.app).commands[name].make_context(name, list(options), resilient_parsing="-h" in options)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_commands_and_options_that_are_shown_exist(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for words in commands_of(path):
        script = next((word for word in words if re.fullmatch(r"(scripts|studies)/\w+\.py", word)), None)
        if words[:1] == ["make"]:
            assert words[1] in targets, words
        if words[:1] == ["metaqap"]:
            assert words[1] in hooks.commands(), words
            program, options = f"metaqap {words[1]}", words[2:]
        elif script is not None:
            program, options = script, words[words.index(script) + 1 :]
        else:
            continue
        parse(words, program, options)
        known = set(re.findall(r"(?<!\w)--?\w[\w-]*", help_of(program)))
        for option in (word.split("=")[0] for word in options if re.match(r"--?[a-z]", word)):
            assert option in known, f"{program} has no {option}"
        for word in options:
            if word.startswith(("scripts/", "hub_card/", "space/", "modeling_metaqap/")) and "$" not in word:
                assert (ROOT / word).exists() or "results.json" in word, word


def pasted(path):
    """The command blocks of a page, one below the other, but for those that are files of a batch system."""
    return "\n".join(block for block in blocks(text_of(path), "bash") if not block.startswith("#!"))


@pytest.mark.parametrize("path", [path for path in PAGES if pasted(path)], ids=name_of)
def test_pasted_commands_have_no_comments(path):
    """zsh, the shell of a Mac, takes a comment that is pasted behind a command for its arguments."""
    for line in pasted(path).replace("\\\n", " ").splitlines():
        assert shlex.split(line) == shlex.split(line, comments=True), line


@pytest.mark.parametrize("program", [*PROGRAMS, *hooks.scripts()], ids=lambda one: getattr(one, "command", None))
def test_examples_in_a_description_have_no_comments(program):
    text = program.description if isinstance(program, Program) else program.read_text().split('"""')[1]
    for example in re.findall(r"^    (.*?(?:\\\n.*?)*)$", text, flags=re.MULTILINE):
        assert not re.search(r"(^| )# ", example), example


def test_pasted_commands_mean_the_same_to_bash_and_to_zsh(tmp_path):
    """What each program is called with, shown by one that stands for all of them."""
    shells = {name: shutil.which(name) for name in ("bash", "zsh")}
    if not all(shells.values()):
        pytest.skip("needs bash and zsh: apt-get install zsh")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("metaqap", "make", "pip", "python", "accelerate", "hf", "jq", "find", "sort", "head"):
        (programs / name).write_text('#!/bin/sh\n(for word in "$@"; do printf "[%s]" "$word"; done; echo) >> called\n')
        (programs / name).chmod(0o755)
    commands = re.sub(r" \| ", "\n", "\n".join(map(pasted, PAGES)))
    called = {}
    for name, shell in shells.items():
        here = tmp_path / name
        # What the patterns in the pages are to find: zsh refuses one that finds nothing.
        for file in ("shards/a.tar", "runs/one/best/config.json"):
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).touch()
        options = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"]}[name]
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(here), "TERM": "dumb"}
        ended = subprocess.run(
            [shell, *options], input=commands, cwd=here, env=environment, capture_output=True, text=True
        )
        assert "zsh: " not in ended.stderr, ended.stderr
        called[name] = (here / "called").read_text()
    assert called["zsh"].splitlines() == called["bash"].splitlines()
    assert called["bash"].count("\n") > 40


def test_every_extra_that_is_shown_exists():
    extras = set(re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text().split("extras_require]")[1], flags=re.M))
    for path in [*PAGES, *NOTEBOOKS]:
        for names in re.findall(r'pip install "\.\[([\w,]+)\]"', text_of(path)):
            assert set(names.split(",")) <= extras, path


# Pages that are made of the code.


def test_every_setting_of_a_recipe_is_explained():
    page = hooks.recipe_page()
    meanings = hooks.recipe_settings()
    assert "| `ema_decay` | `0.995` | of the moving average" in page
    assert all(len(meaning) > 10 for meaning in meanings.values())
    from modeling_metaqap import Recipe

    for field in Recipe.__dataclass_fields__:
        assert f"| `{field}` |" in page


def test_every_command_is_described():
    page = hooks.cli_page()
    for command in ("score", "info", "evaluate", "export", "distort", "serve"):
        assert f"## metaqap {command}" in page
    assert "--recursive" in page


def test_every_script_is_described():
    page = hooks.scripts_page()
    for path in SCRIPTS.glob("*.py"):
        assert f"## {path.name}" in page
    assert "--resume_from_checkpoint" in page


def test_every_module_has_a_place_in_the_reference():
    pages = "".join(hooks.api_pages().values())
    for path in (ROOT / "modeling_metaqap").rglob("*.py"):
        relative = path.relative_to(ROOT)
        # What a command does is on the page of commands; checkpoints/ holds links to the model's files.
        if path.stem.startswith("__") or {"cli", "checkpoints"} & set(relative.parts):
            continue
        assert f"::: {'.'.join(relative.with_suffix('').parts)}\n" in pages, relative


def test_a_room_is_drawn_above_those_that_it_imports_from():
    line_of = {name: line for line, row in enumerate(hooks.layers()) for name in row}
    pairs = hooks.imports_between_rooms()
    assert ("cli", "inference") in pairs and ("evaluation", "inference") in pairs
    for importer, imported in pairs:
        assert line_of[importer] < line_of[imported], f"{importer} imports from {imported}"
    drawing = hooks.rooms_drawing()
    assert all(f">{'the model' if name.endswith('_metaqap') else name}</text>" in drawing for name in line_of)


def test_arrows_that_follow_from_others_are_left_out():
    pairs = {("cli", "inference"), ("inference", "data"), ("cli", "data"), ("cli", "errors")}
    assert hooks.without_detours(pairs) == pairs - {("cli", "data")}


# Notebooks.


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_committed_notebook_is_small_and_has_run_without_an_error(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert path.stat().st_size < 200_000
    for output in outputs:
        assert not re.search(r"Traceback|/tmp/|/home/|/work/|/root/", json.dumps(output))


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs(path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    # The programs of this environment, with this repository's package.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=where).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    expected = {"own-ratings": "of 5, the raters gave 4.4", "onnx-and-hub": "quality 0.81"}
    assert expected[path.stem] in printed
