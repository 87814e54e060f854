"""`metaqap recipes`: the recipes that ship with the package, to read and to copy."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MetaQAPError


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe to print, or with --output a recipe or a folder to copy.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Copy to this folder, to change and to train by.")
    ] = None,
) -> None:
    """List the recipes for `metaqap train` and accelerate's settings, print one, or copy them."""
    from ..training import recipe_files

    known = recipe_files.names()
    if name is not None:
        name = name.rstrip("/").removesuffix(".yaml")
    chosen = [one for one in known if name is None or one == name or one.startswith(f"{name}/")]
    if not chosen:
        raise MetaQAPError(f"There is no recipe {name}; `metaqap recipes` lists them.")
    if output is not None:
        _copy(chosen, output)
    elif name is not None and chosen == [name]:
        print(recipe_files.find(name).read_text(encoding="utf-8"), end="")
    else:
        width = max(map(len, chosen))
        for one in chosen:
            print(f"{one:<{width}}  {recipe_files.summary(one)}")


def _copy(chosen: list[str], output: Path) -> None:
    from ..training import recipe_files

    targets = {one: output / f"{one}.yaml" for one in chosen}
    if there := [target for target in targets.values() if target.exists()]:
        raise MetaQAPError(f"{there[0]} is there already; name a new folder.")
    for one, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(recipe_files.find(one), target)
        print(target)
