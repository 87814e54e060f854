"""Where the processes that `accelerate launch` starts compute."""

import torch
from accelerate import PartialState


def without_accelerator() -> bool:
    """Whether this machine has a CPU alone.

    Accelerate must be told so: otherwise it takes several processes that find no GPU for ones that know nothing of
    each other, and each does the whole work.
    """
    return not torch.accelerator.is_available()


def process_state() -> PartialState:
    """This process's number among all, and its device."""
    return PartialState(cpu=without_accelerator())


__all__ = ["process_state", "without_accelerator"]
