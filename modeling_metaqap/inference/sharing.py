"""What the processes of one scoring do, whoever starts them: each makes a scorer and scores units into their shards.

Imports nothing that computes, so that a process that only hands out the work stays small.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
    isolate: bool | None = False
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
    weights: str, *, engine: str, dtype: str, learners: int | None, scale: tuple[float, float]
) -> dict[str, str]:
    """What scores are made with, to be written beside them; see `open_records`.

    Args:
        weights: SHA-256 of the weights, or the checkpoint's name.
        engine, dtype: that were taken, not `auto`; see `CropEngine`.
        learners: as they were asked for, see `Scorer`.
        scale: that a scorer reports on.
    """
    run = {"weights": weights, "engine": str(engine), "number format": dtype, "scale": scale_title(scale)}
    if learners is not None:
        run["base learners"] = str(learners)
    return run


def as_begun(options: ScoringOptions, run: Mapping[str, str]) -> ScoringOptions:
    """Options to go on with a run: where they leave the engine open, it is the one that the run was begun with.

    Which one `auto` stands for can change: with the number of photographs, and with what is installed.

    Args:
        options: as they were asked for.
        run: what stands beside the output, see `describe_run`; empty if nothing does.
    """
    begun = run.get("engine")
    if options.fast or options.engine != Engine.auto or begun not in (Engine.torch, Engine.onnx):
        return options
    if begun == Engine.torch:
        return replace(options, engine=Engine.torch)
    return replace(options, num_images=None)  # the file of ONNX Runtime is made for however few


__all__ = ["ScoringOptions", "as_begun", "describe_run"]
