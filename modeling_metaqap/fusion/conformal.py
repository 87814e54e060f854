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
        MetaQAPError: for a coverage that is none, and too few images for it.

    Source: Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018), algorithm 2.
    """
    residuals = np.abs(np.asarray(predictions, dtype=np.float64) - np.asarray(targets, dtype=np.float64))
    if residuals.ndim != 1 or np.shape(predictions) != np.shape(targets):
        raise ValueError(f"Need two vectors of one length, got {np.shape(predictions)} and {np.shape(targets)}.")
    if not np.isfinite(residuals).all():
        raise ValueError("Predictions and targets must be finite.")
    if not 0 < coverage < 1:
        raise MetaQAPError(f"The coverage of an interval must lie between 0 and 1, got {coverage}.")
    rank = math.ceil((len(residuals) + 1) * coverage)
    if rank > len(residuals):
        needed = math.ceil(round(coverage / (1 - coverage), 6))
        raise MetaQAPError(
            f"To calibrate an interval that holds {100 * coverage:g} % takes {needed:,} images or more, not "
            f"{len(residuals):,}; give more of them, or ask for a lower coverage."
        )
    return float(np.sort(residuals)[rank - 1])


__all__ = ["conformal_radius"]
