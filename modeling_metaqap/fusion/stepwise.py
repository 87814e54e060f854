"""The meta-learner: stepwise linear regression of opinion scores on the base learners' scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from ..errors import MetaQAPError
from .folds import random_folds

#: See `_tolerance`; 1 by its square root is the factor by which the standard error of a weight may grow.
_LEAST_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Step:
    """One step of the selection.

    Attributes:
        action: "enter" or "remove".
        name: of the predictor.
        p_value: of its coefficient in the model with it, in [0, 1].
        beta: that coefficient in units of standard deviations (standardised coefficient).
        r_squared: of the model after the step, in [0, 1].
        reason: why.
    """

    action: str
    name: str
    p_value: float
    beta: float
    r_squared: float
    reason: str


@dataclass(frozen=True)
class StepwiseFit:
    """A fitted meta-learner.

    Attributes:
        names: all candidate predictors, in the order of the columns.
        weights: `(K,)`, after shrinkage; 0 for a predictor that was not selected.
        intercept: in units of the targets.
        least_squares: `(K,)`, the weights before shrinkage.
        steps: how the selection went.
        excluded: predictors that could not be used, with the reason.
    """

    names: list[str]
    weights: npt.NDArray[np.float64]
    intercept: float
    least_squares: npt.NDArray[np.float64]
    steps: list[Step] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def selected(self) -> list[str]:
        return [name for name, weight in zip(self.names, self.weights, strict=True) if weight != 0]

    def predict(self, base_scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """`(n, K)` base scores -> `(n,)` fused quality. Columns that were not selected may hold anything."""
        chosen = self.weights != 0
        return np.asarray(base_scores, dtype=np.float64)[:, chosen] @ self.weights[chosen] + self.intercept


def fit_stepwise(
    base_scores: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    names: Sequence[str] | None = None,
    p_enter: float = 0.05,
    p_remove: float = 0.10,
    min_beta: float = 0.05,
    shrinkage: float = 0.0,
    sizes: Sequence[int] | None = None,
    mean_instead: bool = False,
) -> StepwiseFit:
    """Forward-backward stepwise linear regression (Efroymson, 1960).

    At each step the predictor that raises R^2 most enters, if its p-value is at most `p_enter` and its standardised
    coefficient at least `min_beta` in size; then predictors whose p-value has risen above `p_remove`, or whose
    coefficient has fallen below `min_beta`, leave one by one. Use scores of images that the base learners were not
    trained on (out-of-fold or validation), or the best over-fitted learner wins.

    Args:
        base_scores: `(n, K)`; constant columns and columns with missing values (NaN) are excluded and reported. A
            column that the selected ones determine but for a thousandth of its variance does not enter.
        targets: `(n,)` opinion scores.
        names: K names for the table of steps.
        p_enter: highest p-value to enter, in (0, 1).
        p_remove: p-value above which a predictor leaves, >= `p_enter` so that the selection ends.
        min_beta: smallest standardised coefficient of a selected predictor.
        shrinkage, sizes: see `shrink`, which the weights of the selected predictors go through.
        mean_instead: fit the mean of the targets where no predictor can be selected.

    Raises:
        ValueError: for wrong shapes, thresholds, shrinkage or targets.
        MetaQAPError: for too few images, or where no predictor can be selected and `mean_instead` is not set.

    Source: MetaQAP (arXiv 2506.16601), meta-learner; unlike the authors' code it tests every selected coefficient and
    removes predictors again.
    """
    x = np.asarray(base_scores, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"Need base scores (n, K) and targets (n,), got {x.shape} and {y.shape}.")
    if not 0 < p_enter <= p_remove < 1:
        raise ValueError(f"Need 0 < p_enter <= p_remove < 1, got {p_enter} and {p_remove}.")
    if not np.isfinite(y).all() or np.ptp(y) == 0:
        raise ValueError("The targets must be finite and not all the same.")
    if len(x) < x.shape[1] + 3:
        raise MetaQAPError(f"{len(x)} images are too few for {x.shape[1]} predictors.")
    labels = [f"learner {index}" for index in range(x.shape[1])] if names is None else list(names)
    if len(labels) != x.shape[1]:
        raise ValueError(f"Got {len(labels)} names for {x.shape[1]} predictors.")

    # By position: several predictors may have one name.
    unusable = {}
    for index, column in enumerate(x.T):
        if not np.isfinite(column).all():
            unusable[index] = f"{(~np.isfinite(column)).sum()} scores are missing or not finite"
        elif np.ptp(column) <= 1e-12 * max(1.0, np.abs(column).max()):
            unusable[index] = "its scores are constant"
    excluded = {labels[index]: reason for index, reason in unusable.items()}
    candidates = [index for index in range(x.shape[1]) if index not in unusable]

    selected: list[int] = []
    steps: list[Step] = []
    while True:
        entering = _best_candidate(x, y, selected, [c for c in candidates if c not in selected])
        if entering is None:
            break
        index, fit = entering
        beta = _standardized(fit.params[-1], x[:, index], y)
        p_value = float(fit.pvalues[-1])
        if p_value > p_enter or abs(beta) < min_beta:
            break
        selected.append(index)
        steps.append(Step("enter", labels[index], p_value, beta, float(fit.rsquared), "raises R^2 most"))
        while len(selected) > 1:
            fit = _ols(x, y, selected)
            p_values = np.asarray(fit.pvalues[1:])
            betas = np.array([_standardized(b, x[:, i], y) for b, i in zip(fit.params[1:], selected, strict=True)])
            weak = (p_values > p_remove) | (np.abs(betas) < min_beta)
            if not weak.any():
                break
            worst = int(np.argmax(np.where(weak, p_values - np.abs(betas), -np.inf)))
            reason = f"p > {p_remove}" if p_values[worst] > p_remove else f"|beta| < {min_beta}"
            leaving = selected.pop(worst)
            r_squared = float(_ols(x, y, selected).rsquared)
            steps.append(
                Step("remove", labels[leaving], float(p_values[worst]), float(betas[worst]), r_squared, reason)
            )
            # What was removed does not come back: the same evidence would let it enter for ever.
            candidates.remove(leaving)
    if not selected and not mean_instead:
        raise MetaQAPError(
            f"No base learner agrees with the opinion scores of these {len(x):,} images well enough to be selected "
            f"(p at most {p_enter:g}, a standardised coefficient of at least {min_beta:g}). Take more images, or "
            "train for longer."
        )
    least_squares = np.zeros(x.shape[1])
    least_squares[selected] = _ols(x, y, selected).params[1:]
    weights = shrink(least_squares, shrinkage, sizes=sizes)
    intercept = y.mean() - x[:, selected].mean(axis=0) @ weights[selected]
    return StepwiseFit(labels, weights, float(intercept), least_squares, steps, excluded)


def shrink(weights: npt.ArrayLike, shrinkage: float, *, sizes: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
    """Weights `(K,)` moved a part of the way to equal weights with the same sum; those that are 0 stay 0.

    Images of the sources that learners were trained on favour those that know these sources best; on images from
    elsewhere equal weights are hard to beat (Diebold and Pauly, 1990, https://doi.org/10.1016/0169-2070(90)90028-A).
    Keeping the sum keeps the spread of the fused scores about what the regression made it.

    Args:
        weights: `(K,)`.
        shrinkage: the part of the way, in [0, 1].
        sizes: K numbers of base learners whose mean each predictor is, so that it is these that get equal weights;
            default 1 each.

    Raises:
        ValueError: for another shrinkage or other sizes.
    """
    old = np.asarray(weights, dtype=np.float64)
    counts = np.ones(len(old)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"The shrinkage must lie in [0, 1], got {shrinkage}.")
    if counts.shape != old.shape or (counts < 1).any():
        raise ValueError(f"Need {len(old)} sizes of at least 1, got {sizes}.")
    shares = np.where(old != 0, counts, 0.0)
    if not shares.any():
        return old
    return old + shrinkage * (old.sum() * shares / shares.sum() - old)


def cross_fitted(
    base_scores: npt.ArrayLike, targets: npt.ArrayLike, *, folds: int = 10, seed: int = 0, **options: Any
) -> npt.NDArray[np.float64]:
    """Fused quality `(n,)` of each image by a meta-learner that was selected and fitted on the other folds' images.

    Figures of a regression on the images that it was fitted to flatter it, and their residuals are too small for
    `conformal_radius`. Where the other folds select no learner, their mean opinion is the prediction.

    Args:
        base_scores, targets: see `fit_stepwise`.
        folds: parts of equal size that the images are cut into at random; one image each where there are fewer.
        seed: of the cut.
        options: of `fit_stepwise`.

    Raises:
        ValueError: see `fit_stepwise`.
    """
    x, y = np.array(base_scores, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim == 2:
        # A learner that cannot score one image cannot fuse that one, so no fold may select it.
        x[:, ~np.isfinite(x).all(axis=0)] = np.nan
    fused = np.empty(len(y))
    for others, held_out in random_folds(np.arange(len(y)), folds=folds, seed=seed):
        fused[held_out] = fit_stepwise(x[others], y[others], mean_instead=True, **options).predict(x[held_out])
    return fused


def _ols(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], columns: list[int]) -> sm.regression.linear_model:
    return sm.OLS(y, np.column_stack([np.ones(len(y)), x[:, columns]])).fit()


def _best_candidate(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], selected: list[int], candidates: list[int]
) -> tuple[int, sm.regression.linear_model] | None:
    best = None
    for index in candidates:
        # A column that the selected ones all but determine, or that makes one of these such a column, has no
        # coefficient of its own: of two near-duplicates one would get a huge weight, and the other its negative.
        if selected and _tolerance(x[:, [*selected, index]]) < _LEAST_TOLERANCE:
            continue
        fit = _ols(x, y, [*selected, index])
        if best is None or fit.rsquared > best[1].rsquared:
            best = (index, fit)
    return best


def _tolerance(x: npt.NDArray[np.float64]) -> float:
    """The smallest part of a column's variance that the other columns do not determine, in [0, 1]."""
    try:
        inflation = np.linalg.inv(np.corrcoef(x, rowvar=False)).diagonal()
    except np.linalg.LinAlgError:
        return 0.0
    return float(1 / inflation.max()) if (inflation > 0).all() else 0.0


def _standardized(coefficient: float, column: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    return float(coefficient * column.std() / y.std())


__all__ = ["Step", "StepwiseFit", "cross_fitted", "fit_stepwise", "shrink"]
