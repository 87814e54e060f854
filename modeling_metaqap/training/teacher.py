"""A trained checkpoint whose scores a learner learns from, beside those of people."""

from pathlib import Path

import torch
from accelerate import Accelerator

from ..checkpoint_reading import read_model
from ..folding import fold_for_inference
from ..lineage import Stage, all_stages, weights_sha256
from .set_lines import SetLines
from .step import Batch


class Teacher:
    """Labels each crop anew by what the teacher says of that very crop.

    A person's score is about a whole photograph, and there is none for a distorted one. The teacher sees the crop, so
    its scores say more about it. With several sets its scores count as quality on the scale of the first one.

    Args:
        checkpoint: folder or Hub id of an ensemble or one learner.
        weight: of its scores beside people's, in [0, 1]. Distorted images have its scores alone.
        accelerator: where it computes; each process has one of its own.

    Raises:
        MetaQAPError: if the checkpoint cannot be used.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, for a score instead of
    classes.
    """

    def __init__(self, checkpoint: str | Path, *, weight: float, accelerator: Accelerator):
        model = read_model(checkpoint)
        self.sha256 = weights_sha256(checkpoint)
        #: What the teacher has learned from, and with it who learns from the teacher. A fusion is not counted: it saw
        #: the validation images as one number for each learner, and who is taught still has to be validated on them.
        self.stages: list[Stage] = [
            stage for stage in all_stages(model.config) if stage.kind not in ("imagenet", "fusion")
        ]
        self._model = fold_for_inference(model).to(accelerator.device, memory_format=torch.channels_last)
        self._weight = weight
        self._accelerator = accelerator

    @torch.no_grad()
    def label(self, batch: Batch, *, lines: SetLines | None = None) -> Batch:
        """The batch with the labels to learn: the photographs' mixed ones, then the teacher's of distorted images.

        Args:
            batch: with people's labels.
            lines: of several sets; the teacher's scores are brought to the scale of each photograph's set, and
                distorted images are given to the first set.
        """
        with self._accelerator.autocast():
            pixels = batch.pixels.to(memory_format=torch.channels_last).float() / 255
            scores = self._model(pixel_values=pixels).logits.squeeze(1).float()
        rated, sets = len(batch.labels), batch.sets
        if sets is not None and lines is not None:
            sets = torch.cat([sets, sets.new_zeros(len(scores) - rated)])
            scores = lines.ratings(scores, sets)
        labels = torch.lerp(batch.labels, scores[:rated], self._weight)
        return batch._replace(labels=torch.cat([labels, scores[rated:]]), sets=sets)


__all__ = ["Teacher"]
