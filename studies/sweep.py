"""Search settings of a recipe over a grid, by SROCC on the validation split.

    python studies/sweep.py --recipe scripts/recipes/ablation.yaml --data_dir path/to/BIQ2021 --output_dir runs/sweep \
        --set loss_mse_weight=0.25,0.5,1 --set loss_srocc_weight=0,0.25,0.5,1

Not by the loss: the loss is smallest where its weights are. Each point of the grid is one run of scripts/train.py with
the recipe's budget and seed. Runs that are done are not repeated and a stopped one goes on, so the command can be
repeated until it is done. Further options, after `--`, go to `accelerate launch`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from study_tables import sweep_table

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.training.launching import finish_run
from modeling_metaqap.training.recipe import Recipe

console = Console(width=None if sys.stdout.isatty() else 140)


def grid(settings: list[str]) -> list[dict[str, Any]]:
    """`["a=1,2", "b=x"]` -> `[{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]`.

    Raises:
        MetaQAPError: for a setting without values or with some that cannot be read, or one that is named twice.
    """
    values: dict[str, list[Any]] = {}
    for setting in settings:
        name, separator, listed = setting.partition("=")
        if not separator or not listed:
            raise MetaQAPError(f"Write --set name=value,value instead of {setting!r}.")
        if name in values:
            raise MetaQAPError(f"{name!r} is set twice; list all its values at once.")
        try:
            values[name] = [yaml.safe_load(value) for value in listed.split(",")]
        except yaml.YAMLError as error:
            raise MetaQAPError(f"The values of --set {setting} cannot be read as YAML.") from error
    return [dict(zip(values, point, strict=True)) for point in product(*values.values())]


def search(args: argparse.Namespace) -> dict[str, Any]:
    """The recipe, and the points of the grid with the figures after their best epoch, the highest SROCC first."""
    recipe = Recipe.load(args.recipe)
    points = grid(args.set)
    if unknown := sorted(set(points[0]) - set(asdict(recipe))):
        raise MetaQAPError(f"A recipe has no setting {unknown[0]!r}.")
    options = {name: getattr(args, name) for name in ("data_dir", "cache_dir", "distorted_dir", "num_workers", "init")}
    rows = []
    for point in points:
        name = "_".join(f"{setting}-{value}" for setting, value in point.items())
        console.print(f"{name} ...", highlight=False)
        chosen = Recipe.from_values(asdict(recipe) | point, "--set")
        run = finish_run(chosen, args.output_dir / name, launch=args.launch, options=options)
        measured = [row for row in run.rows() if "validation_srocc" in row]
        best = max(measured, key=lambda row: row["validation_srocc"])
        rows.append(point | {figure: best[f"validation_{figure}"] for figure in ("plcc", "srocc")})
        ordered = sorted(rows, key=lambda row: -row["srocc"])
        # Written after each run, so that what is known can be read while the rest is trained.
        result = {"recipe": asdict(recipe), "points": ordered}
        write_atomically(args.output_dir / "sweep.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="YAML file with every setting that is not searched")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=VALUE,VALUE", help="values to try")
    parser.add_argument("--init", help="trained base learner to start from")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--distorted_dir", help="for recipes that learn from distorted images")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of all the runs and of sweep.json")
    parser.add_argument("launch", nargs="*", help="after --: options of accelerate launch")
    args = parser.parse_args(arguments)
    with exit_with_sentence("sweep"):
        console.print(sweep_table(search(args)).rich(title="After the best epoch"))


if __name__ == "__main__":
    main()
