"""Trains, or sees whole images, for as long as it is told, with whichever version of the package it finds; see `race`.

The work is one of `step`, training steps on one batch that is in memory; `loop`, the same with crops that are read
from the files; `heads`, the features of whole images that heads are fitted to; `validation`, the figures of a model
on whole images.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from transformers.utils import logging
from worker_protocol import Watch, answer, report, tasks

#: Photographs of an epoch: the loop does not come to its end in one turn.
ROWS = 100_000
#: Whole images that are seen at a time.
WHOLE = 128


class Work:
    """A base learner with random weights in training, and photographs."""

    def __init__(self, options: dict[str, Any], files: Sequence[str]):
        from modeling_metaqap import MetaQAPModel
        from modeling_metaqap.training import splits as training_splits
        from modeling_metaqap.training.batches import Batches
        from modeling_metaqap.training.learner import freeze_batch_norm, model_config
        from modeling_metaqap.training.recipe import Recipe
        from modeling_metaqap.training.state import begin_state
        from modeling_metaqap.training.validation import Validation

        self.recipe = Recipe(backbone=options["backbone"])
        rows = datasets.Dataset.from_dict(
            {
                "image": list(itertools.islice(itertools.cycle(files), ROWS)),
                "image_id": [str(row) for row in range(ROWS)],
                "quality": [row % WHOLE / WHOLE for row in range(ROWS)],
            }
        ).cast_column("image", datasets.Image())
        self.whole = rows.select(range(WHOLE))
        self.accelerator = Accelerator(cpu=True)
        if hasattr(training_splits, "SetSplits"):
            images = training_splits.SetSplits(training=rows, validation=self.whole)
            splits = training_splits.Splits((images,))
        else:  # a version that learned from one set only
            splits = training_splits.Splits(rows, self.whole)
        self.batches = Batches(splits, self.recipe, self.accelerator, num_workers=options["num_workers"])
        self.validation = Validation(splits, self.batches)
        model: Any = MetaQAPModel(model_config(self.recipe))
        self.model = model.to(memory_format=torch.channels_last)
        self.state = begin_state(self.model, self.recipe, self.accelerator, steps_per_epoch=1_000_000)
        self.freeze = freeze_batch_norm

    def _learn(self, batches: Iterator[Any], seconds: float) -> tuple[int, Watch]:
        """Images that were learned from, and the time after the first step.

        Then the processes that read have read what they may ahead, as they have at the end.
        """
        from modeling_metaqap.training.step import training_step

        self.freeze(self.state.model.train())
        training_step(self.accelerator, self.state, self.recipe, next(batches))
        watch, images = Watch(), 0
        while images == 0 or watch.running < seconds:
            training_step(self.accelerator, self.state, self.recipe, next(batches))
            images += self.recipe.batch_size
        return images, watch.stop()

    def step(self, seconds: float) -> tuple[int, Watch]:
        reading = self.batches.of_epoch(0)
        batch = next(reading)
        del reading  # and with it the processes
        return self._learn(itertools.repeat(batch), seconds)

    def loop(self, seconds: float) -> tuple[int, Watch]:
        return self._learn(self.batches.of_epoch(0), seconds)

    def heads(self, seconds: float) -> tuple[int, Watch]:
        from modeling_metaqap.training.heads import pooled_features

        def see() -> None:
            pooled_features(self.model, self.batches.whole(self.whole), device=self.accelerator.device)

        return self._see_whole(see, seconds)

    def validate(self, seconds: float) -> tuple[int, Watch]:
        return self._see_whole(lambda: self.validation.figures(self.model, distortions=False), seconds)

    def _see_whole(self, see: Callable[[], Any], seconds: float) -> tuple[int, Watch]:
        watch, images = Watch(), 0
        while images == 0 or watch.running < seconds:
            see()
            images += WHOLE
        return images, watch.stop()


def main() -> None:
    options = json.loads(sys.argv[1])
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    work: Work | None = None
    try:
        if options["keep_memory"]:
            from modeling_metaqap.memory import keep_freed_memory

            keep_freed_memory()
        for task in tasks():
            work = work or Work(options, task["files"])
            run = {"step": work.step, "loop": work.loop, "heads": work.heads, "validation": work.validate}
            answer(*run[options["work"]](task["seconds"]))
    except Exception as error:
        report({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
