"""Ends a process with a sentence when another one of its run has died or stands still.

A process that waits for another does so inside torch, for half an hour and longer, and cannot look around. So a thread
of each process tells the others every few seconds that it lives, and looks whether they do.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed import distributed_c10d

from ..errors import MetaQAPError
from .accelerate_state import process_state

#: Seconds between two signs of life, and how many may be missed.
BEAT = 2.0
MISSED = 12

#: Seconds in which the others may end properly after the store of signs has gone with the process that kept it.
_END = 10.0

_GONE = "gone"
_MAIN = "The main process of the run"


@contextmanager
def watching_the_others(program: str) -> Iterator[None]:
    """While in this block, end within a minute if another process of the run dies or stands still.

    All processes must enter the block. A process alone is not watched.

    Args:
        program: name of the command or script, which begins the sentence.

    Raises:
        MetaQAPError: if the connection to another process breaks.
    """
    state = process_state()
    if state.num_processes == 1 or not torch.distributed.is_initialized():
        yield
        return
    watch = None
    try:
        watch = _Watch(program, state.process_index, state.num_processes)
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise MetaQAPError(_sentence("Another process of the run")) from error
    finally:
        if watch is not None:
            watch.stop()


class _Watch:
    def __init__(self, program: str, index: int, count: int):
        self._program = program
        self._index = index
        self._others = [other for other in range(count) if other != index]
        # A connection of its own: the main thread may wait for something in the first one.
        self._store = distributed_c10d._get_default_store().clone()
        self._stopped = threading.Event()
        self._tell("0")
        # The store stands still together with the process that keeps it, so each answer of it is waited for elsewhere.
        self._missed = 0
        self._talk = threading.Thread(target=self._exchange_signs, daemon=True)
        self._look = threading.Thread(target=self._look_at_the_clock, daemon=True)
        self._talk.start()
        self._look.start()

    def stop(self) -> None:
        self._stopped.set()
        self._look.join()
        self._talk.join(2 * BEAT)
        if not self._talk.is_alive():
            try:
                self._tell(_GONE)
            except RuntimeError:
                pass  # the process that kept the store has ended before

    def _tell(self, sign: str) -> None:
        self._store.set(f"metaqap-heartbeat-{self._index}", sign)

    def _exchange_signs(self) -> None:
        beats = 0
        last_signs: dict[int, bytes] = {}
        # In beats of this process: time in which it stands still itself, with the whole machine, does not count.
        silent = dict.fromkeys(self._others, 0)
        while not self._stopped.wait(BEAT):
            beats += 1
            try:
                self._tell(str(beats))
                for other in self._others:
                    name = f"metaqap-heartbeat-{other}"
                    sign = self._store.get(name) if self._store.check([name]) else b""
                    silent[other] = silent[other] + 1 if sign == last_signs.get(other, b"") else 0
                    last_signs[other] = sign
            except RuntimeError:
                if not self._stopped.wait(_END):
                    self._end(_MAIN)
                return
            self._missed = 0
            for other in self._others:
                if silent[other] > MISSED and last_signs[other] != _GONE.encode():
                    self._end(f"Process {other} of the run")

    def _look_at_the_clock(self) -> None:
        while not self._stopped.wait(BEAT):
            self._missed += 1
            if self._missed > MISSED + 8:
                self._end(_MAIN)

    def _end(self, which: str) -> None:
        # The main thread may wait inside torch, where no exception reaches it.
        print(f"{self._program}: {_sentence(which)}", file=sys.stderr, flush=True)
        os._exit(2)


def _sentence(which: str) -> str:
    return f"{which} has died or stands still; start the run again, with `resume_from_checkpoint` latest to go on."


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether torch has lost another process. Gloo has no class for that, and several messages."""
    signs = ("gloo", "Connection", "NCCL", "Broken pipe", "ocket", "failed to recv")
    return isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in signs)


__all__ = ["watching_the_others"]
