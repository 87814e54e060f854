"""Measure speed and write it to one JSON, section by section.

    OMP_NUM_THREADS=1 python scripts/benchmark.py
    OMP_NUM_THREADS=1 python scripts/benchmark.py --sections pseudo_mos --seconds 5
    OMP_NUM_THREADS=1 python scripts/benchmark.py --sections inference --seconds 30 --output hub_card/cost.json

A section replaces its own part of the JSON and leaves the others as they are. Everything is measured on one thread, so
that the figures are for one core, and on the same photographs: those that ship with scikit-image, or `--images DIR`.
A figure is taken from the fastest of its repetitions, which other work on the machine disturbs least; the engines of
`inference`, and the loops of `training`, take turns, and what compares them is the median over the turns.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distorted.pseudo_mos import METRIC_SETS, METRICS
from modeling_metaqap.data.distortions import DISTORTIONS
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.benchmark import SECTIONS, Bench, load_photographs, machine
from modeling_metaqap.evaluation.tables import TextTable
from modeling_metaqap.memory import keep_freed_memory

console = Console()

OUTPUT = Path(__file__).parents[1] / "studies" / "results" / "benchmark.json"


def show_distortions(result: dict[str, Any]) -> Table:
    rates = result["images_per_second"]
    cells = [[name, DISTORTIONS[name].family, f"{rate:.1f}"] for name, rate in rates.items()]
    cells.append(["median", "", f"{result['median_images_per_second']:.1f}"])
    table = TextTable(["distortion", "family", "images/s"], cells).rich(title="Distorted images per second and core")
    table.caption = f"The slowest, {result['slowest']}, takes {result['slowest_over_median']:.1f} x the median."
    return table


def show_pseudo_mos(result: dict[str, Any]) -> Table:
    sizes = result["sides"]
    cells = [[name, *(f"{row['milliseconds'][name]:.1f}" for row in sizes.values())] for name in METRICS]
    for kind in METRIC_SETS:
        rates = (f"{row[f'{kind}_images_per_second']:.1f}" for row in sizes.values())
        cells.append([f"{kind}: pseudo-MOS per second", *rates])
    headings = ["metric", *(f"{side} px" for side in sizes)]
    return TextTable(headings, cells).rich(title="Milliseconds per image on one core")


def show_inference(result: dict[str, Any]) -> Table:
    side = result["side"]
    cells = [
        [name, f"{row['crops_per_second']:.2f}", f"{row['over_torch']:.2f} x"]
        for name, row in result["engines"].items()
    ]
    title = f"{result['checkpoint']}: crops of {side} x {side} on {result['threads']} thread"
    table = TextTable(["engine", "crops/s", "beside PyTorch"], cells).rich(title=title)
    table.caption = (
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['macs'] / 1e9:.2f} G multiply-adds for one crop, "
        f"{result['weights_megabytes']:.1f} MB of weights, {result['peak_memory_megabytes']:.0f} MB peak memory, "
        f"{result['turns']} turns"
    )
    return table


def show_training(result: dict[str, Any]) -> Table:
    size = f"{result['batch_size']} crops of {result['crop_size']} px"
    cells = [[name, f"{rate:.2f}"] for name, rate in result["images_per_second"].items()]
    title = f"Training {result['backbone']} on {size}, {result['threads']} thread"
    table = TextTable(["loop", "images/s"], cells).rich(title=title)
    table.caption = f"{result['over_timm']:.1%} of the bare loop, median of {result['turns']} turns"
    return table


TABLES: dict[str, Callable[[dict[str, Any]], Table]] = {
    "distortions": show_distortions,
    "inference": show_inference,
    "pseudo_mos": show_pseudo_mos,
    "training": show_training,
}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photographs = load_photographs(args.images, side=args.side, count=args.count)
    bench = Bench(photographs, args.seconds, args.checkpoint, args.backbone)
    result = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    for name in args.sections:
        console.print(f"Measuring {name} ...")
        section = {"machine": machine(), **SECTIONS[name](bench)}
        console.print(TABLES[name](section))
        # Written after each section, so that an interrupted run keeps what it has measured.
        result[name] = section
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--images", type=Path, help="directory of photographs (default: scikit-image's)")
    parser.add_argument("--count", type=int, default=3, help="photographs to measure with (3)")
    parser.add_argument("--side", type=int, default=512, help="side of the distorted images in pixels (512)")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder that inference measures")
    parser.add_argument("--backbone", default=Bench.backbone, help="timm CNN that training trains (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each repeated measurement (0.3)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    with exit_with_sentence("benchmark"):
        if args.count < 1 or args.side < 32:
            raise MetaQAPError("At least one photograph of at least 32 pixels is needed.")
        run(args)


if __name__ == "__main__":
    main()
