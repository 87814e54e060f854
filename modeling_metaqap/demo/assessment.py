"""What the demo computes: one photograph, two, one through the levels of a distortion, or many. No Gradio in here."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

from PIL import Image

from ..data.distortions import LEVELS, applicable_distortions, distort
from ..decoding_metaqap import Photograph
from ..errors import MetaQAPError
from ..inference.choices import THUMBNAIL
from ..inference.records import ScoreRecord
from ..inference.scorer import Scorer

#: An image at most about this many times longer than wide. Each crop costs the time of one ordinary photograph.
MAX_CROPS = 48


@dataclass(frozen=True)
class Assessment:
    """One photograph and all that the model says about it.

    Attributes:
        photograph: as the model sees it.
        record: its scores, with the quality map.
    """

    photograph: Photograph
    record: ScoreRecord


@dataclass(frozen=True)
class Comparison:
    """Two photographs and how sure it is that the left one is better.

    Attributes:
        left, right: scores of the two.
        left_is_better: probability in [0, 1], or None for a checkpoint whose interval is not calibrated.
    """

    left: ScoreRecord
    right: ScoreRecord
    left_is_better: float | None


class Assessor:
    """Scores photographs for the demo, within limits that keep memory and time of one request small.

    Args:
        scorer: with `max_pixels` and `max_crops` set.
        max_files: of one batch.
        max_seconds: for one batch; the files that are left get an error.
    """

    def __init__(self, scorer: Scorer, *, max_files: int = 200, max_seconds: float = 600):
        self.scorer = scorer
        self.max_files = max_files
        self.max_seconds = max_seconds
        # Moving the level of a distortion must not score the five levels again.
        self._cached_curve = lru_cache(maxsize=64)(self._curve)

    @property
    def distortion_labels(self) -> list[str]:
        """Names of the distortions that the checkpoint recognises; empty if it has no distortion head."""
        return self.scorer.engine.config.distortion_labels or []

    @property
    def learner_names(self) -> list[str]:
        """Names of the base learners, in the order of `ScoreRecord.base_scores`."""
        return [learner["name"] for learner in self.scorer.engine.config.base_learners]

    def read(self, path: str | None) -> Photograph:
        """Read an uploaded file.

        Raises:
            MetaQAPError: with a sentence for the user, if there is none or it cannot be used.
        """
        if not path:
            raise MetaQAPError("Please choose a photograph first.")
        try:
            return self.scorer.read(path)
        except MetaQAPError as error:
            raise MetaQAPError(f"{Path(path).name} cannot be scored: {error}.") from error

    def assess(self, path: str | None) -> Assessment:
        """Score one photograph, with its quality map."""
        photograph = self.read(path)
        [record] = self.scorer.score([photograph], quality_map=True)
        record.path = Path(path or "").name
        return Assessment(photograph, record)

    def compare(self, left: str | None, right: str | None) -> Comparison:
        """Score two photographs and weigh them against each other."""
        first, second = self.scorer.score([self.read(left), self.read(right)])
        first.path, second.path = Path(left or "").name, Path(right or "").name
        return Comparison(first, second, left_is_better=probability_better(first, second))

    def distort(self, path: str | None, name: str, level: int) -> tuple[Photograph, Image.Image, list[ScoreRecord]]:
        """The photograph as the model sees it, the same distorted, and the records at level 0 (as it is) to 5.

        Raises:
            MetaQAPError: for a file that cannot be used, or a distortion that does not change it.
        """
        photograph = self.read(path)
        try:
            if name not in applicable_distortions(photograph.pixels):
                raise MetaQAPError("This photograph has no colours that the distortion could change.")
            distorted = distort(photograph.pixels, name, level, 0) if level else photograph.pixels
            return photograph, distorted, self._cached_curve(str(path), name)
        except MetaQAPError:
            raise
        except ValueError as error:
            raise MetaQAPError(f"{Path(str(path)).name} cannot be distorted: {error}") from error

    def _curve(self, path: str, name: str) -> list[ScoreRecord]:
        pixels = self.read(path).pixels
        versions = (distort(pixels, name, level, 0) if level else pixels for level in (0, *LEVELS))
        return list(self.scorer.score(versions))

    def score_many(self, paths: Sequence[str]) -> Iterator[ScoreRecord]:
        """Yields a record with a thumbnail for each file, in their order; one that cannot be used gets an `error`.

        Raises:
            MetaQAPError: for no files, or more than `max_files`.
        """
        if not paths:
            raise MetaQAPError("Please choose some photographs first.")
        if len(paths) > self.max_files:
            raise MetaQAPError(f"{len(paths)} files are more than the {self.max_files} of one batch.")
        end = time.monotonic() + self.max_seconds
        done = 0
        # From a generator, so that no file is opened after the end.
        in_time = (path for path in paths if time.monotonic() < end)
        for record in self.scorer.score(in_time, thumbnail=THUMBNAIL):
            record.path = Path(record.path).name
            done += 1
            yield record
        for path in paths[done:]:
            yield ScoreRecord(
                path=Path(path).name, error=f"not reached in the {self.max_seconds:g} seconds of a batch"
            )


def probability_better(first: ScoreRecord, second: ScoreRecord) -> float | None:
    """Probability that raters would prefer the first photograph, from both scores and their intervals.

    The model: an opinion is the score plus an error; the errors of the two photographs are independent and normal, and
    as many of them lie within the interval as it is calibrated to hold. The difference of the two opinions is then
    normal too. Errors that two photographs have in common (two shots of one scene, say) cancel out, so for those it is
    on the cautious side.

    Returns:
        A probability in [0, 1], or None without a calibrated interval.
    """
    variances = []
    for record in (first, second):
        if record.quality_low is None or record.quality_high is None or record.interval_coverage is None:
            return None
        radius = (record.quality_high - record.quality_low) / 2
        variances.append((radius / NormalDist().inv_cdf((1 + record.interval_coverage) / 2)) ** 2)
    difference = (first.quality or 0.0) - (second.quality or 0.0)
    spread = math.sqrt(sum(variances))
    return NormalDist().cdf(difference / spread) if spread else float(difference > 0) + 0.5 * (difference == 0)


__all__ = [
    "MAX_CROPS",
    "Assessment",
    "Assessor",
    "Comparison",
    "probability_better",
]
