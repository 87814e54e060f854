"""Measure speed and write it to one JSON, section by section.

    OMP_NUM_THREADS=1 python scripts/benchmark.py
    OMP_NUM_THREADS=1 python scripts/benchmark.py --sections pseudo_mos --seconds 5

A section replaces its own part of the JSON and leaves the others as they are. Everything is measured on one thread, so
that the figures are for one core, and on the same photographs: those that ship with scikit-image, or `--images DIR`.
A figure is taken from the fastest of its repetitions, which other work on the machine disturbs least.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from skimage import data

from modeling_metaqap.distortions import DISTORTIONS, LEVELS, distort
from modeling_metaqap.distortions.build import BuildError, find_photographs
from modeling_metaqap.image_processing_metaqap import to_rgb
from modeling_metaqap.pseudo_mos import METRIC_SETS, METRICS, pseudo_mos

console = Console()

OUTPUT = Path(__file__).parents[1] / "hub_card" / "benchmark.json"

#: Sides of the images that the pseudo opinion score is measured at.
METRIC_SIDES = (256, 384, 512)


@dataclass(frozen=True)
class Bench:
    """What a section measures with.

    Attributes:
        photographs: Square uint8 RGB images of `side` pixels.
        seconds: Time to spend on one figure, at least one repetition.
    """

    photographs: list[NDArray[np.uint8]]
    seconds: float

    def fastest(self, work: Callable[[], Any]) -> float:
        """Seconds that one run of `work` takes at best, after a first run that does not count."""
        work()
        best, end = float("inf"), time.perf_counter() + self.seconds
        while True:
            started = time.perf_counter()
            work()
            now = time.perf_counter()
            best = min(best, now - started)
            if now >= end:
                return best


def distortions(bench: Bench) -> dict[str, Any]:
    """Distorted images a second, for each distortion, over the photographs and levels."""
    rate, milliseconds = {}, {}
    for name, entry in DISTORTIONS.items():
        taken = statistics.mean(
            bench.fastest(functools.partial(entry, image, level, 0)) for image in bench.photographs for level in LEVELS
        )
        milliseconds[name] = round(taken * 1e3, 2)
        rate[name] = round(1 / taken, 2)
    median, slowest = statistics.median(milliseconds.values()), max(milliseconds, key=milliseconds.__getitem__)
    return {
        "side": bench.photographs[0].shape[0],
        "images_per_second": rate,
        "median_images_per_second": round(1e3 / median, 2),
        "slowest": slowest,
        "slowest_over_median": round(milliseconds[slowest] / median, 2),
    }


def pseudo_mos_speed(bench: Bench) -> dict[str, Any]:
    """Pseudo opinion scores a second, and what each metric takes, at several sizes."""
    sizes = {}
    for side in METRIC_SIDES:
        reference = torch.stack([_tensor(_resized(image, side)) for image in bench.photographs])
        distorted = torch.stack(
            [_tensor(distort(_resized(image, side), "jpeg_compression", 3, 0)) for image in bench.photographs]
        )
        count = len(reference)
        milliseconds = {
            name: bench.fastest(functools.partial(pseudo_mos, distorted, reference, metrics=[name])) / count * 1e3
            for name in METRICS
        }
        sizes[str(side)] = {
            **{
                f"{kind}_images_per_second": round(1e3 / sum(milliseconds[name] for name in names), 2)
                for kind, names in METRIC_SETS.items()
            },
            "milliseconds": {name: round(value, 2) for name, value in milliseconds.items()},
        }
    return {"sides": sizes}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "distortions": distortions,
    "pseudo_mos": pseudo_mos_speed,
}


def show_distortions(result: dict[str, Any]) -> Table:
    side = result["side"]
    table = Table("distortion", "family", title=f"Distorted {side} x {side} images per second and core")
    table.add_column("images/s", justify="right")
    for name, rate in result["images_per_second"].items():
        table.add_row(name, DISTORTIONS[name].family, f"{rate:.1f}")
    table.add_row("median", "", f"{result['median_images_per_second']:.1f}", style="bold")
    table.caption = f"The slowest, {result['slowest']}, takes {result['slowest_over_median']:.1f} x the median."
    return table


def show_pseudo_mos(result: dict[str, Any]) -> Table:
    table = Table("metric", title="Milliseconds per image on one core")
    for side in result["sides"]:
        table.add_column(f"{side} px", justify="right")
    for name in METRICS:
        table.add_row(name, *(f"{row['milliseconds'][name]:.1f}" for row in result["sides"].values()))
    for kind in METRIC_SETS:
        rates = (f"{row[f'{kind}_images_per_second']:.1f}" for row in result["sides"].values())
        table.add_row(f"{kind}: pseudo-MOS per second", *rates, style="bold")
    return table


TABLES: dict[str, Callable[[dict[str, Any]], Table]] = {
    "distortions": show_distortions,
    "pseudo_mos": show_pseudo_mos,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


def load_photographs(directory: Path | None, *, side: int, count: int) -> list[NDArray[np.uint8]]:
    """The first images of a directory, or scikit-image's, cut and shrunk to a square."""
    if directory is None:
        pictures = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea)]
    else:
        pictures = [to_rgb(Image.open(directory / name)) for name in find_photographs(directory)[:count]]
    return [np.asarray(ImageOps.fit(picture, (side, side))) for picture in pictures[:count]]


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side)))


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photographs = load_photographs(args.images, side=args.side, count=args.count)
    bench = Bench(photographs, args.seconds)
    result = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    for name in args.sections:
        console.print(f"Measuring {name} ...")
        section = {"machine": machine(), **SECTIONS[name](bench)}
        console.print(TABLES[name](section))
        # Written after each section, so that an interrupted run keeps what it has measured.
        result[name] = section
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--images", type=Path, help="directory of photographs (default: scikit-image's)")
    parser.add_argument("--count", type=int, default=3, help="photographs to measure with (3)")
    parser.add_argument("--side", type=int, default=512, help="side of the distorted images in pixels (512)")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each repeated measurement (0.3)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (hub_card/benchmark.json)")
    args = parser.parse_args(arguments)
    try:
        if args.count < 1 or args.side < 32:
            raise BuildError("At least one photograph of at least 32 pixels is needed.")
        run(args)
    except (BuildError, OSError) as error:
        Console(stderr=True).print(f"Error: {error}", style="red", highlight=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
