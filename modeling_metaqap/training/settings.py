"""How a run is computed and where its files lie."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import MetaQAPError


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the command line says beside the recipe. None of it changes what is learned, except `init`, `teacher`
    and `max_bad_images`.

    Attributes:
        output_dir: the run folder.
        init: a trained base learner to start from, a folder or Hub id; None for ImageNet weights.
        teacher: a trained checkpoint whose scores are learned from too, a folder or Hub id.
        data_dir: the unpacked data set; None downloads it where its publisher allows that. With several sets one
            folder for all, or a list with one for each, in their order.
        distorted_dir, distorted_validation_dir: sets of distorted images to learn from and to validate on.
        cache_dir: where prepared data sets are kept, and features of whole images by learners that are not trained.
        mixed_precision: "no", "fp16", "bf16", or None for what `accelerate launch` says.
        cpu: stay on the CPU even if there is an accelerator.
        num_workers: processes that read images, for each process that trains; default see `reading_processes`.
        max_bad_images: how many images that cannot be read may be left out. With 0 they are not looked for beforehand,
            and the first one ends the run.
        gradient_accumulation_steps: number of chunks that a batch is computed in, to save memory.
        with_tracking: name of a tracker that gets what is logged.
        logging_steps: steps between two rows of the log.
        checkpointing_steps: steps between two saved states; 0 saves one at the end of each epoch only.
        resume_from_checkpoint: a saved state to go on from, or "latest".
    """

    output_dir: str
    init: str | None = None
    teacher: str | None = None
    data_dir: str | Sequence[str | None] | None = None
    distorted_dir: str | None = None
    distorted_validation_dir: str | None = None
    cache_dir: str | None = None
    mixed_precision: str | None = None
    cpu: bool = False
    num_workers: int | None = None
    max_bad_images: int = 0
    gradient_accumulation_steps: int = 1
    with_tracking: str | None = None
    logging_steps: int = 20
    checkpointing_steps: int = 100
    resume_from_checkpoint: str | None = None

    def data_dirs(self, number_of_sets: int) -> list[str | None]:
        """The folder of each data set.

        Raises:
            MetaQAPError: if there are more folders than one, but not one for each set.
        """
        folders = [self.data_dir] if self.data_dir is None or isinstance(self.data_dir, str) else list(self.data_dir)
        if len(folders) == 1:
            folders *= number_of_sets
        if len(folders) != number_of_sets:
            raise MetaQAPError(
                f"The recipe names {number_of_sets} data sets but `data_dir` {len(folders)} folders; name one for "
                "each, in the same order, or one for all of them."
            )
        return folders


__all__ = ["RunSettings"]
