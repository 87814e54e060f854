"""Set the scale of the pseudo opinion score, and measure how well it orders the distortion levels.

Both read data sets that scripts/distort.py made of pristine photographs, with all 125 distorted images of each
photograph and all metrics:

    for set in calibration-256 calibration-384 calibration-512 check; do
        python scripts/distort.py --pristine PHOTOGRAPHS --list $set.txt --output data/$set --per-image 125 ...
    done
    python scripts/calibrate_pseudo_mos.py --calibration data/calibration-* --check data/check

The first line's photographs become the reference population, whose quantiles are written to
modeling_metaqap/pseudo_mos_calibration.json; the others, which must be different ones, are scored against it and
reported in studies/results/distortions.json. `--calibration` may be left out to report only.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from modeling_metaqap.data.distorted import pseudo_mos
from modeling_metaqap.data.distorted.loading import SETTINGS_FILE
from modeling_metaqap.data.distorted.pseudo_mos import METRIC_SETS, METRICS, deviation, fuse, quantiles_of
from modeling_metaqap.data.distortions import DISTORTION_NAMES, DISTORTIONS, LEVELS

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)

TABLE = Path(pseudo_mos.__file__).with_name(pseudo_mos.CALIBRATION_FILE)
REPORT = Path(__file__).parents[1] / "studies" / "results" / "distortions.json"


class MetaQAPError(ValueError):
    """A user's mistake. The message says what to do."""


