"""How wide each photograph's interval is to be, learned from how far other photographs' scores were off.

The size of an error is modelled as log-linear in a few indicators, and the conformal radius is taken of errors in
units of that size, each by a model that has not seen it. So the intervals hold the promised share whether or not the
model is a good one; a good one makes them narrower where scores are sure.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import lsq_linear

from ..configuration_metaqap import MetaQAPConfig
from ..interval_metaqap import Calibrated, indicators, scale_of
from .conformal import conformal_radius
from .folds import random_folds

#: With fewer images all intervals are equally wide: the slopes would be chance.
FEWEST_IMAGES = 200

#: Distances that familiarity is read off are stored at so many shares of the images, from 0 to 1.
SHARES = 51

# In the order of `indicators`. A photograph that is farther, or that the learners agree less on, is never surer.
_NAMES = ("distance", "spread", "quality", "quality_squared")
_LEAST_SLOPES = (0.0, 0.0, -np.inf, -np.inf)

# Added to errors, in units of quality, before their logarithm is taken: a few scores are right by chance. With more,
# sure and unsure photographs are covered less evenly; with less, intervals are wider.
_ERROR_FLOOR = 0.005

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What the configuration of a model says of its intervals; the attributes have its names.

    Attributes:
        interval_radius, interval_scale, familiar_distances: see `MetaQAPConfig`.
    """

    interval_radius: float
    interval_scale: dict[str, float] | None
    familiar_distances: list[float]

    def write_into(self, config: MetaQAPConfig) -> None:
        """Set the fields of a configuration."""
        config.interval_radius = self.interval_radius
        config.interval_scale = self.interval_scale
        config.familiar_distances = self.familiar_distances


def fit_widths(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    base_scores: npt.ArrayLike,
    distances: npt.ArrayLike,
    *,
    coverage: float = 0.9,
    folds: int = 10,
    seed: int = 0,
) -> Widths:
    """Calibrate the intervals of a model on images that neither its learners nor these predictions were fitted to.

    Args:
        predictions: `(n,)`, quality.
        targets: `(n,)`, opinion scores.
        base_scores, distances: `(n, K)`, of the learners that the model keeps.
        coverage: in (0, 1).
        folds: parts that the images are cut into at random; the errors of each are brought to one size by a model of
            the others.
        seed: of the cut.

    Raises:
        ValueError: see `conformal_radius`.
        MetaQAPError: for too few images for the coverage.
    """
    predicted, opinions = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    scale = None
    radius = conformal_radius(predicted, opinions, coverage=coverage)
    if len(predicted) >= FEWEST_IMAGES:
        values = _indicators(predicted, base_scores, distances)
        errors = np.abs(predicted - opinions)
        sizes = np.empty(len(errors))
        for others, rows in random_folds(np.arange(len(errors)), folds=folds, seed=seed):
            sizes[rows] = _sizes(_fit_scale(values[others], errors[others]), values[rows])
        scale = _fit_scale(values, errors)
        radius = conformal_radius(errors / sizes, np.zeros(len(errors)), coverage=coverage)
    return Widths(
        interval_radius=radius, interval_scale=scale, familiar_distances=familiar_distances(np.asarray(distances))
    )


def recalibrated_widths(
    before: Calibrated,
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    distances: npt.ArrayLike,
    *,
    coverage: float = 0.9,
) -> Widths:
    """Calibrate the intervals of an adapted model on the ratings that it was adapted to.

    How the width depends on distance and quality is kept, since a few dozen ratings cannot tell; how wide the
    intervals are, and which distances are familiar, is measured anew. The spread has no say any more: on their own
    ratings adapted learners agree better than elsewhere.

    Args:
        before: configuration of the model, or its widths.
        predictions: `(n,)`, quality; each by a fit that has not seen its rating.
        targets: `(n,)`, ratings.
        distances: `(n, K)`.
        coverage: in (0, 1).

    Raises:
        ValueError: see `conformal_radius`.
        MetaQAPError: for too few ratings for the coverage.
    """
    away = np.asarray(distances, dtype=np.float64)
    familiar = familiar_distances(away)
    if before.interval_scale is None:
        radius = conformal_radius(predictions, targets, coverage=coverage)
        return Widths(interval_radius=radius, interval_scale=None, familiar_distances=familiar)
    predicted = np.asarray(predictions, dtype=np.float64)
    values = _indicators(predicted, np.zeros_like(away), away)
    slopes = {name: before.interval_scale[name] for name in _NAMES} | {"spread": 0.0}
    scale = _scale_with_mean_1(np.array(list(slopes.values())), values)
    errors = np.abs(predicted - np.asarray(targets, dtype=np.float64))
    radius = conformal_radius(errors / _sizes(scale, values), np.zeros(len(errors)), coverage=coverage)
    return Widths(interval_radius=radius, interval_scale=scale, familiar_distances=familiar)


def more_learners(calibrated: Calibrated, *, before: int, after: int) -> Calibrated:
    """A calibration for a model that gets further learners, whose distances hardly vary.

    The width depends on the mean distance of all learners, and those that were there make up less of it now.

    Args:
        calibrated: configuration of the model, or its widths.
        before, after: numbers of learners.
    """
    scale = calibrated.interval_scale
    if scale is None or calibrated.interval_radius is None or calibrated.familiar_distances is None:
        return calibrated
    return Widths(
        interval_radius=calibrated.interval_radius,
        interval_scale=scale | {"distance": scale["distance"] * after / before},
        familiar_distances=calibrated.familiar_distances,
    )


def familiar_distances(distances: FloatArray) -> list[float]:
    """Mean distances at equally spaced shares of the images, from the nearest to the farthest one.

    Args:
        distances: `(n, K)`.
    """
    shares = np.quantile(distances.mean(axis=1), np.linspace(0, 1, SHARES))
    return [round(float(value), 4) for value in shares]


def _indicators(predicted: FloatArray, base_scores: npt.ArrayLike, distances: npt.ArrayLike) -> FloatArray:
    tensors = [torch.as_tensor(np.asarray(values)) for values in (predicted[:, None], base_scores, distances)]
    return np.asarray(indicators(*tensors).double())


def _fit_scale(values: FloatArray, errors: FloatArray) -> dict[str, float]:
    """`MetaQAPConfig.interval_scale` by least squares on the logarithms of the errors; its mean over them is 1."""
    center, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)  # what is the same for all images says nothing
    design = np.column_stack([(values - center) / spread, np.ones(len(errors))])
    bounds = ([*_LEAST_SLOPES, -np.inf], np.inf)
    solved = lsq_linear(design, np.log(errors + _ERROR_FLOOR), bounds=bounds).x
    return _scale_with_mean_1(solved[:-1] / spread, values)


def _scale_with_mean_1(slopes: FloatArray, values: FloatArray) -> dict[str, float]:
    """The scale of these slopes, within what it is on these images, where its mean is 1."""
    sizes = np.exp(values @ slopes)
    return {
        **dict(zip(_NAMES, slopes.tolist(), strict=True)),
        "intercept": -float(np.log(sizes.mean())),
        "lowest": float(sizes.min() / sizes.mean()),
        "highest": float(sizes.max() / sizes.mean()),
    }


def _sizes(scale: dict[str, float], values: FloatArray) -> FloatArray:
    return np.asarray(scale_of(torch.from_numpy(values), scale))


__all__ = [
    "FEWEST_IMAGES",
    "SHARES",
    "Widths",
    "familiar_distances",
    "fit_widths",
    "more_learners",
    "recalibrated_widths",
]
