"""Score the corpus of odd files (tests/corpus.py) in one run, and write the table of inputs and messages.

    python studies/read_corpus.py

Writes studies/results/corpus.json, and the table in docs/concepts/images.md that is made of it. What is measured: how
each file ends in one run of `metaqap score` with isolation, the seconds that the slowest takes to be decoded alone,
and the largest memory of a process, the decoding ones included. The checkpoint is a tiny one.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "studies")]

from corpus import Case, write_corpus  # noqa: E402
from kill_scoring import write_checkpoint  # noqa: E402

from modeling_metaqap.data.atomic import write_atomically  # noqa: E402
from modeling_metaqap.data.names import from_portable_name  # noqa: E402
from modeling_metaqap.decoding_metaqap import UnreadableImage  # noqa: E402
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence  # noqa: E402
from modeling_metaqap.inference.decoding import Seen  # noqa: E402
from modeling_metaqap.inference.isolation import IsolatedDecoder  # noqa: E402

OUTPUT = ROOT / "studies/results/corpus.json"
PAGE = ROOT / "docs/concepts/images.md"
BEGIN, END = "<!-- corpus: begin -->\n", "<!-- corpus: end -->\n"


def score(written: list[tuple[Case, Path]], checkpoint: Path, output: Path, *options: str) -> dict[str, Any]:
    """Score all files by one command.

    Returns:
        `status`, `stderr`, and `outcomes`, which has for each path its message, or None for a score.
    """
    names = b"\0".join(os.fsencode(path) for _, path in written)
    command = [sys.executable, "-m", "modeling_metaqap", "score", "-", "-0", "--isolate", "-o", str(output), *options]
    # Of one engine: to make the file of ONNX Runtime takes 200 MB, once, and would hide what the files take.
    command += ["--engine", "torch", "--checkpoint", str(checkpoint)]
    run = subprocess.run(command, input=names, capture_output=True, cwd=ROOT)
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    outcomes = {from_portable_name(row["path"]): row["error"] for row in rows}
    return {"status": run.returncode, "stderr": run.stderr.decode(errors="replace"), "outcomes": outcomes}


def slowest_decoding(written: list[tuple[Case, Path]]) -> tuple[float, str]:
    """Seconds that the slowest file takes in a process of its own, and its name."""
    decoder, slowest = IsolatedDecoder(), (0.0, "")
    for case, path in written:
        begin = time.monotonic()
        try:
            decoder.read(path, Seen())
        except UnreadableImage:
            pass
        slowest = max(slowest, (round(time.monotonic() - begin, 2), repr(case.name)[2:-1]))
    return slowest


def measure(*, changed: int) -> dict[str, Any]:
    """The outcomes of all files by group, and what they took."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_checkpoint(directory / "checkpoint", crop_size=512)
        (directory / "files").mkdir()
        written = write_corpus(directory / "files", changed=changed)
        run = score(written, directory / "checkpoint", directory / "scores.jsonl")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        seconds, file = slowest_decoding(written)
    if run["status"] != 1 or "Traceback" in run["stderr"] or len(run["outcomes"]) != len(written):
        raise MetaQAPError(f"The run ended with status {run['status']}: {run['stderr']}")
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for case, path in written:
        groups[case.group][run["outcomes"][str(path)] or "a score"] += 1
    return {
        "files": len(written),
        "changed_of_each_format": changed,
        "slowest_decoding_seconds": seconds,
        "slowest_file": file,
        "largest_memory_of_a_process_mb": round(peak),
        "groups": {group: dict(outcomes.most_common()) for group, outcomes in sorted(groups.items())},
    }


def table(results: dict[str, Any]) -> str:
    """The table of inputs and messages, and what it took, as Markdown."""
    rows = [
        f"| {group} | {sum(outcomes.values())} | "
        + "<br>".join(f"{outcome} ({count})" if len(outcomes) > 1 else outcome for outcome, count in outcomes.items())
        + " |"
        for group, outcomes in results["groups"].items()
    ]
    summary = (
        f"{results['files']} files in one run. The slowest took {results['slowest_decoding_seconds']} s to be read, "
        f"and no process had more than {results['largest_memory_of_a_process_mb']:,} MB, PyTorch included.\n"
    )
    return "\n".join([summary, "| input | files | outcome |", "| --- | ---: | --- |", *rows]) + "\n"


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def main() -> None:
    results = measure(changed=8)
    write_atomically(OUTPUT, (json.dumps(results, indent=2) + "\n").encode())
    write_atomically(PAGE, with_table(PAGE.read_text(), results).encode())
    print({key: value for key, value in results.items() if key != "groups"})


if __name__ == "__main__":
    with exit_with_sentence("read_corpus"):
        main()
