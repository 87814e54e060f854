"""How well predicted quality agrees with human opinion: the figures that the field publishes.

All functions take predictions and targets as array-likes of shape (n,) or (n, 1) with n >= 2, in any unit. They raise
a `MetaQAPError` for other shapes and for values that are not finite. A correlation with something constant is not
defined: it is returned as NaN, which therefore means "this model (or this data) does not vary", never "no data".

Compute them once, on the scores of the whole split. A rank correlation that is averaged over batches or processes is
another, meaningless number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from ..errors import MetaQAPError

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[npt.ArrayLike, npt.ArrayLike], float]


def plcc(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Pearson linear correlation coefficient, in [-1, 1], higher is better; NaN where either side is constant.

    Nothing is fitted: this is the correlation of the raw scores. See [`plcc_logistic`] for the fitted one.
    """
    return _correlation(stats.pearsonr, predictions, targets)


def srocc(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Spearman rank-order correlation coefficient, in [-1, 1], higher is better; NaN where either side is constant.

    Ties get their mean rank.
    """
    return _correlation(stats.spearmanr, predictions, targets)


def plcc_and_srocc(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """[`plcc`] and [`srocc`] by their names: the pair that tables compare methods by."""
    return {"plcc": plcc(predictions, targets), "srocc": srocc(predictions, targets)}


def krocc(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Kendall rank-order correlation coefficient, in [-1, 1], higher is better; NaN where either side is constant.

    This is tau-b, which allows for ties.
    """
    return _correlation(stats.kendalltau, predictions, targets)


def rmse(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Root mean squared error, in [0, inf), lower is better, in the common unit of predictions and targets."""
    predictions, targets = _validated(predictions, targets)
    return float(np.sqrt(np.mean((predictions - targets) ** 2)))


def plcc_logistic(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """PLCC after mapping the predictions onto the targets' scale by a fitted logistic, as most papers report it.

    The mapping is [`fit_logistic`]'s. It follows the direction of the raw correlation and the result keeps that
    sign, so a model that ranks the wrong way round is not turned into a good one. The fit sees the targets that it is
    judged on: compare it with other figures made the same way only.

    Returns:
        A figure in [-1, 1], higher is better; NaN where either side is constant.
    """
    predictions, targets = _validated(predictions, targets)
    linear = plcc(predictions, targets)
    if math.isnan(linear):
        return math.nan
    fitted = abs(plcc(fit_logistic(predictions, targets)(predictions), targets))
    # A straight line is the limit of a wide logistic, so the fit cannot be worse, save by a local minimum.
    return math.copysign(np.fmax(fitted, abs(linear)), linear)


@dataclass(frozen=True)
class LogisticFit:
    """`beta2 + (beta1 - beta2) / (1 + exp(-(x - beta3) / beta4))`, with beta4 > 0.

    Args:
        beta1: Limit for large scores, in the targets' unit.
        beta2: Limit for small scores, in the targets' unit.
        beta3: Score half-way between the two.
        beta4: Width of the transition, in the predictions' unit.
    """

    beta1: float
    beta2: float
    beta3: float
    beta4: float

    def __call__(self, predictions: npt.ArrayLike) -> FloatArray:
        """Maps scores of any shape onto the targets' scale."""
        scores = (np.asarray(predictions, dtype=np.float64) - self.beta3) / self.beta4
        return np.asarray(self.beta2 + (self.beta1 - self.beta2) * special.expit(scores))


def fit_logistic(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> LogisticFit:
    """Least-squares fit of the monotonic four-parameter logistic of the Video Quality Experts Group.

    Source: VQEG, "Final report from the Video Quality Experts Group on the validation of objective models of video
    quality assessment" (phase I, 2000), in the form written out by Seshadrinathan et al., "Study of subjective and
    objective quality assessment of video", IEEE Transactions on Image Processing 19(6), 2010.

    Raises:
        MetaQAPError: The predictions are constant, so that there is nothing to fit.
    """
    predictions, targets = _validated(predictions, targets)
    if np.ptp(predictions) == 0:
        raise MetaQAPError("A logistic cannot be fitted to predictions that are all the same.")
    # In units of the largest value, so that no square is smaller than a number can be.
    unit = float(np.abs(predictions).max())
    predictions = predictions / unit
    centre, scale = float(predictions.mean()), float(predictions.std())
    standardised = (predictions - centre) / scale
    target_unit = float(np.abs(targets).max()) or 1.0
    targets = targets / target_unit
    mean = float(targets.mean())

    def transition(parameters: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """The logistic from 0 to 1, its deviations from its mean, and the amplitude that suits the targets best."""
        location, log_width = parameters
        curve = special.expit((standardised - location) * math.exp(-log_width))
        deviations = curve - curve.mean()
        spread = float(deviations @ deviations)
        return curve, deviations, float(deviations @ (targets - mean)) / spread if spread > 0 else 0.0

    def residuals(parameters: FloatArray) -> FloatArray:
        _, deviations, amplitude = transition(parameters)
        return np.asarray(mean + amplitude * deviations - targets)

    def jacobian(parameters: FloatArray) -> FloatArray:
        location, log_width = parameters
        curve, deviations, amplitude = transition(parameters)
        slope = curve * (1 - curve) * math.exp(-log_width)
        columns = -amplitude * np.column_stack([slope, slope * (standardised - location)])
        columns -= columns.mean(axis=0)
        # What the two limits can make up for is no change of the residuals.
        spread = float(deviations @ deviations)
        return columns - np.outer(deviations, deviations @ columns / spread) if spread > 0 else columns

    # Both limits follow from the other two parameters by linear least squares, so only these are searched for
    # (variable projection: Golub & Pereyra, SIAM Journal on Numerical Analysis 10(2), 1973; Jacobian of Kaufman, BIT
    # 15, 1975). They are in standard units. The width is a logarithm, so it is never negative; at its upper bound the
    # curve is practically a straight line.
    result = optimize.least_squares(residuals, x0=[0.0, 0.0], jac=jacobian, bounds=([-10, -5], [10, 5]))
    location, log_width = (float(value) for value in result.x)
    curve, _, amplitude = transition(result.x)
    low = mean - amplitude * float(curve.mean())
    return LogisticFit(
        beta1=target_unit * (low + amplitude),
        beta2=target_unit * low,
        beta3=unit * (centre + scale * location),
        beta4=unit * (scale * math.exp(log_width)),
    )


#: Of fewer images no correlation is reported: of two it is 1 or -1, whatever they are.
MIN_IMAGES = 3

METRICS: dict[str, Statistic] = {
    "plcc": plcc,
    "srocc": srocc,
    "krocc": krocc,
    "rmse": rmse,
    "plcc_logistic": plcc_logistic,
}


def bootstrap_interval(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    statistic: Statistic,
    *,
    seed: int,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over images (Efron & Tibshirani, 1993, chapter 13).

    Images are drawn with replacement, each with its prediction and its target. It says how much the figure would
    change with other images of the same kind; not how much it would change with another training run.

    Args:
        statistic: Function of predictions and targets, such as [`srocc`].
        seed: Seed of the draws; the same seed gives the same interval and, for several statistics, the same draws.
        n_bootstrap: Number of draws. Draws in which the statistic is not defined are left out.
        confidence: Probability mass of the interval, in (0, 1).

    Returns:
        Lower and upper limit; both NaN where the statistic is defined for none of the draws.
    """
    predictions, targets = _validated(predictions, targets)
    if n_bootstrap < 1 or not 0 < confidence < 1:
        raise MetaQAPError("n_bootstrap must be at least 1, and confidence must lie between 0 and 1.")
    rng = np.random.default_rng(seed)
    draws = np.empty(n_bootstrap)
    for index in range(n_bootstrap):
        chosen = rng.integers(len(targets), size=len(targets))
        draws[index] = statistic(predictions[chosen], targets[chosen])
    draws = draws[~np.isnan(draws)]
    if draws.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def evaluate_scores(
    predictions: npt.ArrayLike, targets: npt.ArrayLike, *, seed: int = 0, n_bootstrap: int = 1000
) -> dict[str, Any]:
    """All the figures of a data set's predictions, each with its 95 % bootstrap interval.

    Args:
        predictions: Predicted quality of n images.
        targets: Their opinion scores as `quality`, on the predictions' scale (only RMSE depends on the scale).
        seed: Seed of the bootstrap.
        n_bootstrap: Number of bootstrap draws; 0 leaves the intervals out.

    Returns:
        `{"n": n, "seed": seed, "n_bootstrap": n_bootstrap, "confidence": 0.95}` and, for each of `METRICS`,
        `{"value": float, "low": float, "high": float}`; NaN where the predictions or targets are constant. Of fewer
        than `MIN_IMAGES` images only the value of the RMSE is not NaN.
    """
    predictions, targets = _validated(predictions, targets)
    figures: dict[str, Any] = {"n": len(targets), "seed": seed, "n_bootstrap": n_bootstrap, "confidence": 0.95}
    are_enough = len(targets) >= MIN_IMAGES
    for name, statistic in METRICS.items():
        is_defined = are_enough or statistic is rmse
        figures[name] = {"value": statistic(predictions, targets) if is_defined else math.nan}
        if n_bootstrap and not are_enough:
            figures[name] |= {"low": math.nan, "high": math.nan}
        elif n_bootstrap:
            low, high = bootstrap_interval(predictions, targets, statistic, seed=seed, n_bootstrap=n_bootstrap)
            figures[name] |= {"low": low, "high": high}
    return figures


def _correlation(
    statistic: Callable[[FloatArray, FloatArray], Any], predictions: npt.ArrayLike, targets: npt.ArrayLike
) -> float:
    predictions, targets = _validated(predictions, targets)
    if np.ptp(predictions) == 0 or np.ptp(targets) == 0:
        return math.nan
    return float(statistic(predictions, targets).statistic)


def _validated(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as finite float64 arrays of one length; raises a `MetaQAPError` that says what is wrong."""
    arrays = []
    for what, values in (("predictions", predictions), ("targets", targets)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise MetaQAPError(f"{what} must have the shape (n,) or (n, 1), not {array.shape}.")
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            places = ", ".join(map(str, bad[:5])) + (", ..." if bad.size > 5 else "")
            raise MetaQAPError(f"{bad.size} of {array.size} {what} are not finite (at {places}).")
        arrays.append(array)
    if len(arrays[0]) != len(arrays[1]):
        raise MetaQAPError(f"There are {len(arrays[0])} predictions but {len(arrays[1])} targets.")
    if len(arrays[0]) < 2:
        raise MetaQAPError("At least two images are needed to compare predictions with targets.")
    return arrays[0], arrays[1]


__all__ = [
    "METRICS",
    "MIN_IMAGES",
    "LogisticFit",
    "bootstrap_interval",
    "evaluate_scores",
    "fit_logistic",
    "krocc",
    "plcc",
    "plcc_and_srocc",
    "plcc_logistic",
    "rmse",
    "srocc",
]
