"""How long `metaqap score` takes until the score of one photograph is there, beside the imports that nobody avoids."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoint_reading import read_config
from ..errors import MetaQAPError
from ..inference.onnx_cache import cached_onnx
from .racing import worker_environment

#: What the package cannot do without; importing it says nothing.
IMPORTS = "import torch, transformers, timm"


@dataclass(frozen=True)
class _Program:
    arguments: list[str]
    package: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


def start_up_speed(
    checkpoint: Path, photograph: Path, *, threads: int, turns: int, before: Path | None = None
) -> dict[str, Any]:
    """Seconds from the start of a process to its first line, and to its end.

    Args:
        checkpoint: folder.
        photograph: to score.
        threads: that each process may compute with.
        turns: of all programs, one after the other, after a first turn that does not count.
        before: folder of an older version of this package, to compare with.

    Raises:
        MetaQAPError: if a program fails.
    """
    score = ["-m", "modeling_metaqap", "score", str(photograph.resolve()), "--checkpoint", str(checkpoint.resolve())]
    score += ["--device", "cpu"]
    with tempfile.TemporaryDirectory() as nothing:
        programs = {IMPORTS: _Program(["-c", f"{IMPORTS}; print('done')"])}
        programs["first use"] = _Program(score, environment={"METAQAP_CACHE": nothing})
        if cached_onnx(checkpoint, read_config(checkpoint)) is not None:
            programs["with a file of ONNX Runtime"] = _Program(score)
        if before is not None:
            programs["version before"] = _Program(score, package=before.resolve())
        taken: dict[str, list[_Seconds]] = {name: [] for name in programs}
        for turn in range(turns + 1):
            for name, program in programs.items():
                seconds = _seconds(name, program, threads)
                if turn:
                    taken[name].append(seconds)

    def median(values: Iterable[float]) -> float:
        return round(statistics.median(values), 3)

    least = taken[IMPORTS]
    return {
        "threads": threads,
        "turns": turns,
        "programs": {
            name: {
                "first_line_seconds": median(own.first_line for own in seconds),
                "whole_seconds": median(own.whole for own in seconds),
                "processor_seconds": median(own.processor for own in seconds),
                # Within a turn both meet about the same machine.
                "beyond_imports": median(
                    own.first_line - base.first_line for own, base in zip(seconds, least, strict=True)
                ),
                "processor_seconds_beyond_imports": median(
                    own.processor - base.processor for own, base in zip(seconds, least, strict=True)
                ),
            }
            for name, seconds in taken.items()
        },
    }


class _Seconds(NamedTuple):
    """To the first line that a program prints, to its end, and what processors computed for it until then."""

    first_line: float
    whole: float
    processor: float


def _seconds(name: str, program: _Program, threads: int) -> _Seconds:
    environment = worker_environment(threads=threads, package=program.package) | program.environment
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        # Elsewhere: `-m` would take the package of the working directory, whatever version is asked for.
        tempfile.TemporaryDirectory() as elsewhere,
        subprocess.Popen(
            [sys.executable, *program.arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=elsewhere,
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        first_line = time.perf_counter() - started
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        whole = time.perf_counter() - started
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip()
    if process.returncode:
        raise MetaQAPError(f"{name} ended with status {process.returncode}: {told}")
    return _Seconds(first_line, whole, used.ru_utime + used.ru_stime)


__all__ = ["IMPORTS", "start_up_speed"]
