"""Make a quality-aware data set: distorted photographs with distortion, level and pseudo opinion score.

    metaqap distort-set --pristine-dir path/to/photographs --output-dir data/distorted --per-image 25 --num-workers 4

Writes Parquet with `image`, `distortion`, `level`, `pseudo_mos`, `reference_id` and `metrics`, which
`datasets.load_dataset("parquet", data_files="data/distorted/*.parquet")` reads. Stop it whenever you like, even with
kill -9: the same command goes on where it was, with no image lost or doubled. Several machines can each make a part,
with `--shard 1/4` to `--shard 4/4`; their files together are those of one machine, byte for byte.

The metrics take nearly all of the time. `--metrics fast` takes a fraction of it and orders images nearly alike.
"""

import argparse
import time
from pathlib import Path

from ..errors import DataError
from .program import AddOption, Program


def _options(add: AddOption) -> None:
    add("--pristine_dir", type=Path, required=True, help="directory of pristine photographs")
    add("--output_dir", type=Path, required=True, help="directory for the Parquet files")
    add("--list", type=Path, help="text file with the photographs to use, one path a line")
    add("--per_image", type=int, default=25, help="distorted images for each photograph (25)")
    add("--num_workers", type=int, default=1, help="processes that work at once (1)")
    add("--seed", type=int, default=0, help="seed of all draws (0)")
    add("--shard", default="1/1", help="i/n: make the i-th of n shares of the work")
    add("--metrics", default="full", help="full (default), fast, or names separated by commas")
    add("--shortest_edge", type=int, default=512, help="shrink a longer shortest edge to this (512)")
    add("--crop_size", type=int, help="distort a random crop of this side instead of the whole image")
    add("--images_per_part", type=int, default=8, help="photographs in one Parquet file (8)")


def _run(args: argparse.Namespace) -> None:
    try:
        _make_dataset(args)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on where it was") from None


def _make_dataset(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..data.distorted.building import BuildSettings, build, find_photographs, parse_shard, parts_of_shard
    from ..data.distorted.pseudo_mos import resolve_metrics
    from ..data.silencing import silence_decoders

    silence_decoders()
    console = Console(stderr=True, highlight=False)
    names = None
    if args.list is not None:
        if not args.list.is_file():
            raise DataError(f"There is no file {args.list}.")
        names = [line.strip() for line in args.list.read_text(encoding="utf-8").splitlines() if line.strip()]
    settings = BuildSettings(
        per_image=args.per_image,
        seed=args.seed,
        metrics=resolve_metrics(args.metrics),
        shortest_edge=args.shortest_edge,
        crop_size=args.crop_size,
        images_per_part=args.images_per_part,
    )
    shard = parse_shard(args.shard)
    photographs = find_photographs(args.pristine_dir, names)
    parts = build(args.pristine_dir, photographs, args.output_dir, settings, workers=args.num_workers, shard=shard)

    started = time.monotonic()
    rows = rows_before = used_parts = 0
    with Progress(
        TextColumn("distorting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photographs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        total = sum(len(members) for members in parts_of_shard(photographs, settings, shard).values())
        task = progress.add_task("distorting", total=total)
        for part in parts:
            used_parts += 1
            rows += part.rows if part.built else 0
            rows_before += 0 if part.built else part.rows
            for name, reason in part.skipped:
                console.print(f"Skipped {name}: {reason}.", markup=False, soft_wrap=True)
            progress.advance(task, part.photographs)
    minutes = (time.monotonic() - started) / 60
    before = f" ({rows_before} more were there)" if rows_before else ""
    console.print(
        f"Made {rows} distorted images{before} in {minutes:.1f} min: {used_parts} files in {args.output_dir}.",
        markup=False,
        soft_wrap=True,
    )


PROGRAM = Program(command="distort-set", script="distort", description=__doc__, options=_options, run=_run)
