"""What the programs of a race share: they get tasks as lines of JSON, and answer each with one.

They import this file by its place beside them, and it imports nothing of MetaQAP, since one of them runs in an
environment of its own.
"""

import json
import os
import re
import sys
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


def answer(images: float, seconds: float) -> None:
    """Tell how many images were scored in which time, and the memory that this process had at most."""
    report({"images": images, "seconds": seconds, "peak_memory_megabytes": peak_memory()})


def report(values: dict[str, Any]) -> None:
    """Answer with any values, such as an `error`."""
    print(json.dumps(values), flush=True)


def peak_memory() -> float:
    """Megabytes."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    return 0.0 if found is None else round(int(found[1]) * 1024 / 1e6)
