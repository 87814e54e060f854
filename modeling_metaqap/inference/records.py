"""`ScoreRecord`: what is known about one image after scoring."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(kw_only=True)
class ScoreRecord:
    """What is known about one image. Fields that the checkpoint does not give are None.

    Attributes:
        path: as given.
        quality: higher is better; [0, 1] is the training range, values are not clipped to it.
        quality_low, quality_high: calibrated prediction interval.
        interval_coverage: share of new images whose opinion score the interval is calibrated to hold.
        distortion: name of the synthetic distortion that the image resembles most.
        distortion_probability: of that distortion, in [0, 1].
        width, height: pixels, after the EXIF orientation.
        error: why the image has no score.
        warning: why its score says little: it is tiny or of one color, or the first frame of several.
        base_scores: each base learner's own score, in the order of `config.base_learners`.
        distortion_probabilities: of all the distortions, in the order of `config.distortion_labels`; their sum is 1.
        quality_map: float32 `(height, width)` of what the model sees of the image, on request; its mean is close to
            `quality` (equal to it for images of one crop).
    """

    path: str
    quality: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None
    interval_coverage: float | None = None
    distortion: str | None = None
    distortion_probability: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    warning: str | None = None
    base_scores: list[float] | None = None
    distortion_probabilities: list[float] | None = None
    quality_map: np.ndarray | None = None

    @property
    def interval_name(self) -> str:
        """What to call the interval for people, such as "90 % interval"."""
        return interval_title(self.interval_coverage)


def as_json(record: ScoreRecord) -> dict[str, Any]:
    """A record as JSON values, without its map: the same fields, by the same names, as the pipeline gives."""
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name != "quality_map"}


def interval_title(coverage: float | None) -> str:
    """What to call an interval that is calibrated to hold this share of the opinion scores."""
    return "interval" if coverage is None else f"{percent(coverage)} interval"


def percent(share: float) -> str:
    """`0.9` -> `"90 %"`."""
    return f"{100 * share:.4g} %"


__all__ = ["ScoreRecord", "as_json", "interval_title", "percent"]
