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
from pathlib import Path

import torch
from rich.console import Console

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.benchmark import SECTIONS, Bench, load_photographs, machine
from modeling_metaqap.evaluation.benchmark_tables import TABLES
from modeling_metaqap.memory import keep_freed_memory

console = Console()

OUTPUT = Path(__file__).parents[1] / "studies" / "results" / "benchmark.json"


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photographs = load_photographs(args.images, side=args.side, count=args.count)
    bench = Bench(
        photographs,
        args.seconds,
        args.checkpoint,
        args.backbone,
        threads=args.threads,
        turns=args.turns,
        size=tuple(args.size),
        before=args.before,
        pyiqa_python=args.pyiqa_python,
        contenders=tuple(args.contenders),
    )
    result = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    for name in args.sections:
        console.print(f"Measuring {name} ...")
        section = {"machine": machine(), **SECTIONS[name](bench)}
        console.print(TABLES[name](section))
        # Written after each section, so that an interrupted run keeps what it has measured.
        if name == "scoring":
            width, height = args.size
            result[name] = result.get(name, {}) | {f"{width} x {height}, {args.threads} threads": section}
        else:
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
    of_scoring = parser.add_argument_group("scoring")
    of_scoring.add_argument("--threads", type=int, default=1, help="of each contender, on as many cores (1)")
    of_scoring.add_argument("--turns", type=int, default=5, help="of all contenders (5)")
    of_scoring.add_argument("--size", type=int, nargs=2, default=[512, 512], help="of the JPEG files (512 512)")
    of_scoring.add_argument("--before", type=Path, help="clone of an older version to compare with")
    of_scoring.add_argument("--pyiqa_python", help="interpreter of an environment with pyiqa to compare with")
    of_scoring.add_argument("--contenders", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    with exit_with_sentence("benchmark"):
        if args.count < 1 or args.side < 32:
            raise MetaQAPError("At least one photograph of at least 32 pixels is needed.")
        run(args)


if __name__ == "__main__":
    main()
