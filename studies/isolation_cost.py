"""What decoding in processes of their own costs `metaqap score`, in seconds of computing, in turns.

    python studies/isolation_cost.py --photos path/to/photographs --count 64

Seconds of computing (user and system, of the program and its decoding processes) hardly depend on what else the
machine does. The command as it is used is run, with its start. Writes studies/results/isolation_cost.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.image_files import find_images
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence

OUTPUT = Path(__file__).with_name("results") / "isolation_cost.json"
OPTIONS = ("--no-isolate", "--isolate")


def cpu_seconds(images: list[str], option: str, output: Path) -> float:
    """Seconds of computing of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "modeling_metaqap", "score", "-", "-0", option, "-o", str(output)]
    run = subprocess.run(command, input="\0".join(images).encode(), capture_output=True)
    if run.returncode:
        raise MetaQAPError(run.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    images = find_images([str(arguments.photos)])
    images = images[:: max(1, len(images) // arguments.count)][: arguments.count]
    seconds: dict[str, list[float]] = {option: [] for option in OPTIONS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.turns):
            for option in OPTIONS:
                seconds[option].append(round(cpu_seconds(images, option, Path(folder) / "scores.csv"), 2))
                print(option, seconds[option][-1], flush=True)
    plain, isolated = (statistics.median(seconds[option]) for option in OPTIONS)
    results = {
        "photographs": len(images),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "cpu_seconds": seconds,
        "cost": round(isolated / plain - 1, 4),
    }
    write_atomically(OUTPUT, (json.dumps(results, indent=2) + "\n").encode())
    print(results)


if __name__ == "__main__":
    with exit_with_sentence("isolation_cost"):
        main()
