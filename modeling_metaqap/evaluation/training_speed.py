"""Images a second of training as it is done: with reading, on crops and on whole images, beside an older version."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..training.batches import reading_processes
from .racing import Contender, race, ratio

#: What is measured, and what `training_worker.py` calls it.
WORKS = {
    "step on a batch in memory": "step",
    "loop with reading": "loop",
    "features for the heads": "heads",
    "validation": "validation",
}
STEP, LOOP, HEADS, VALIDATION = WORKS
BEFORE = ", version before"

# What the older versions took where nobody said it.
_WORKERS_BEFORE = 2


def training_speed(
    backbone: str, files: Sequence[Path], *, threads: int, seconds: float, turns: int, before: Path | None = None
) -> dict[str, Any]:
    """Images a second of each part of a training run, each in a process of its own, in turns.

    Images are read as a training reads them where nobody says how; by processes beside it on the same cores, if any.

    Args:
        backbone: that is trained, from random weights.
        files: photographs, which are taken again and again.
        threads, seconds, turns: see `race`.
        before: folder of an older version of this package, to compare with.
    """
    workers = reading_processes(threads, torch.device("cpu"))

    def contender(name: str, work: str, *, package: Path | None = None) -> Contender:
        options = {
            "backbone": backbone,
            "work": work,
            "num_workers": workers if package is None else _WORKERS_BEFORE,
            "keep_memory": package is None,
        }
        return Contender(
            name, "training_worker.py", options, package=None if package is None else str(package.resolve())
        )

    taking_part = [contender(name, work) for name, work in WORKS.items()]
    if before is not None:
        taking_part += [contender(name + BEFORE, work, package=before) for name, work in WORKS.items()]
    results = race(taking_part, [str(file) for file in files], threads=threads, seconds=seconds, turns=turns)
    pairs = {f"{LOOP} over {STEP}": (LOOP, STEP)}
    if before is not None:
        pairs |= {f"{name} over version before": (name, name + BEFORE) for name in WORKS}
    return {
        "threads": threads,
        "processes_that_read": workers,
        "processes_that_read_before": _WORKERS_BEFORE,
        "turns": turns,
        "seconds": seconds,
        "contenders": results,
        "ratios": {title: ratio(results, *pair) for title, pair in pairs.items()},
        "processor_ratios": {title: ratio(results, *pair, of="processor_rates") for title, pair in pairs.items()},
    }


__all__ = ["BEFORE", "HEADS", "LOOP", "STEP", "VALIDATION", "WORKS", "training_speed"]
