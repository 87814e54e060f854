"""Which learners to keep where fewer than all are wanted."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.metrics import plcc, srocc
from .folds import random_folds
from .stepwise import shrink
from .widths import fit_widths


def choose_learners(
    base_scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    distances: npt.ArrayLike,
    *,
    shrinkage: float = 0.0,
    coverage: float = 0.9,
    folds: int = 10,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The learners that together serve best, for each number of them, with a meta-learner of their own.

    Every set of learners is fused by linear regression, and judged by its SROCC on images that its regression has not
    seen. The learners themselves must not have seen any of the images.

    Args:
        base_scores: `(n, K)`.
        targets: `(n,)`, quality.
        distances: `(n, K)`, to each learner's training images.
        shrinkage: of the regressions' weights, see `shrink`.
        coverage: of the interval, in (0, 1).
        folds: parts that the images are cut into at random; each is fused by a regression on the others.
        seed: of the cut.

    Returns:
        For each number of learners from 1 to K: `learners` (positions), `weights`, `intercept`, the interval's
        `interval_radius`, `interval_scale` and `familiar_distances`, and the `plcc` and `srocc` that the choice was
        made by.

    Raises:
        MetaQAPError: for too few images for the interval.
        ValueError: for scores or targets of other shapes.
    """
    x, y, away = (np.asarray(values, dtype=np.float64) for values in (base_scores, targets, distances))
    if x.ndim != 2 or y.shape != (len(x),) or away.shape != x.shape:
        raise ValueError(
            f"Need base scores and distances (n, K) and targets (n,), got {x.shape}, {away.shape} and {y.shape}."
        )
    chosen = []
    for count in range(1, x.shape[1] + 1):
        tried = []
        for learners in combinations(range(x.shape[1]), count):
            columns = x[:, list(learners)]
            fused = np.empty(len(y))
            for others, rows in random_folds(np.arange(len(y)), folds=folds, seed=seed):
                weights, intercept = _regression(columns[others], y[others], shrinkage)
                fused[rows] = columns[rows] @ weights + intercept
            tried.append((srocc(fused, y), learners, columns, fused))
        best, learners, columns, fused = max(tried, key=lambda one: one[0])
        weights, intercept = _regression(columns, y, shrinkage)
        widths = fit_widths(fused, y, columns, away[:, list(learners)], coverage=coverage, folds=folds, seed=seed)
        chosen.append(
            {
                "learners": list(learners),
                "weights": weights.tolist(),
                "intercept": intercept,
                **asdict(widths),
                "plcc": plcc(fused, y),
                "srocc": best,
            }
        )
    return chosen


def _regression(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], shrinkage: float
) -> tuple[npt.NDArray[np.float64], float]:
    design = np.column_stack([x, np.ones(len(y))])
    weights = shrink(np.linalg.lstsq(design, y, rcond=None)[0][:-1], shrinkage)
    return weights, float(y.mean() - x.mean(axis=0) @ weights)


__all__ = ["choose_learners"]
