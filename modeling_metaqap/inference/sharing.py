"""What the processes of one scoring do, whoever starts them: each makes a scorer and scores units into their shards.

Imports nothing that computes, so that a process that only hands out the work stays small.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import DEFAULT_CHECKPOINT
from ..data.stored_images import stored_images
from ..fetching_metaqap import Fetching
from .choices import Dtype, Engine
from .records import ScoreRecord, scale_title
from .shards import ShardTask, Tally, score_task

if TYPE_CHECKING:
    from .fastest import Choice
    from .scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How photographs are scored, to be sent to other processes.

    Attributes:
        checkpoint, engine, device, dtype, scale, learners, fast, num_images, batch_size: see `Scorer`.
        num_workers, isolate: see `Scorer`.
        image_column: of tables, see `images_in`.
        allow_private: see `Fetching`.
    """

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    engine: str = Engine.auto
    device: str | None = None
    dtype: str = Dtype.float32
    scale: tuple[float, float] | str | None = None
    learners: int | None = None
    fast: bool = False
    num_images: int | None = None
    batch_size: int = 8
    num_workers: int = 4
    isolate: bool = False
    image_column: str = "image"
    allow_private: bool = False

    def make_scorer(self) -> "Scorer":
        """The scorer.

        Raises:
            MetaQAPError: see `Scorer`.
        """
        from .scorer import Scorer

        return Scorer(
            self.checkpoint,
            engine=self.engine,
            device=self.device,
            dtype=self.dtype,
            scale=self.scale,
            learners=self.learners,
            fast=self.fast,
            num_images=self.num_images,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            isolate=self.isolate,
        )

    def score_task(self, scorer: "Scorer", folder: Path, task: ShardTask) -> Tally:
        """Score a unit into its shards; see `shards.score_task`."""
        return score_task(folder, task, partial(self._records, scorer, task))

    def _records(self, scorer: "Scorer", task: ShardTask, skip: set[str]) -> Iterable[ScoreRecord]:
        images = stored_images(
            task.unit.places,
            image_column=self.image_column,
            fetching=Fetching(allow_private=self.allow_private),
            skip=skip,
            span=task.unit.span,
        )
        return scorer.score(images)


def describe_run(
    weights: str,
    *,
    engine: str,
    dtype: str,
    learners: int | None,
    choice: "Choice | None",
    scale: tuple[float, float],
) -> dict[str, str]:
    """What scores are made with, to be written beside them; see `open_records`.

    Args:
        weights: SHA-256 of the weights, or the checkpoint's name.
        engine, dtype, learners: as they were asked for, see `Scorer`.
        choice: what a scorer has taken for its speed, if it was to choose.
        scale: that a scorer reports on.
    """
    run = {"weights": weights, "engine": str(engine), "number format": str(dtype)}
    if choice is not None:
        run |= {"engine": choice.engine, "number format": choice.dtype}
    run["scale"] = scale_title(scale)
    if learners is not None:
        run["base learners"] = str(learners)
    return run


__all__ = ["ScoringOptions", "describe_run"]
