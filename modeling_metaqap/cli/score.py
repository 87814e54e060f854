"""`metaqap score`: images -> a table, and a file of records."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.image_files import find_images
from ..errors import MetaQAPError
from ..inference.choices import Dtype, Engine
from .options import SHIPPED, BatchSize, Checkpoint, Device

if TYPE_CHECKING:
    from ..inference.records import ScoreRecord


class Order(StrEnum):
    """Orders of the results."""

    input = "input"
    best = "best"
    worst = "worst"
    path = "path"


def score(
    paths: Annotated[
        list[str], typer.Argument(help="Images, folders, glob patterns, or - for a list of paths on standard input.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the results here: .csv, .jsonl or .parquet.")
    ] = None,
    checkpoint: Checkpoint = SHIPPED,
    engine: Annotated[
        Engine, typer.Option(help="What runs the model; onnx and onnx-int8 need `metaqap export` first.")
    ] = Engine.torch,
    device: Device = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the computation.")] = Dtype.float32,
    batch_size: BatchSize = 8,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.")] = False,
    sort: Annotated[Order, typer.Option(help="Order of the results.")] = Order.input,
    explain: Annotated[
        Path | None,
        typer.Option(
            help="For each image write a picture below this folder: its quality map and the likeliest distortions."
        ),
    ] = None,
) -> None:
    """Score images: quality is higher for better images, and most photographs lie between 0 and 1.

    The exit status is 1 if an image could not be read (the others are still scored) and 2 for a wrong call.
    """
    from_stdin = [line for line in map(str.strip, sys.stdin) if line] if "-" in paths else []
    images = find_images([path for path in paths if path != "-"], recursive=recursive) + from_stdin
    if not images:
        raise MetaQAPError("There are no images to score: standard input is empty.")

    from ..inference.explanations import ExplanationFolder
    from ..inference.record_files import check_output, record_writer
    from ..inference.scorer import Scorer
    from .printing import errors, silence_libraries

    silence_libraries()
    if output is not None:
        check_output(output)
    scorer = Scorer(checkpoint, engine=engine, device=device, dtype=dtype, batch_size=batch_size)
    explanations = None if explain is None else ExplanationFolder(explain, scorer, keep=images)
    scored = _with_progress(scorer.score(images, quality_map=explanations is not None), total=len(images))
    if explanations is not None:
        scored = map(explanations.write, scored)
    if sort is not Order.input:
        scored = iter(_sorted(list(scored), sort))
    records = []
    # Opened only now: a wrong checkpoint or engine leaves a file of this name as it is. In the order of the input each
    # record is written at once, so that an interrupted run keeps what it has done.
    with record_writer(output) as write:
        for record in scored:
            write(record)
            records.append(record)
    _print_records(records)
    if output is not None:
        errors.print(f"Wrote {len(records)} rows to {output}.", markup=False, soft_wrap=True)
    failed = sum(record.error is not None for record in records)
    if failed:
        errors.print(f"{failed} of {len(records)} images could not be read.")
        raise typer.Exit(1)


def _with_progress(records: "Iterable[ScoreRecord]", *, total: int) -> "Iterator[ScoreRecord]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .printing import errors

    progress = Progress(
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=total < 16 or not errors.is_terminal,
    )
    with progress:
        yield from progress.track(records, total=total)


def _sorted(records: "list[ScoreRecord]", order: Order) -> "list[ScoreRecord]":
    if order is Order.path:
        return sorted(records, key=lambda record: record.path)
    sign = 1 if order is Order.worst else -1
    # Images without a score come last.
    return sorted(records, key=lambda record: (record.quality is None, sign * (record.quality or 0)))


def _print_records(records: "list[ScoreRecord]") -> None:
    from rich.table import Table
    from rich.text import Text

    from .printing import console

    interval_name = next((record.interval_name for record in records if record.quality_low is not None), None)
    has_distortion = any(record.distortion is not None for record in records)
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("quality", justify="right")
    if interval_name is not None:
        table.add_column(interval_name, justify="right")
    if has_distortion:
        table.add_column("most like")
    table.add_column("size", justify="right")
    for record in records:
        size = "" if record.width is None else f"{record.width} x {record.height}"
        if record.error is not None:
            cells: list[str | Text] = [Text(record.error, style="red")]
        else:
            cells = [f"{record.quality:.3f}"]
        if interval_name is not None:
            interval = (
                f"{record.quality_low:.2f} to {record.quality_high:.2f}" if record.quality_low is not None else ""
            )
            cells.append(interval)
        if has_distortion:
            cells.append(
                "" if record.distortion is None else f"{record.distortion} ({record.distortion_probability:.0%})"
            )
        # As `Text`, so that brackets in a path are not taken for markup.
        table.add_row(Text(record.path), *cells, size)
    console.print(table)
