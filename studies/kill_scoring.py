"""Kill `metaqap score` again and again, continue it with --resume, and compare with a run that nobody killed.

    python studies/kill_scoring.py --images 2000 --kills 34
    python studies/kill_scoring.py --images 20000 --kills 10 --formats jsonl --memory

The first kills 102 times, over the three formats. The images are links to a few small ones, one of them broken, and
the checkpoint is a tiny one with random weights: the test is of the files, not of the scores. SIGKILL comes at random
moments, some of them at the end, while the rows are sorted and the Parquet file is made. Nothing may be lost or
doubled. `--memory` also measures how the largest memory of a run grows from 1,000 images on. Results are merged into
studies/results/kill_scoring.json.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from modeling_metaqap import MetaQAPConfig, MetaQAPImageProcessor, MetaQAPModel
from modeling_metaqap.cli.app import main as metaqap
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint

OUTPUT = Path(__file__).with_name("results") / "kill_scoring.json"
FORMATS = ("csv", "jsonl", "parquet")

# Forked children start at once: everything is imported here, and nothing was computed yet.
_processes = multiprocessing.get_context("fork")


def write_checkpoint(folder: Path, *, crop_size: int = 32) -> None:
    """A model of one tiny learner with random weights, for crops of `crop_size` pixels."""
    torch.manual_seed(0)
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"], interval_radius=0.2)), folder)
    MetaQAPImageProcessor(size={"shortest_edge": crop_size}, crop_size=crop_size).save_pretrained(folder)


def write_images(folder: Path, count: int) -> None:
    """Links to fifty different images of 32 x 32 pixels, and to one that is broken."""
    sources = folder.with_name("sources")
    sources.mkdir()
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(50):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(sources / f"{index}.png")
    (sources / "50.png").write_bytes(b"broken")
    for index in range(count):
        (folder / f"{index:06}.png").symlink_to(sources / f"{index % 51}.png")


def _score(folder: Path, checkpoint: Path, output: Path, log: Path, peak: Any = None) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # Of one engine: the first run would make the file of ONNX Runtime, whose memory hides what photographs take.
    options = ["--checkpoint", str(checkpoint), "-o", str(output), "--resume", "--sort", "worst", "--engine", "torch"]
    sys.argv = ["metaqap", "score", str(folder), *options]
    try:
        metaqap()
    finally:
        if peak is not None:
            peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start(folder: Path, checkpoint: Path, output: Path, peak: Any = None) -> Any:
    """Start the command in a process of its own."""
    process = _processes.Process(target=_score, args=(folder, checkpoint, output, output.with_suffix(".log"), peak))
    process.start()
    return process


def rows_path(output: Path) -> Path:
    """The file that grows while the command runs."""
    return output.with_name(f"{output.name}.part") if output.suffix == ".parquet" else output


def count_rows(output: Path) -> int:
    path = rows_path(output)
    rows = path.read_bytes().count(b"\n") if path.exists() else 0
    return max(0, rows - (output.suffix == ".csv"))


def read_rows(output: Path) -> list[dict[str, Any]]:
    """All rows of a finished file, as whoever uses it reads them."""
    if output.suffix == ".csv":
        with output.open(newline="", encoding="utf-8") as file:
            rows = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]
    elif output.suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(output).to_pylist()
    return [row | {"quality": None if row["quality"] is None else float(row["quality"])} for row in rows]


def kill_and_resume(
    folder: Path, checkpoint: Path, output: Path, *, images: int, kills: int, rng: random.Random, at_the_end: int
) -> dict[str, Any]:
    """Score a folder, killed `kills` times, the last `at_the_end` times when all rows are there.

    Returns:
        How many kills hit a running process, and how many rows were there after each.
    """
    after, hits = [], 0
    for number in range(kills):
        process = start(folder, checkpoint, output)
        begin = count_rows(output)
        if number < kills - at_the_end:
            wanted = min(images - 1, begin + rng.randint(0, 2 * images // (kills + 1)))
        else:
            wanted = images
        while process.is_alive() and count_rows(output) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        hits += process.exitcode == -signal.SIGKILL
        after.append(count_rows(output))
    process = start(folder, checkpoint, output)
    process.join()
    return {"killed": hits, "rows_after_each_kill": after, "last_exit_status": process.exitcode}


def compare(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows that are missing, doubled or different, and the largest difference of scores."""
    paths = [row["path"] for row in found]
    by_path = {row["path"]: row for row in expected}
    differences = [
        abs(row["quality"] - by_path[row["path"]]["quality"])
        for row in found
        if row["path"] in by_path and None not in (row["quality"], by_path[row["path"]]["quality"])
    ]
    qualities = [row["quality"] for row in found if row["quality"] is not None]
    return {
        "rows": len(found),
        "lost": len(set(by_path) - set(paths)),
        "doubled": len(paths) - len(set(paths)),
        "unknown": len(set(paths) - set(by_path)),
        "with_another_error": sum(row["error"] != by_path.get(row["path"], row)["error"] for row in found),
        "largest_difference_of_scores": max(differences, default=0.0),
        "in_order": qualities == sorted(qualities),
    }


