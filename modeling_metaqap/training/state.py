"""What a run changes while it trains, and what is saved so that it can go on later."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, load
from safetensors import SafetensorError
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, StateDictType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..data.accelerate_state import failing_together
from ..errors import MetaQAPError
from ..modeling_metaqap import MetaQAPModel
from .average import WeightAverage
from .optimizer import make_optimizer
from .recipe import Recipe
from .run_folder import RunFolder
from .set_lines import SetLines
from .state_files import read_progress, write_digests, write_progress


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        epoch: epochs that are complete.
        step_in_epoch: steps of the one after them.
        step: steps of all epochs.
        best_epoch: number of the best epoch, from 1; 0 before the first one was validated.
        best_srocc: its SROCC on the validation split; None before that, or if all scores were the same.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_srocc: float | None = None

    def next_step(self) -> None:
        self.step += 1
        self.step_in_epoch += 1

    def next_epoch(self, srocc: float) -> bool:
        """Finish an epoch and say whether it is the best one so far.

        Args:
            srocc: on the validation split; NaN if all scores are the same, which is worse than any other value.
        """
        self.epoch += 1
        self.step_in_epoch = 0
        known = None if math.isnan(srocc) else srocc
        is_best = self.best_epoch == 0 or (known is not None and (self.best_srocc is None or known > self.best_srocc))
        if is_best:
            self.best_epoch, self.best_srocc = self.epoch, known
        return is_best

    def is_over(self, patience: int | None) -> bool:
        """Whether there was no better epoch among the last `patience` ones."""
        return patience is not None and self.epoch - self.best_epoch >= patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({name: state[name] for name in asdict(self)})


@dataclass
class TrainingState:
    """What a run changes while it trains. Begin with `begin_state`.

    Attributes:
        model: one base learner; with several processes, wrapped or sharded.
        optimizer: over its weights.
        scheduler: of the optimizer's rates.
        average: of the model's weights; this is what is validated and saved for use.
        position: where the run stands.
        lines: of several sets; None for one.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    average: WeightAverage
    position: Position
    lines: SetLines | None = None

    def save(self, accelerator: Accelerator, folder: RunFolder) -> None:
        """Write everything that the run needs to go on from here; all processes must call this."""
        pending = folder.pending_state(self.position.step)
        with failing_together():
            if accelerator.is_main_process:
                folder.clear_pending_state(self.position.step)
        with _failing_together_if_whole(accelerator), writing(pending):
            accelerator.save_state(str(pending), safe_serialization=True)
        accelerator.wait_for_everyone()  # with FSDP nothing has done that
        with failing_together(), writing(pending):
            if accelerator.is_main_process:
                # Not by accelerate, which would unpickle it.
                write_progress(pending, self.average.model.state_dict(), self._progress())
                write_digests(pending)
                folder.commit_state(pending)

    def _progress(self) -> dict[str, Any]:
        return {
            "position": self.position.state_dict(),
            "average_updates": self.average.updates,
            "scheduler": self.scheduler.state_dict(),
            "lines": None if self.lines is None else self.lines.state_dict(),
        }

    def load(self, accelerator: Accelerator, folder: Path) -> None:
        """Go on from a saved state; all processes must call this.

        Raises:
            MetaQAPError: if it was saved with FSDP and that is off now, or the other way round, or if it is of another
                model or cannot be read.
        """
        if (folder / "model.safetensors").exists() == (accelerator.distributed_type is DistributedType.FSDP):
            raise MetaQAPError("FSDP was on when the run was begun and is off now, or the other way round.")
        with _failing_together_if_whole(accelerator), _reading(folder):
            # accelerate goes on without random states that it cannot read.
            random_states = folder / f"random_states_{accelerator.process_index}.pkl"
            if not {"random_state", "numpy_random_seed", "torch_manual_seed"} <= set(load(random_states)):
                raise ValueError(f"{random_states.name} is damaged")
            accelerator.load_state(str(folder))
            average, progress = read_progress(folder)
            self.average.load_state_dict({"updates": progress["average_updates"], "model": average})
            self.scheduler.load_state_dict(progress["scheduler"])
            self.position.load_state_dict(progress["position"])
            if self.lines is not None:
                self.lines.load_state_dict(progress["lines"])


def begin_state(
    model: MetaQAPModel,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    steps_per_epoch: int,
    lines: SetLines | None = None,
) -> TrainingState:
    """The state at the begin of a run.

    Args:
        model: one base learner, on the accelerator's device.
        recipe: of the run.
        accelerator: prepares model and optimizer, and saves the state from now on.
        steps_per_epoch: for the schedule.
        lines: of several sets.
    """
    optimizer, scheduler = make_optimizer(model, recipe, steps_per_epoch=steps_per_epoch)
    average = WeightAverage(model, decay=recipe.ema_decay)
    position = Position()
    if accelerator.distributed_type is DistributedType.FSDP:
        # The only memory format that it can cut up.
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-arg]
        # Mixed precision is autocast's, as without FSDP; otherwise BatchNorm and the heads would be rounded as well.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
        if accelerator.state.fsdp_plugin.state_dict_type is not StateDictType.FULL_STATE_DICT:
            raise MetaQAPError(
                "States must be saved whole, since torch reads sharded ones back by unpickling: set "
                "`fsdp_state_dict_type` to FULL_STATE_DICT."
            )
    model, optimizer = accelerator.prepare(model, optimizer)
    return TrainingState(model, optimizer, scheduler, average, position, lines)


def _failing_together_if_whole(accelerator: Accelerator) -> AbstractContextManager[None]:
    """`failing_together`, unless the weights are sharded.

    With FSDP the processes wait for each other while they save or load, so one that fails cannot tell the others. It
    ends, and then the launcher ends the others.
    """
    return nullcontext() if accelerator.distributed_type is DistributedType.FSDP else failing_together()


@contextmanager
def _reading(state: Path) -> Iterator[None]:
    """Turn what accelerate and torch raise for files of another run, or of nobody's making, into a sentence."""
    try:
        yield
    except MetaQAPError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MetaQAPError(f"The state {state} cannot be read: {reason}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise when a file cannot be written, such as on a full disk, into a sentence.

    Raises:
        MetaQAPError: that `path` could not be written, and the reason.
    """
    try:
        yield
    except SafetensorError as error:
        raise MetaQAPError(f"{path} could not be written: {error}.") from error
    except RuntimeError as error:
        # torch has no class for it, and several messages.
        if not any(name in str(error) for name in ("PytorchStreamWriter", "inline_container", "iostream")):
            raise
        raise MetaQAPError(f"{path} could not be written: is the disk full?") from error


__all__ = ["Position", "TrainingState", "begin_state", "writing"]
