"""`ScoreRecord`: what is known about one image after scoring."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from PIL import Image

#: Fields of a record that are not written: pictures, the scale, which is the same for all images of a run, and the
#: distances, whose unit is that of one checkpoint; people read the familiarity.
NOT_VALUES = ("distances", "quality_map", "scale", "thumbnail")


@dataclass(kw_only=True)
class ScoreRecord:
    """What is known about one image. Fields that the checkpoint does not give are None.

    Attributes:
        path: as given.
        quality: higher is better; [0, 1] is the training range, values are not clipped to it.
        quality_low, quality_high: calibrated prediction interval.
        interval_coverage: share of new images whose opinion score the interval is calibrated to hold.
        familiarity: how like the training photographs it is, in [0, 1]: the share of the photographs that the
            checkpoint was calibrated on which were farther from them.
        distortion: name of the synthetic distortion that the image resembles most.
        distortion_probability: of that distortion, in [0, 1].
        width, height: pixels, after the EXIF orientation.
        error: why the image has no score.
        warning: why its score says little: it is tiny or of one color, or the first frame of several.
        base_scores: each base learner's own score, in the order of `config.base_learners`.
        distortion_probabilities: of all the distortions, in the order of `config.distortion_labels`; their sum is 1.
        distances: to each base learner's training photographs, see `MetaQAPOutput`.
        quality_map: float32 `(height, width)` of what the model sees of the image, on request; its mean is close to
            `quality` (equal to it for images of one crop).
        scale: what stands for the lowest and the highest quality that raters could give, in all these scores; see
            `Scorer`.
        thumbnail: a small picture of the image, RGB and upright, on request.
    """

    path: str
    quality: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None
    interval_coverage: float | None = None
    familiarity: float | None = None
    distortion: str | None = None
    distortion_probability: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    warning: str | None = None
    base_scores: list[float] | None = None
    distortion_probabilities: list[float] | None = None
    distances: list[float] | None = field(default=None, compare=False)  # a record that was read back lacks them
    quality_map: np.ndarray | None = None
    thumbnail: Image.Image | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    def put_on_scale(self, scale: tuple[float, float]) -> None:
        """Report all scores, which are in [0, 1], on another scale."""
        if scale == (0.0, 1.0):
            return  # not even a rounding error
        low, high = scale

        def scaled(score: float | None) -> float | None:
            return None if score is None else low + (high - low) * score

        self.quality, self.quality_low, self.quality_high = map(
            scaled, (self.quality, self.quality_low, self.quality_high)
        )
        if self.base_scores is not None:
            self.base_scores = [low + (high - low) * score for score in self.base_scores]
        if self.quality_map is not None:
            self.quality_map = np.float32(low) + np.float32(high - low) * self.quality_map
        self.scale = scale

    def share(self, score: Any) -> Any:
        """A score of this record, or several as an array, in [0, 1] again, whatever the scale is."""
        low, high = self.scale
        return (score - low) / (high - low)

    @property
    def interval_name(self) -> str:
        """What to call the interval for people, such as "90 % interval"."""
        return interval_title(self.interval_coverage)


def as_json(record: ScoreRecord) -> dict[str, Any]:
    """A record as JSON values: the same fields, by the same names, as the pipeline gives."""
    return {one.name: getattr(record, one.name) for one in fields(record) if one.name not in NOT_VALUES}


def interval_title(coverage: float | None) -> str:
    """What to call an interval that is calibrated to hold this share of the opinion scores."""
    return "interval" if coverage is None else f"{percent(coverage)} interval"


def scale_title(scale: tuple[float, float]) -> str:
    """`(1.0, 5.0)` -> `"1 to 5"`."""
    return f"{scale[0]:g} to {scale[1]:g}"


def percent(share: float) -> str:
    """`0.9` -> `"90 %"`."""
    return f"{100 * share:.4g} %"


__all__ = ["NOT_VALUES", "ScoreRecord", "as_json", "interval_title", "percent", "scale_title"]