def run(directory: Path, suffix: str, *, images: int, kills: int, seed: int) -> dict[str, Any]:
    """One format: an undisturbed run, a killed one, and how they compare."""
    checkpoint, folder = directory / "checkpoint", directory / "images"
    whole, killed = directory / f"whole.{suffix}", directory / f"killed.{suffix}"
    begin = time.monotonic()
    process = start(folder, checkpoint, whole)
    process.join()
    seconds = time.monotonic() - begin
    if process.exitcode != 1:  # one of the images is broken
        raise MetaQAPError(
            f"metaqap score ended with status {process.exitcode}: {whole.with_suffix('.log').read_text()}"
        )
    rng = random.Random(seed)
    outcome = kill_and_resume(
        folder, checkpoint, killed, images=images, kills=kills, rng=rng, at_the_end=max(1, kills // 8)
    )
    compared = compare(read_rows(whole), read_rows(killed))
    left = sorted(path.name for path in directory.glob(f"*killed.{suffix}*") if path.suffix != ".log")
    return {
        "images": images,
        "kills": kills,
        "seed": seed,
        "seconds_undisturbed": round(seconds, 1),
        "files": left,
    } | (outcome | compared)


def measure_memory(directory: Path, counts: list[int]) -> dict[str, float]:
    """Largest resident memory in MB of an undisturbed run, by the number of images."""
    peaks = {}
    for count in counts:
        place = directory / f"memory-{count}"
        place.mkdir()
        write_images(place / "images", count)
        peak = _processes.Value("d", 0.0)
        process = start(place / "images", directory / "checkpoint", place / "scores.jsonl", peak)
        process.join()
        peaks[str(count)] = round(peak.value, 1)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="photographs of a run")
    parser.add_argument("--kills", type=int, default=34, help="kills for each format")
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS), help="none: only --memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="also measure memory at 1,000 images and at --images")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_checkpoint(directory / "checkpoint")
        write_images(directory / "images", arguments.images)
        if arguments.memory:
            results["peak_memory_mb"] = measure_memory(directory, [1000, arguments.images])
            print(results["peak_memory_mb"], flush=True)
            write_atomically(arguments.output, (json.dumps(results, indent=2) + "\n").encode())
        for suffix in arguments.formats:
            outcome = run(directory, suffix, images=arguments.images, kills=arguments.kills, seed=arguments.seed)
            results[f"{suffix}, {arguments.images} images"] = outcome
            write_atomically(arguments.output, (json.dumps(results, indent=2) + "\n").encode())
            print(suffix, {key: value for key, value in outcome.items() if key != "rows_after_each_kill"})


if __name__ == "__main__":
    with exit_with_sentence("kill_scoring"):
        main()
