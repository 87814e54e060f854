"""Throughput of Ray's workers beside that of one `metaqap score` with as many threads, on the same files and cores."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint_reading import read_config
from ..errors import MetaQAPError
from ..inference.onnx_cache import cached_onnx
from ..inference.ray_pool import check_ray
from .racing import ratio

ONE_PROCESS, RAY = "one process", "Ray"


def distributed_speed(
    checkpoint: Path, files: Sequence[Path], *, workers: int, photographs: int, turns: int
) -> dict[str, Any]:
    """Photographs a second without the start-up, which is given beside it.

    Each contender scores a few and many photographs in every turn. The rate is the difference of their numbers by the
    difference of the times, so that what a run needs once does not count.

    Args:
        checkpoint: folder.
        files: photographs, which are taken again and again under different names.
        workers: of Ray with one core each, and threads of the one process, on as many cores.
        photographs: how many are scored to measure the rate, after a fifth of them.
        turns: that count, after a first short one.

    Raises:
        MetaQAPError: without Ray, if a run fails, or if more photographs did not take longer.
    """
    check_ray()
    cached_onnx(checkpoint, read_config(checkpoint))  # once, and not while somebody's time counts
    few = max(1, photographs // 5)
    times: dict[str, list[tuple[float, float]]] = {ONE_PROCESS: [], RAY: []}
    with tempfile.TemporaryDirectory() as name:
        folders = {count: _links(Path(name) / str(count), files, count) for count in (few, few + photographs)}
        for contender in times:
            _seconds(contender, folders[few], checkpoint, workers)
        for _ in range(turns):
            for contender, taken in times.items():
                first, second = (_seconds(contender, folder, checkpoint, workers) for folder in folders.values())
                if second <= first:
                    raise MetaQAPError(
                        f"{contender} took no longer for {few + photographs} photographs than for {few}; measure more "
                        "of them with --scored, on a quiet machine."
                    )
                taken.append((first, second))
    contenders: dict[str, Any] = {}
    for contender, taken in times.items():
        rates = [photographs / (second - first) for first, second in taken]
        start_ups = [first - few / rate for (first, _), rate in zip(taken, rates, strict=True)]
        contenders[contender] = {
            "rates": [round(rate, 4) for rate in rates],
            "images_per_second": round(statistics.median(rates), 4),
            "start_up_seconds": round(statistics.median(start_ups), 1),
        }
    return {
        "workers": workers,
        "photographs": [few, few + photographs],
        "turns": turns,
        "contenders": contenders,
        "images_per_second_and_core": round(contenders[RAY]["images_per_second"] / workers, 4),
        "ray_over_one_process": ratio(contenders, RAY, ONE_PROCESS),
    }


def _links(folder: Path, files: Sequence[Path], count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:06}.jpg").symlink_to(files[index % len(files)].resolve())
    return folder


def _seconds(contender: str, folder: Path, checkpoint: Path, workers: int) -> float:
    command = [
        sys.executable,
        "-m",
        "modeling_metaqap",
        "score",
        str(folder),
        "--checkpoint",
        str(checkpoint.resolve()),
    ]
    command += ["--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(workers if contender == ONE_PROCESS else 1)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as name:
        if contender == RAY:
            command += ["--engine", "ray", "--workers", str(workers), "-o", str(Path(name) / "scores")]
        else:
            command += ["-o", str(Path(name) / "scores.parquet")]
        started = time.perf_counter()
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, preexec_fn=lambda: _keep_to_cores(workers)
        )
        seconds = time.perf_counter() - started
    if run.returncode:
        raise MetaQAPError(f"{contender} ended with status {run.returncode}: {run.stderr.strip()}")
    return seconds


def _keep_to_cores(count: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


__all__ = ["distributed_speed"]
