"""How wide a photograph's prediction interval is, and how familiar the photograph, by numbers of the configuration.

Both are worked out of what a model says of the whole photograph, so it does not matter whether its crops were computed
together or one by one.

Source of the scale: Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018), section 5.2
(locally weighted split-conformal intervals).
"""

from typing import Protocol

import torch
from torch import Tensor


class Calibrated(Protocol):
    """What has the numbers of a calibration, as a configuration has them; see `MetaQAPConfig`."""

    @property
    def interval_radius(self) -> float | None: ...

    @property
    def interval_scale(self) -> dict[str, float] | None: ...

    @property
    def familiar_distances(self) -> list[float] | None: ...


#: Added to the spread of the learners, in units of quality, before its logarithm is taken: they may all agree.
SPREAD_FLOOR = 0.005


def prediction_interval(config: Calibrated, quality: Tensor, base_scores: Tensor, distances: Tensor) -> Tensor | None:
    """Lower and upper end of the interval, `(B, 2)`; None for a model that is not calibrated.

    Args:
        config: of the model.
        quality: `(B, 1)`.
        base_scores, distances: `(B, K)`, as in `MetaQAPOutput`.
    """
    if config.interval_radius is None:
        return None
    radius = config.interval_radius * interval_scale(config, quality, base_scores, distances)
    return torch.cat([quality - radius, quality + radius], dim=1)


def interval_scale(config: Calibrated, quality: Tensor, base_scores: Tensor, distances: Tensor) -> Tensor:
    """How wide the interval is beside the mean width, `(B, 1)`, without gradient; 1 without `config.interval_scale`.

    Args:
        config, quality, base_scores, distances: see `prediction_interval`.
    """
    if config.interval_scale is None:
        return torch.ones_like(quality.detach())
    return scale_of(indicators(quality, base_scores, distances), config.interval_scale).unsqueeze(1)


def scale_of(indicators: Tensor, scale: dict[str, float]) -> Tensor:
    """How wide the interval is beside the mean width, `(B,)`.

    Args:
        indicators: `(B, 4)`, see the function of that name.
        scale: as in `MetaQAPConfig.interval_scale`.
    """
    distance, spread, quality, square = indicators.unbind(1)
    exponent = (
        scale["intercept"]
        + scale["distance"] * distance
        + scale["spread"] * spread
        + scale["quality"] * quality
        + scale["quality_squared"] * square
    )
    # As a whole, to what was seen: of a stranger nothing is known but that it is one.
    return exponent.exp().clamp(scale["lowest"], scale["highest"])


def indicators(quality: Tensor, base_scores: Tensor, distances: Tensor) -> Tensor:
    """What the width depends on, `(B, 4)`: mean distance, logarithm of the learners' spread, quality and its square.

    Args:
        quality, base_scores, distances: see `prediction_interval`; gradients do not go through them.
    """
    quality, base_scores = quality.detach().float(), base_scores.detach().float()
    learners = base_scores.shape[1]
    squares = (base_scores - base_scores.mean(dim=1, keepdim=True)).square().sum(dim=1, keepdim=True)
    spread = (squares / max(1, learners - 1)).sqrt()
    distance = distances.detach().float().mean(dim=1, keepdim=True)
    return torch.cat([distance, (spread + SPREAD_FLOOR).log(), quality, quality.square()], dim=1)


def familiarity(config: Calibrated, distances: Tensor) -> Tensor | None:
    """How like the training photographs, in [0, 1], `(B, 1)`: the share of known photographs that are farther.

    None without `config.familiar_distances`. Between two of these distances the share changes linearly.

    Args:
        config: of the model.
        distances: `(B, K)`.
    """
    known = config.familiar_distances
    if known is None:
        return None
    distance = distances.detach().float().mean(dim=1, keepdim=True)
    ends = torch.tensor(known, dtype=torch.float32, device=distance.device)
    # How much of each step lies below; two equal distances make a step of no width.
    below = (distance - ends[:-1]) / (ends[1:] - ends[:-1]).clamp_min(1e-6)
    return 1 - below.clamp(0, 1).mean(dim=1, keepdim=True)


__all__ = [
    "SPREAD_FLOOR",
    "Calibrated",
    "familiarity",
    "indicators",
    "interval_scale",
    "prediction_interval",
    "scale_of",
]
