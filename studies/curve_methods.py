"""What the studies of own ratings share: ways to make use of some, and the photographs they are of."""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.expectation import choose_fit, predict
from modeling_metaqap.fusion.residual_regression import draw_centers, fit_basis, functions_of
from modeling_metaqap.fusion.stepwise import fit_stepwise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


def add_photograph_options(parser: argparse.ArgumentParser) -> None:
    """Add `--dataset`, `--data_dir`, `--cache_dir`, `--checkpoint` and `--features`."""
    add = parser.add_argument
    add("--dataset", required=True, help="without an official split, such as livec")
    add("--data_dir")
    add("--cache_dir")
    add("--checkpoint", default=str(DEFAULT_CHECKPOINT), help="folder (default: the shipped one)")
    add("--features", type=Path, help="folder to keep the features in")


def refuse(path: Path, reason: str) -> None:
    """A data set is measured whole or not at all."""
    raise MetaQAPError(f"{path} cannot be read: {reason}.")


@dataclass
class Learned:
    """What the K learners of an ensemble see in n photographs, and what people say of them.

    Attributes:
        standardized: for each learner its standardised features, `(n, F)`.
        base_scores: `(n, K)`.
        scores: of the ensemble, `(n,)`.
        quality: `(n,)`, ratings.
    """

    standardized: list[FloatArray]
    base_scores: FloatArray
    scores: FloatArray
    quality: FloatArray

    def functions(self, rated: IntArray, rows: IntArray, **options: Any) -> Any:
        """Functions around the rated photographs, at these rows."""
        drawn = draw_centers(len(rated))
        bases = [fit_basis(features[rated], drawn) for features in self.standardized]
        return functions_of(bases, [features[rows] for features in self.standardized], **options)


def adapted(learned: Learned, rated: IntArray, unseen: IntArray) -> tuple[FloatArray, Any]:
    """Scores of unseen photographs that are adapted to the rated ones, and the functions at both."""
    functions = learned.functions(rated, np.concatenate([rated, unseen]))
    known, others = np.arange(len(rated)), np.arange(len(rated), len(rated) + len(unseen))
    fit = choose_fit(learned.scores[rated], learned.quality[rated], functions, known)
    return predict(fit, learned.scores[unseen], functions, others), functions


def fused(learned: Learned, rated: IntArray, unseen: IntArray) -> FloatArray:
    """Scores of unseen photographs by a fusion that is fitted to the rated ones, shrunk as the shipped one is."""
    try:
        fit = fit_stepwise(learned.base_scores[rated], learned.quality[rated], shrinkage=0.5)
    except MetaQAPError:  # no learner is selected
        return learned.base_scores[unseen].mean(axis=1)
    return fit.predict(learned.base_scores[unseen])


def medians(several: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, lowest and highest of each figure over draws."""
    columns = {name: [one[name] for one in several] for name in several[0]}
    return {
        name: {"value": statistics.median(values), "low": min(values), "high": max(values)}
        for name, values in columns.items()
    }


__all__ = ["Learned", "adapted", "add_photograph_options", "fused", "medians", "refuse"]
