"""Measure speed and write it to one JSON, section by section.

    OMP_NUM_THREADS=1 metaqap benchmark
    OMP_NUM_THREADS=1 metaqap benchmark --sections pseudo_mos --seconds 5
    OMP_NUM_THREADS=1 metaqap benchmark --sections inference --seconds 30 --output cost.json
    OMP_NUM_THREADS=1 metaqap benchmark --sections distributed --threads 2
    OMP_NUM_THREADS=1 metaqap benchmark --sections start_up training --threads 2 --seconds 5 --before old/clone

A section replaces its own part of the JSON and leaves the others as they are. Everything is measured on one thread, so
that the figures are for one core, and on the same photographs: those that ship with scikit-image, or `--images DIR`.
A figure is taken from the fastest of its repetitions, which other work on the machine disturbs least; the engines of
`inference`, and the loops of `training`, take turns, and what compares them is the median over the turns. So do one
process and as many workers of Ray in `distributed`, which needs the extra `ray`, and the programs of `start_up`.
"""

import argparse
import json
from pathlib import Path

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_places import checkpoint_folder
from ..errors import MetaQAPError
from .program import AddOption, Program


def _options(add: AddOption) -> None:
    add("--sections", nargs="+", help="what to measure, such as scoring or training; default everything")
    add("--images", type=Path, help="directory of photographs (default: scikit-image's)")
    add("--count", type=int, default=3, help="photographs to measure with (3)")
    add("--side", type=int, default=512, help="side of the distorted images in pixels (512)")
    add("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder that inference measures")
    add("--backbone", default="mobilenetv2_100", help="timm CNN that training trains (%(default)s)")
    add("--seconds", type=float, default=0.3, help="time for each repeated measurement (0.3)")
    add("--threads", type=int, default=1, help="of each contender that is a process of its own, on as many cores (1)")
    add("--turns", type=int, default=5, help="of all contenders that are processes of their own (5)")
    add("--size", type=int, nargs=2, default=[512, 512], help="of the JPEG files that are read (512 512)")
    add("--scored", type=int, default=400, help="distributed: photographs to measure a rate on (%(default)s)")
    add("--before", type=Path, help="scoring, training, start_up: clone of an older version to compare with")
    add("--pyiqa_python", help="scoring: interpreter of an environment with pyiqa to compare with")
    add("--contenders", nargs="+", default=[], help="scoring: only these (default: all)")
    add("--output", type=Path, default=Path("benchmark.json"), help="JSON to write (%(default)s)")


def _run(args: argparse.Namespace) -> None:
    if args.count < 1 or args.side < 32:
        raise MetaQAPError("At least one photograph of at least 32 pixels is needed.")
    import torch
    from rich.console import Console

    from ..data.atomic import write_atomically
    from ..evaluation.benchmark import SECTIONS, Bench, load_photographs, machine
    from ..evaluation.benchmark_tables import TABLES

    sections = args.sections or list(SECTIONS)
    if unknown := [name for name in sections if name not in SECTIONS]:
        raise MetaQAPError(f"There is no section {unknown[0]!r}; choose from {', '.join(SECTIONS)}.")
    console = Console()
    torch.set_num_threads(1)
    photographs = load_photographs(args.images, side=args.side, count=args.count)
    bench = Bench(
        photographs,
        args.seconds,
        checkpoint_folder(args.checkpoint) or args.checkpoint,
        args.backbone,
        threads=args.threads,
        turns=args.turns,
        size=tuple(args.size),
        before=args.before,
        pyiqa_python=args.pyiqa_python,
        contenders=tuple(args.contenders),
        scored=args.scored,
    )
    result = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    for name in sections:
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


PROGRAM = Program(command="benchmark", script="benchmark", description=__doc__, options=_options, run=_run)
