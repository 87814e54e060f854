"""Speed of scoring and of training, each contender in a process of its own, in turns.

`race` starts the processes and asks them turn by turn. `scorer_worker.py`, `pyiqa_worker.py` and `training_worker.py`
are the programs that they run; they are started by their paths, so that another version of this package, or pyiqa in
an environment of its own, can take part.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import MetaQAPError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    """A process that scores photographs.

    Attributes:
        name: for the table.
        worker: file name of its program, in this folder.
        options: for the program.
        python: that runs it; default this one.
        package: folder that `modeling_metaqap` is imported from; default that of this process.
        macs: multiply-adds for one photograph, if they are known.
    """

    name: str
    worker: str
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    package: str | None = None
    macs: int | None = None


def worker_environment(*, threads: int, package: str | Path | None = None) -> dict[str, str]:
    """Environment of a program that is measured: no settings of glibc's memory, and nothing is downloaded.

    Args:
        threads: that it computes with.
        package: folder that `modeling_metaqap` is imported from; default that of this process.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    settings = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(package or _HERE.parents[2]), "HF_HUB_OFFLINE": "1"}
    return kept | settings


class _Process:
    def __init__(self, contender: Contender, threads: int):
        self.contender = contender
        self._process = subprocess.Popen(
            [contender.python, str(_HERE / contender.worker), json.dumps(contender.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=worker_environment(threads=threads, package=contender.package),
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended, perhaps with a line that says why
            print(json.dumps(question), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return {"error": "the process has ended"}

    def end(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # of a question that it did not live to read
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def race(
    contenders: Sequence[Contender], files: Sequence[str], *, threads: int, seconds: float, turns: int
) -> dict[str, Any]:
    """Photographs a second of all contenders, one after the other in every turn.

    Args:
        contenders: what is compared.
        files: photographs, which are taken again and again.
        threads: that each may compute with, on as many cores.
        seconds: for each contender in each turn, and until the photographs that were begun are finished.
        turns: after a first one that does not count.

    Returns:
        For each contender's name `rates` (images a second in each turn), their median `images_per_second`, the same
        for a second that a processor computed (`processor_rates`, `images_per_processor_second`), which other work on
        the machine changes little, `peak_memory_megabytes`, and `share_of_peak` where the multiply-adds are known: of
        what a product of large matrices reaches in the same turns. A contender that cannot run has an `error` instead.
    """
    # As many cores as threads, so that nobody decodes on another one; only once all are loaded, as they do together.
    cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
    processes = [_Process(contender, threads) for contender in contenders]
    rates: dict[str, list[float]] = {process.contender.name: [] for process in processes}
    processor_rates: dict[str, list[float]] = {name: [] for name in rates}
    results: dict[str, dict[str, Any]] = {name: {} for name in rates}
    try:
        for turn in range(turns + 1):
            for process in processes:
                name = process.contender.name
                if "error" in results[name]:
                    continue
                answer = process.ask({"files": list(files), "seconds": seconds if turn else 0, "cores": cores})
                if "error" in answer:
                    results[name] = {"error": answer["error"]}
                elif turn:
                    rates[name].append(answer["images"] / answer["seconds"])
                    processor_rates[name].append(answer["images"] / answer["processor_seconds"])
                    results[name]["peak_memory_megabytes"] = answer["peak_memory_megabytes"]
    finally:
        for process in processes:
            process.end()
    peak = statistics.median(rates["matrix product"]) if rates.get("matrix product") else None
    for process in processes:
        name, macs = process.contender.name, process.contender.macs
        if "error" in results[name]:
            continue
        median = statistics.median(rates[name])
        results[name] |= {"rates": [round(rate, 4) for rate in rates[name]], "images_per_second": round(median, 4)}
        results[name] |= {
            "processor_rates": [round(rate, 4) for rate in processor_rates[name]],
            "images_per_processor_second": round(statistics.median(processor_rates[name]), 4),
        }
        if peak is not None and macs is not None:
            results[name]["share_of_peak"] = round(median * macs / (peak * 1e9), 3)
    if peak is not None:
        # Its "images" are thousands of millions of multiply-adds.
        results["matrix product"]["gigamacs_per_second"] = round(peak, 2)
    return results


def ratio(results: dict[str, Any], one: str, other: str, *, of: str = "rates") -> float | None:
    """How many times as fast a contender is as another: the median over the turns, in each of which they met.

    Args:
        results: of `race`.
        one, other: names of contenders.
        of: `"rates"` or `"processor_rates"`.
    """
    if any(of not in results.get(name, {}) for name in (one, other)):
        return None
    pairs = zip(results[one][of], results[other][of], strict=True)
    return round(statistics.median(first / second for first, second in pairs), 3)


def contenders(
    checkpoint: Path,
    *,
    macs: dict[int, int],
    before: Path | None = None,
    pyiqa_python: str | None = None,
    chosen: Sequence[str] = (),
) -> list[Contender]:
    """All that can take part here.

    Args:
        checkpoint: folder.
        macs: multiply-adds of one photograph, by the number of learners.
        before: folder of an older version of this package.
        pyiqa_python: interpreter of an environment with pyiqa.
        chosen: names of those that are wanted; default all.
    """
    most = max(macs)
    own = {"checkpoint": str(checkpoint), "keep_memory": True}

    def scorer(
        name: str, learners: int = most, bare: bool = False, one_at_a_time: bool = False, **options: Any
    ) -> Contender:
        if learners != most:
            options["learners"] = learners
        settings = {**own, "bare": bare, "one_at_a_time": one_at_a_time, "scorer": {"device": "cpu", **options}}
        return Contender(name, "scorer_worker.py", settings, macs=macs[learners])

    everybody = [
        Contender("matrix product", "scorer_worker.py", {"matrices": True}),
        scorer("default, core install", engine="torch"),
        scorer("default, with ONNX Runtime", engine="auto"),
        scorer("default, core install, one at a time", engine="torch", one_at_a_time=True),
        scorer("default, with ONNX Runtime, one at a time", engine="auto", one_at_a_time=True),
        scorer("fast", fast=True),
        *(scorer(f"fast, {count} of {most} learners", learners=count, fast=True) for count in sorted(macs)[-2::-1]),
        scorer("bare forward, PyTorch folded", bare=True, engine="torch"),
        scorer("bare forward, ONNX Runtime", bare=True, engine="auto"),
    ]
    if before is not None:
        options = {"checkpoint": str(checkpoint), "keep_memory": False, "bare": False, "scorer": {"device": "cpu"}}
        everybody.append(
            Contender("version before", "scorer_worker.py", options, package=str(before.resolve()), macs=macs[most])
        )
    if pyiqa_python is not None:
        everybody += [
            Contender(f"pyiqa {name}", "pyiqa_worker.py", {"metric": name}, python=pyiqa_python)
            for name in ("topiq_nr", "hyperiqa", "musiq", "dbcnn", "arniqa", "brisque", "niqe")
        ]
    if unknown := set(chosen) - {contender.name for contender in everybody}:
        raise MetaQAPError(f"There is no contender {sorted(unknown)[0]!r} here.")
    return [contender for contender in everybody if not chosen or contender.name in (*chosen, "matrix product")]


__all__ = ["Contender", "contenders", "race", "ratio", "worker_environment"]