def read(directories: Sequence[Path]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Labels and metrics of data sets, one row an image, and each data set's settings."""
    frames, settings = [], []
    for directory in directories:
        parts = sorted(directory.glob("part-*.parquet"))
        if not parts:
            raise MetaQAPError(f"There is no data set by scripts/distort.py in {directory}.")
        settings.append(json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8")))
        for part in parts:
            table = pyarrow.parquet.read_table(part, columns=["distortion", "level", "reference_id", "metrics"])
            frames.append(table.flatten().to_pandas())
    frame = pd.concat(frames, ignore_index=True)
    missing = [name for name in METRICS if f"metrics.{name}" not in frame]
    if missing:
        raise MetaQAPError(f"The data sets lack the metrics {', '.join(missing)}; make them with --metrics full.")
    if len(frame) < frame["reference_id"].nunique() * len(DISTORTIONS) * len(LEVELS):
        raise MetaQAPError("Each photograph needs all 125 distorted images; make them with --per-image 125.")
    frame["distortion"] = [DISTORTION_NAMES[index] for index in frame["distortion"]]
    return frame, settings


def metric_tensors(frame: pd.DataFrame, names: Sequence[str] = tuple(METRICS)) -> dict[str, torch.Tensor]:
    """The metrics' values as `fuse` takes them."""
    return {name: torch.tensor(frame[f"metrics.{name}"].to_numpy(), dtype=torch.float32) for name in names}


def calibration_table(frame: pd.DataFrame, settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reference population's quantiles, and where they come from."""
    return {
        "written_by": "scripts/calibrate_pseudo_mos.py",
        "population": {
            "photographs": int(frame["reference_id"].nunique()),
            "distorted_images": len(frame),
            "sides": sorted({entry["crop_size"] or entry["shortest_edge"] for entry in settings}),
            "levels": {name: list(entry.levels) for name, entry in DISTORTIONS.items()},
        },
        "quantiles": {
            name: quantiles_of(deviation(name, values).numpy()) for name, values in metric_tensors(frame).items()
        },
    }


def level_order(scores: np.ndarray) -> tuple[float, float]:
    """How often the score falls with the level.

    Args:
        scores: Shape (photographs, 5).

    Returns:
        The share of photographs whose five levels are all in order, and the share of adjacent levels in order.
    """
    falls = np.diff(scores, axis=1) < 0
    return float(falls.all(axis=1).mean()), float(falls.mean())


def check(frame: pd.DataFrame, scores: np.ndarray) -> dict[str, Any]:
    """Mean score and order of the levels, for each distortion and over all unsigned and all signed ones."""
    frame = frame.assign(score=scores)
    table = frame.pivot(index=["distortion", "reference_id"], columns="level", values="score")
    rows = {}
    for name, entry in DISTORTIONS.items():
        by_level = table.loc[name].to_numpy()
        in_order, adjacent = level_order(by_level)
        means = by_level.mean(axis=0)
        rows[name] = {
            "family": entry.family,
            "signed": entry.signed,
            "mean_pseudo_mos": [round(float(mean), 4) for mean in means],
            "mean_falls_with_level": bool((np.diff(means) < 0).all()),
            "five_levels_in_order": round(in_order, 4),
            "adjacent_levels_in_order": round(adjacent, 4),
        }
    summary = {}
    for group, signed in (("unsigned", False), ("signed", True)):
        members = [row for row in rows.values() if row["signed"] == signed]
        summary[group] = {
            "distortions": len(members),
            "mean_falls_with_level": sum(row["mean_falls_with_level"] for row in members),
            "five_levels_in_order": round(float(np.mean([row["five_levels_in_order"] for row in members])), 4),
            "adjacent_levels_in_order": round(float(np.mean([row["adjacent_levels_in_order"] for row in members])), 4),
        }
    return {"summary": summary, "distortions": rows}


def report(frame: pd.DataFrame, settings: Sequence[dict[str, Any]], calibration: dict[str, Any]) -> dict[str, Any]:
    """What studies/results/distortions.json holds."""
    quantiles = calibration["quantiles"]
    metrics = metric_tensors(frame)
    full = fuse(metrics, calibration=quantiles).numpy()
    fast = fuse(metric_tensors(frame, METRIC_SETS["fast"]), calibration=quantiles).numpy()
    by_metric = {
        name: {
            "srocc_with_pseudo_mos": round(float(-stats.spearmanr(deviation(name, values), full).statistic), 4),
            "five_levels_in_order": check(frame, -deviation(name, values).numpy())["summary"]["unsigned"][
                "five_levels_in_order"
            ],
        }
        for name, values in metrics.items()
    }
    return {
        "written_by": "scripts/calibrate_pseudo_mos.py",
        "photographs": int(frame["reference_id"].nunique()),
        "sides": sorted({entry["crop_size"] or entry["shortest_edge"] for entry in settings}),
        "calibration": {key: calibration["population"][key] for key in ("photographs", "distorted_images", "sides")},
        "pseudo_mos": check(frame, full),
        "metrics": by_metric,
        "fast": {
            "metrics": list(METRIC_SETS["fast"]),
            "srocc_with_full": round(float(stats.spearmanr(fast, full).statistic), 4),
            "plcc_with_full": round(float(stats.pearsonr(fast, full).statistic), 4),
            "mean_absolute_difference": round(float(np.abs(fast - full).mean()), 4),
            **check(frame, fast)["summary"],
        },
    }


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"Pseudo opinion score of {result['photographs']} photographs by level")
    table.add_column("distortion", no_wrap=True)
    for heading in (*(str(level) for level in LEVELS), "in order", "adjacent"):
        table.add_column(heading, justify="right")
    for name, row in result["pseudo_mos"]["distortions"].items():
        table.add_row(
            name + (" (signed)" if row["signed"] else ""),
            *(f"{mean:.3f}" for mean in row["mean_pseudo_mos"]),
            f"{row['five_levels_in_order']:.0%}",
            f"{row['adjacent_levels_in_order']:.0%}",
            style=None if row["mean_falls_with_level"] else "red",
        )
    console.print(table)
    for group, row in result["pseudo_mos"]["summary"].items():
        console.print(
            f"{group}: all five levels in order {row['five_levels_in_order']:.1%}, adjacent levels "
            f"{row['adjacent_levels_in_order']:.1%}; the mean falls for {row['mean_falls_with_level']} "
            f"of {row['distortions']}"
        )
    fast = result["fast"]
    console.print(f"fast: SROCC with full {fast['srocc_with_full']:.4f}, PLCC {fast['plcc_with_full']:.4f}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def calibrate(args: argparse.Namespace) -> None:
    checked, check_settings = read(args.check)
    if args.calibration:
        population, settings = read(args.calibration)
        shared = set(population["reference_id"]) & set(checked["reference_id"])
        if shared:
            raise MetaQAPError(
                f"{len(shared)} photographs are in both sets, such as {min(shared)}; the check needs others."
            )
        calibration = calibration_table(population, settings)
        write_json(args.table, calibration)
    else:
        calibration = json.loads(args.table.read_text(encoding="utf-8"))
    result = report(checked, check_settings, calibration)
    write_json(args.report, result)
    show(result)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, nargs="+", help="data sets of the reference population")
    parser.add_argument("--check", type=Path, nargs="+", required=True, help="data sets of other photographs to score")
    parser.add_argument("--table", type=Path, default=TABLE, help="where the quantiles are (written)")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the report is written")
    try:
        calibrate(parser.parse_args(arguments))
    except (MetaQAPError, OSError) as error:
        console.print(f"Error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
