"""The reference population of the pseudo opinion score, and how well the score orders the levels of a distortion.

Both are computed from distorted sets (see `building`) that have all 125 distorted images of each photograph and all
metrics.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet
import torch
from scipy import stats

from ...errors import MetaQAPError
from ..distortions import DISTORTION_NAMES, DISTORTIONS, LEVELS
from .loading import SETTINGS_FILE
from .pseudo_mos import METRIC_SETS, METRICS, deviation, fuse, quantiles_of


def read_distorted_sets(directories: Sequence[Path]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Labels and metrics of distorted sets, one row an image, and the settings of each set.

    Raises:
        MetaQAPError: if a folder holds no such set, or one lacks metrics or distorted images.
        OSError: if a file cannot be read.
    """
    frames, settings = [], []
    for directory in directories:
        files = sorted(directory.glob("part-*.parquet"))
        if not files:
            raise MetaQAPError(f"There is no data set by `metaqap distort-set` in {directory}.")
        settings.append(json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8")))
        for file in files:
            table = pyarrow.parquet.read_table(file, columns=["distortion", "level", "reference_id", "metrics"])
            frames.append(table.flatten().to_pandas())
    frame = pd.concat(frames, ignore_index=True)
    missing = [name for name in METRICS if f"metrics.{name}" not in frame]
    if missing:
        raise MetaQAPError(f"The data sets lack the metrics {', '.join(missing)}; make them with --metrics full.")
    if len(frame) < frame["reference_id"].nunique() * len(DISTORTIONS) * len(LEVELS):
        raise MetaQAPError("Each photograph needs all 125 distorted images; make them with `per_image` 125.")
    frame["distortion"] = [DISTORTION_NAMES[index] for index in frame["distortion"]]
    return frame, settings


def metric_tensors(frame: pd.DataFrame, names: Sequence[str] = tuple(METRICS)) -> dict[str, torch.Tensor]:
    """The metrics' values as `fuse` takes them."""
    return {name: torch.tensor(frame[f"metrics.{name}"].to_numpy(), dtype=torch.float32) for name in names}


def reference_population(frame: pd.DataFrame, settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `reference_population.json` holds: the quantiles of each metric, and of which images they are.

    Args:
        frame, settings: see `read_distorted_sets`.
    """
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


def level_order(scores: npt.NDArray[np.floating]) -> tuple[float, float]:
    """How often the score falls with the level.

    Args:
        scores: Shape (photographs, 5).

    Returns:
        The share of photographs whose five levels are all in order, and the share of adjacent levels in order.
    """
    falls = np.diff(scores, axis=1) < 0
    return float(falls.all(axis=1).mean()), float(falls.mean())


def order_of_levels(frame: pd.DataFrame, scores: npt.NDArray[np.floating]) -> dict[str, Any]:
    """Mean score and order of the levels, for each distortion and over all unsigned and all signed ones.

    Args:
        frame: see `read_distorted_sets`.
        scores: of its images, higher for better ones.
    """
    frame = frame.assign(score=scores)
    table = frame.pivot(index=["distortion", "reference_id"], columns="level", values="score")
    rows: dict[str, dict[str, Any]] = {}
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


def levels_report(
    frame: pd.DataFrame, settings: Sequence[dict[str, Any]], population: dict[str, Any]
) -> dict[str, Any]:
    """How well the score, each metric by itself and the fast set order the levels.

    Args:
        frame, settings: see `read_distorted_sets`; of photographs that are not in the population.
        population: see `reference_population`.
    """
    quantiles = population["quantiles"]
    metrics = metric_tensors(frame)
    full = fuse(metrics, quantiles=quantiles).numpy()
    fast = fuse(metric_tensors(frame, METRIC_SETS["fast"]), quantiles=quantiles).numpy()
    by_metric = {}
    for name, values in metrics.items():
        away = deviation(name, values).numpy()
        by_metric[name] = {
            "srocc_with_pseudo_mos": round(float(-stats.spearmanr(away, full).statistic), 4),
            "five_levels_in_order": order_of_levels(frame, -away)["summary"]["unsigned"]["five_levels_in_order"],
        }
    return {
        "written_by": "scripts/calibrate_pseudo_mos.py",
        "photographs": int(frame["reference_id"].nunique()),
        "sides": sorted({entry["crop_size"] or entry["shortest_edge"] for entry in settings}),
        "reference_population": {
            key: population["population"][key] for key in ("photographs", "distorted_images", "sides")
        },
        "pseudo_mos": order_of_levels(frame, full),
        "metrics": by_metric,
        "fast": {
            "metrics": list(METRIC_SETS["fast"]),
            "srocc_with_full": round(float(stats.spearmanr(fast, full).statistic), 4),
            "plcc_with_full": round(float(stats.pearsonr(fast, full).statistic), 4),
            "mean_absolute_difference": round(float(np.abs(fast - full).mean()), 4),
            **order_of_levels(frame, fast)["summary"],
        },
    }


__all__ = ["level_order", "levels_report", "order_of_levels", "read_distorted_sets", "reference_population"]
