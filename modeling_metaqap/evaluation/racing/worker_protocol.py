"""What the programs of a race share: they get tasks as lines of JSON, and answer each with one.

They import this file by its place beside them, and it imports nothing of MetaQAP, since one of them runs in an
environment of its own.
"""

import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def tasks() -> Iterator[dict[str, Any]]:
    """The tasks until there are no more; this process keeps to the cores that each names."""
    for line in sys.stdin:
        task = json.loads(line)
        if task["cores"]:
            os.sched_setaffinity(0, task["cores"])
        yield task


class Watch:
    """Measures a piece of work from when it is made.

    Attributes:
        seconds: that the work took; until `stop` 0.
        processor_seconds: that this process, and those it has started, computed for it. Other work on the machine
            changes these little.
    """

    def __init__(self) -> None:
        self.seconds = self.processor_seconds = 0.0
        self._started = time.perf_counter(), _computed()

    @property
    def running(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._started[0]

    def stop(self) -> "Watch":
        """End the measurement; the watch itself."""
        started, computed = self._started
        self.seconds, self.processor_seconds = time.perf_counter() - started, _computed() - computed
        return self


def _computed() -> float:
    """Seconds of a processor that this process has used, and those that it has started."""
    total = sum(os.times()[:4])
    for child in multiprocessing.active_children():
        status = Path(f"/proc/{child.pid}/stat")
        if status.exists():
            # The name, in brackets, may hold spaces.
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def answer(images: float, watch: Watch) -> None:
    """Tell how many images were scored in which time, and the memory that this process had at most."""
    report(
        {
            "images": images,
            "seconds": watch.seconds,
            "processor_seconds": watch.processor_seconds,
            "peak_memory_megabytes": peak_memory(),
        }
    )


def report(values: dict[str, Any]) -> None:
    """Answer with any values, such as an `error`."""
    print(json.dumps(values), flush=True)


def peak_memory() -> float:
    """Megabytes."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    return 0.0 if found is None else round(int(found[1]) * 1024 / 1e6)
