"""Scores photographs for as long as it is told, with whichever version of the package it finds; see `race`."""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging
from worker_protocol import Watch, answer, report, tasks


def until(seconds: float, files: Sequence[str]) -> Iterator[str]:
    """The files again and again until the time is over, and each once at least."""
    end = time.perf_counter() + seconds
    yield from files
    for file in itertools.cycle(files):
        if time.perf_counter() >= end:
            return
        yield file


def multiply_matrices(seconds: float) -> float:
    """Thousands of millions of multiply-adds."""
    side = 1536
    one, other = torch.rand(side, side), torch.rand(side, side)
    end, count = time.perf_counter() + seconds, 0
    while count == 0 or time.perf_counter() < end:
        torch.mm(one, other)
        count += 1
    return count * side**3 / 1e9


def score_one_by_one(scorer: Any, files: Iterator[str]) -> int:
    """Photographs that are read and scored, each before the next one is looked at."""
    return sum(1 for file in files for _ in scorer.score([file]))


def run_bare(scorer: Any, crops: np.ndarray, seconds: float) -> int:
    """Crops that the engine alone computes, in the scorer's batches."""
    end, count = time.perf_counter() + seconds, 0
    while count == 0 or time.perf_counter() < end:
        scorer.engine(crops)
        count += len(crops)
    return count


def main() -> None:
    options = json.loads(sys.argv[1])
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    scorer: Any = None
    crops: Any = None
    crops_of_one = 1.0
    try:
        if options.get("keep_memory"):
            from modeling_metaqap.memory import keep_freed_memory

            keep_freed_memory()
        if not options.get("matrices"):
            from modeling_metaqap import Scorer

            scorer = Scorer(options["checkpoint"], **options["scorer"])
    except Exception as error:
        report({"error": str(error)})
        return
    for task in tasks():
        if scorer is not None and options["bare"] and crops is None:
            prepared = [scorer.prepare(file).crops for file in task["files"]]
            crops_of_one = sum(map(len, prepared)) / len(prepared)
            crops = np.resize(np.concatenate(prepared), (scorer.batch_size, *prepared[0].shape[1:]))
        watch = Watch()
        if scorer is None:
            images: float = multiply_matrices(task["seconds"])
        elif options["bare"]:
            images = run_bare(scorer, crops, task["seconds"]) / crops_of_one
        elif options.get("one_at_a_time"):
            images = score_one_by_one(scorer, until(task["seconds"], task["files"]))
        else:
            images = sum(1 for _ in scorer.score(until(task["seconds"], task["files"])))
        answer(images, watch.stop())


if __name__ == "__main__":
    main()
