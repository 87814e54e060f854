"""Split-conformal prediction intervals."""

import math

import numpy as np
import numpy.typing as npt

from ..errors import MetaQAPError


def conformal_radius(predictions: npt.ArrayLike, targets: npt.ArrayLike, *, coverage: float = 0.9) -> float:
    """Half the width of an interval `prediction +- radius` that covers new targets with probability `coverage`.

    The radius is the `ceil((n + 1) * coverage)`-th smallest absolute residual. The guarantee holds for images
    exchangeable with these, whose targets the predictor must not have been fitted to.

    Args:
        predictions: `(n,)` predicted quality.
        targets: `(n,)` opinion scores on the same scale.
        coverage: in (0, 1).

    Returns:
        The radius, in units of quality, >= 0.

    Raises:
        ValueError: for different lengths or values that are not finite.
        MetaQAPError: for too few images for the coverage.

    Source: Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018), algorithm 2.
    """
    residuals = np.abs(np.asarray(predictions, dtype=np.float64) - np.asarray(targets, dtype=np.float64))
    if residuals.ndim != 1 or np.shape(predictions) != np.shape(targets):
        raise ValueError(f"Need two vectors of one length, got {np.shape(predictions)} and {np.shape(targets)}.")
    if not np.isfinite(residuals).all():
        raise ValueError("Predictions and targets must be finite.")
    rank = math.ceil((len(residuals) + 1) * coverage)
    if not 0 < coverage < 1 or rank > len(residuals):
        raise MetaQAPError(f"{len(residuals)} residuals are too few for a coverage of {coverage}.")
    return float(np.sort(residuals)[rank - 1])


__all__ = ["conformal_radius"]
