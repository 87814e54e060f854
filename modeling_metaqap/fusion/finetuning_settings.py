"""How learners are fine-tuned on own ratings. Imports nothing heavy."""

from dataclasses import dataclass

from ..errors import MetaQAPError

#: With fewer rated photographs gradient steps are refused. A fifth of these, 60, has an SROCC with a standard error of
#: about .05, as large as what gradient steps can bring: epochs would be chosen, and learners taken, by chance. From
#: where on they do help is for `studies/finetuning.py` to measure.
FEWEST_TO_FINETUNE = 300

#: From so many rated photographs on, one fold is held out instead of each in turn: it is large enough to tell.
ONE_FOLD_FROM = 5000


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """How learners are fine-tuned.

    Attributes:
        learners: how many; those whose features predict the ratings best.
        folds: parts that the photographs are cut into.
        epochs: passes over the photographs, at most.
        patience: stop after so many epochs that rank what was held out no better.
        batch_size, crop_size, learning_rate, ema_decay, freeze_stages: see `Recipe`.
        num_workers: processes that read images; default see `reading_processes`.

    Raises:
        MetaQAPError: for settings that are out of range.
    """

    learners: int = 2
    folds: int = 5
    epochs: int = 6
    patience: int = 2
    batch_size: int = 16
    crop_size: int = 256
    learning_rate: float = 1e-4
    ema_decay: float = 0.98
    freeze_stages: int = 2
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("learners", 1), ("folds", 2), ("epochs", 1)):
            if getattr(self, name) < least:
                raise MetaQAPError(f"`{name}` of fine-tuning must be at least {least}, got {getattr(self, name)}.")

    def runs_for(self, n: int) -> int:
        """How many of the folds are held out in turn with n photographs."""
        return self.folds if n < ONE_FOLD_FROM else 1


__all__ = ["FEWEST_TO_FINETUNE", "ONE_FOLD_FROM", "FinetuningSettings"]
