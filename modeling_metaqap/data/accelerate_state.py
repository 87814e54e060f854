"""Where the processes that `accelerate launch` starts compute, and how they fail together."""

import atexit
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..errors import MetaQAPError, sentence

Result = TypeVar("Result")


def without_accelerator() -> bool:
    """Whether this machine has a CPU alone.

    Accelerate must be told so: otherwise it takes several processes that find no GPU for ones that know nothing of
    each other, and each does the whole work.
    """
    return not torch.accelerator.is_available()


def process_state() -> PartialState:
    """This process's number among all, and its device."""
    state = PartialState(cpu=without_accelerator())
    if state.num_processes > 1:
        _close_process_group_at_exit()
    return state


@cache
def _close_process_group_at_exit() -> None:
    # A thread of the group that still holds a tensor when Python ends aborts the process, and the exit status is lost.
    atexit.register(_close_process_group)


def _close_process_group() -> None:
    # The group's threads end with its last user. A model that was prepared for several processes is one, and it is
    # part of reference cycles.
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def failing_together() -> Iterator[None]:
    """Let every process fail if one of them fails in this block; otherwise the others would wait for it for ever.

    All processes must enter the block, and it ends for all at the same time. Inside it none may wait for another. A
    process that fails raises its own error, and each of the others a `MetaQAPError` with the sentence of the first one
    that failed.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    alone = process_state().num_processes == 1
    sentences = [] if alone else gather_object([None if failure is None else sentence(failure)])
    if failure is not None:
        raise failure
    for reason in sentences:
        if reason is not None:
            raise MetaQAPError(reason)


def main_process_first(function: Callable[[], Result]) -> Result:
    """Call a function on the main process, then on the others, which find what that one has cached. All fail together.

    Accelerate's own `main_process_first` leaves the others waiting when the main process fails.
    """
    results: list[Result] = []
    for turn_of_main in (True, False):
        with failing_together():
            if process_state().is_main_process is turn_of_main:
                results.append(function())
    return results[0]


__all__ = ["failing_together", "main_process_first", "process_state", "without_accelerator"]
