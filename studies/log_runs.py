"""Collect what training runs did and measured into one committed log.

    python studies/log_runs.py runs/mobilenetv2 runs/lite0 metaqap-lite --output studies/results/training_log.json

For each run folder: what it started from and who taught it, if that was noted; what of its recipe is not the default;
the median of the images a second in its steps; the figures on its validation images after each epoch and after the
head was refitted, and the loss at the end of each epoch. For each checkpoint of scripts/fit_meta_learner.py: the
weights of its learners and what they reach by themselves and together.
Runs that are in the log already are replaced.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from study_tables import runs_table

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.fusion.checkpoint_folder import read_fit
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "training_log.json"


def fusion(name: str, fit: dict[str, Any]) -> dict[str, Any]:
    """What one fused checkpoint is made of and reaches on the images that its meta-learner was fitted to."""
    weights = {
        model["name"]: round(weight, 4) for model, weight in zip(fit["base_models"], fit["weights"], strict=True)
    }
    measured = [
        {"after": name} | {f"validation_{figure}": round(row[figure]["value"], 4) for figure in ("plcc", "srocc")}
        for name, row in fit["figures"].items()
    ]
    return {"run": name, "fused": weights, "split": fit["split"], "measured": measured}


def summary(path: Path) -> dict[str, Any]:
    """What one run did.

    Raises:
        MetaQAPError: if the folder holds no run, or the `fit.json` of a checkpoint is broken.
    """
    if (fit := read_fit(path)) is not None:
        return fusion(path.name, fit)
    recipe = Recipe.load(path / "recipe.yaml")
    defaults = asdict(Recipe(backbone=recipe.backbone))
    run = RunFolder(path)
    rows = run.rows()
    measured = []
    for row in rows:
        if "validation_srocc" in row:
            figures = {name: round(value, 4) for name, value in row.items() if name.startswith("validation_")}
            losses = [other["loss"] for other in rows if "loss" in other and other["step"] <= row["step"]]
            end = {"after": "refitting the head"} if row.get("refit_head") else {"after": f"epoch {row['epoch']}"}
            measured.append(end | figures | ({"loss": round(losses[-1], 4)} if losses else {}))
    changed = {name: value for name, value in asdict(recipe).items() if value != defaults[name]}
    origin = run.origin() or {}
    started = {name: origin[name] for name in ("init", "teacher") if origin.get(name) is not None}
    rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
    speed = {"images_per_second": round(statistics.median(rates), 1)} if rates else {}
    described = {"backbone": recipe.backbone, **changed}
    return {"run": path.name, **started, "recipe": described, **speed, "measured": measured}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, fused checkpoints")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the log (%(default)s)")
    args = parser.parse_args(arguments)
    with exit_with_sentence("log_runs"):
        known = json.loads(args.output.read_text()) if args.output.exists() else []
        runs = {run["run"]: run for run in [*known, *map(summary, args.runs)]}
        write_atomically(args.output, (json.dumps(list(runs.values()), indent=1) + "\n").encode())
        console.print(runs_table(list(runs.values())).rich())


if __name__ == "__main__":
    main()
