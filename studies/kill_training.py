"""Kill a small training run again and again at random moments, resume it, and compare its weights with those of one
that nobody disturbed.

    python studies/kill_training.py --kills 10

Each process is ended by SIGKILL, which it cannot notice. The run is on 20 made-up images with a tiny backbone, and
saves a state at every second step, so that many kills come while files are being written. Figures are added to those
in studies/results/kills.json, so that 40 kills can be had in several goes. POSIX only: processes are forked.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.training.learner import model_config
from modeling_metaqap.training.loop import train
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.settings import RunSettings

OUTPUT = Path(__file__).with_name("results") / "kills.json"

console = Console(width=None if sys.stdout.isatty() else 140)

RECIPE = Recipe(backbone="test_resnet", dataset="folder", epochs=4, batch_size=4, crop_size=32, refit_head=True)


def make_images(folder: Path) -> None:
    """30 rated images, more noise for worse ones, of the two sources `a*` and `b*`; 20 to train on."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(30):
        quality, name = index / 29, f"{'ab'[index % 2]}{index}.png"
        picture = 128 + (1 - quality) * 60 * rng.normal(size=(40, 40, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name)
        rows.append([name, quality, ["train", "train", "validation"][index % 3]])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "mos", "split"], *rows])


def start(settings: RunSettings, log: Path) -> int:
    """Start or resume the run in a process of its own, and give its number."""
    if process := os.fork():
        return process
    status = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        train(RECIPE, settings)
        status = 0
    finally:
        os._exit(status)


def settings_for(work: Path, output: Path) -> RunSettings:
    return RunSettings(
        output_dir=str(output),
        init=str(work / "init"),
        data_dir=str(work / "images"),
        cache_dir=str(work / "cache"),
        cpu=True,
        num_workers=0,
        logging_steps=1,
        checkpointing_steps=2,
        resume_from_checkpoint="latest",
    )


def finish(process: int, log: Path) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        raise MetaQAPError(f"A run ended with status {status}: {log.read_text().strip().splitlines()[-1]}")


def is_over(process: int, seconds: float) -> bool:
    """Whether a process ends by itself within so many seconds; if it fails, that is an error."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            if os.waitstatus_to_exitcode(status):
                raise MetaQAPError(f"A resumed run ended with status {os.waitstatus_to_exitcode(status)}.")
            return True
        time.sleep(0.01)
    return False


def differing(first: Path, second: Path) -> list[str]:
    """Names of the weights of two runs that are not equal bit by bit."""
    names = []
    for model in ("best", "last", "refitted"):
        one, other = (load_file(folder / model / "model.safetensors") for folder in (first, second))
        names += [f"{model}: {name}" for name in one.keys() | other.keys() if not torch.equal(one[name], other[name])]
    return names


def measure(work: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume until there were so many kills; runs that come to their end meanwhile are compared."""
    rng = random.Random(seed)
    images, log = work / "images", work / "log"
    images.mkdir()
    make_images(images)
    torch.manual_seed(0)
    MetaQAPModel(model_config(RECIPE)).save_pretrained(work / "init")
    began = time.monotonic()
    finish(start(settings_for(work, work / "undisturbed"), log), log)
    length = time.monotonic() - began
    steps, while_saving, runs, differences = [], 0, 0, []
    while len(steps) < kills or runs == 0:
        run = work / f"killed_{runs}"
        while True:
            process = start(settings_for(work, run), log)
            # The last run is killed until it has to come to its end.
            if is_over(process, rng.uniform(0, length) if len(steps) < kills else float("inf")):
                break
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            rows = RunFolder(run).rows()
            steps.append(max((row.get("step", 0) for row in rows), default=0))
            while_saving += any(run.glob("**/*.tmp"))
            print(f"kill {len(steps)} of {kills} at step {steps[-1]}", file=sys.stderr, flush=True)
        runs += 1
        differences += differing(work / "undisturbed", run)
        shutil.rmtree(run)
    return {
        "kills": len(steps),
        "goes": [{"seed": seed, "kills": len(steps), "seconds_of_an_undisturbed_run": round(length, 1)}],
        "steps_of_a_run": RECIPE.epochs * 20 // RECIPE.batch_size,
        "runs_that_came_to_their_end": runs,
        "last_logged_step_at_each_kill": steps,
        "kills_that_left_half_written_files": while_saving,
        "weights_that_differ": differences,
    }


def added(before: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of several goes, as those of one."""
    return figures | {name: value + figures[name] for name, value in before.items() if name != "steps_of_a_run"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="in this go (%(default)s)")
    parser.add_argument("--seed", type=int, help="default the number of kills before")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    with exit_with_sentence("kill_training"):
        before = json.loads(args.output.read_text()) if args.output.exists() else {}
        with tempfile.TemporaryDirectory() as work:
            seed = before.get("kills", 0) if args.seed is None else args.seed
            figures = added(before, measure(Path(work), kills=args.kills, seed=seed))
        write_atomically(args.output, (json.dumps(figures, indent=2) + "\n").encode())
        console.print_json(json.dumps(figures))
        if figures["weights_that_differ"]:
            raise MetaQAPError("A run that was killed and resumed has other weights than an undisturbed one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
