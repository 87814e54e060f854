"""`metaqap score`: images -> a table, a file of records or JSON Lines."""

import os
import stat
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ..data.image_files import about_unread
from ..data.image_places import Kind, check_packages, kind_of
from ..data.names import shown_name
from ..errors import MetaQAPError
from ..inference.choices import Dtype, Engine, Order, Runner
from .options import (
    SHIPPED,
    AllowPrivate,
    BatchSize,
    Checkpoint,
    Device,
    Fast,
    Isolate,
    Learners,
    Null,
    NumberFormat,
    Overwrite,
    Places,
    RatersScale,
    Recursive,
    Scale,
    TableColumn,
    chosen_scale,
)
from .scoring import number_of_images, places_to_score, run_of, with_progress

#: The output that is standard output.
_STANDARD_OUTPUT = Path("-")

if TYPE_CHECKING:
    from ..inference.records import ScoreRecord


def score(
    paths: Places,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the results to this file instead of showing them: .csv, .jsonl or .parquet; - is --json. "
            "With --engine ray, and below accelerate launch, a folder of Parquet files.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the results to standard output as they come, as JSON Lines.")
    ] = False,
    overwrite: Overwrite = False,
    checkpoint: Checkpoint = SHIPPED,
    engine: Annotated[
        Runner,
        typer.Option(
            help="What runs the model. auto is ONNX Runtime where it is installed, and makes its file once, in your "
            "cache; onnx and onnx-int8 take the files of `metaqap export`. ray is auto on the workers of Ray: of a "
            "cluster, or on all cores or GPUs of this machine."
        ),
    ] = Runner.auto,
    device: Device = None,
    dtype: NumberFormat = Dtype.float32,
    fast: Fast = False,
    scale: Scale = None,
    raters_scale: RatersScale = False,
    learners: Learners = None,
    batch_size: BatchSize = 8,
    recursive: Recursive = False,
    image_column: TableColumn = "image",
    allow_private: AllowPrivate = False,
    null: Null = False,
    isolate: Isolate = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that an interrupted run has written to --output.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers of Ray; default one for each GPU, or for each core if there is none."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster: auto on one of its machines. Default this machine alone."),
    ] = None,
    sort: Annotated[Order, typer.Option(help="Order of the results.")] = Order.input,
    explain: Annotated[
        Path | None,
        typer.Option(
            help="For each image write a picture below this folder: its quality map and the likeliest distortions."
        ),
    ] = None,
) -> None:
    """Score images: quality is higher for better images, and most photographs lie between 0 and 1.

    That holds for checkpoints of your own too; --raters-scale or --scale 1 5 give scores on the scale of your ratings.

    The exit status is 1 if an image could not be read (the others are still scored) and 2 for a wrong call.
    """
    places, unread = places_to_score(paths, recursive=recursive, null=null)
    if output == _STANDARD_OUTPUT:
        output, as_json = None, True
    elif output is not None and as_json:
        raise MetaQAPError("--json writes to standard output and --output to a file; leave out one of them.")
    if resume and output is None:
        raise MetaQAPError("--resume continues a file; name it with --output.")
    if engine is not Runner.ray and (workers is not None or ray_address is not None):
        raise MetaQAPError("`workers` and `ray_address` are for --engine ray.")
    if overwrite and resume:
        raise MetaQAPError("--resume keeps the rows of the file and --overwrite drops them; leave out one of them.")
    check_packages(places)
    if explain is not None and set(map(kind_of, places)) != {Kind.file}:
        raise MetaQAPError("--explain needs photographs that are files of this machine; unpack or fetch them first.")
    num_images = number_of_images(places)

    own_engine = Engine.auto if engine is Runner.ray else Engine(engine)
    if fast and (explain is not None or own_engine is not Engine.auto or dtype is not Dtype.float32):
        raise MetaQAPError("--fast chooses engine and dtype itself, and gives no quality maps; leave out the others.")
    if explain is not None and own_engine is Engine.auto:
        own_engine = Engine.torch  # the only one that gives a quality map
    in_processes = started_by_launcher()
    if engine is Runner.ray or in_processes:
        if output is None:
            raise MetaQAPError("Several processes write a folder of Parquet files; name it with --output.")
        if explain is not None or sort is not Order.input:
            raise MetaQAPError("Several processes write no pictures and do not sort; leave out --explain and --sort.")
        if in_processes and (engine is Runner.ray or "-" in paths):
            raise MetaQAPError("accelerate launch starts processes itself; leave out --engine ray, and - as a list.")

    from ..data.stored_images import stored_images
    from ..fetching_metaqap import Fetching
    from ..inference.record_files import check_output, json_line, open_records, read_run, sort_key
    from ..inference.sharing import ScoringOptions, as_begun

    options = ScoringOptions(
        checkpoint=checkpoint,
        engine=own_engine,
        device=device,
        dtype=dtype,
        scale=chosen_scale(scale, raters_scale),
        learners=learners,
        fast=fast,
        num_images=num_images,
        batch_size=batch_size,
        isolate=isolate,
        image_column=image_column,
        allow_private=allow_private,
    )
    if resume and output is not None:
        options = as_begun(options, read_run(output))
    notice = about_unread(unread)
    if output is not None and (engine is Runner.ray or in_processes):
        from .score_folder import score_with_processes, score_with_ray

        if in_processes:
            score_with_processes(places, output, options, resume=resume, overwrite=overwrite, notice=notice)
        else:
            score_with_ray(
                places,
                output,
                options,
                resume=resume,
                overwrite=overwrite,
                notice=notice,
                address=ray_address,
                workers=workers,
            )
        return
    if output is not None:
        check_output(output, replace=overwrite or resume)

    from ..inference.explanations import ExplanationFolder
    from .printing import console, errors, silence_libraries
    from .score_table import ScoreTable

    silence_libraries()
    scorer = options.make_scorer()
    if scorer.choice is not None:
        errors.print(f"Scoring with {scorer.choice}.", highlight=False, soft_wrap=True)
    explanations = None if explain is None else ExplanationFolder(explain, scorer, keep=places)

    if notice:
        errors.print(notice, markup=False, soft_wrap=True)
    unread_in_archives: list[str] = []
    keeps_lists = as_json or (output is not None and output.suffix.lower() == ".jsonl")
    # Rows that appear in the same terminal show the progress, and so do JSON Lines that a pipe leads to `jq`.
    is_shown = output is None and sort is Order.input and (sys.stdout.isatty() or (as_json and _is_pipe(sys.stdout)))

    def scored(done: Container[str] = ()) -> Iterator["ScoreRecord"]:
        fetching = Fetching(allow_private=allow_private)
        images = stored_images(
            places, image_column=image_column, fetching=fetching, skip=done, unread=unread_in_archives
        )
        records = scorer.score(images, quality_map=explanations is not None)
        if not is_shown:
            records = with_progress(records, done=sum(place in done for place in places), total=num_images)
        for record in records:
            if explanations is not None:
                record = explanations.write(record)
            if not keeps_lists:
                record.base_scores = record.distortion_probabilities = record.distances = None  # thousands take memory
            yield record

    if output is None:
        records: Iterable[ScoreRecord] = scored()
        if sort is not Order.input:
            records = sorted(records, key=lambda record: sort_key(record, sort))
        config = scorer.engine.config
        coverage = None if config.interval_radius is None else config.interval_coverage
        table = ScoreTable(console, coverage=coverage, distortions=config.distortion_labels, scale=scorer.scale)
        rows = failed = 0
        for record in records:
            if as_json:
                sys.stdout.buffer.write(json_line(record))
                sys.stdout.buffer.flush()
            else:
                table.print(record)
            rows += 1
            failed += record.error is not None
    else:
        run = run_of(scorer, checkpoint, learners=learners)
        # Opened only now: a wrong checkpoint or engine leaves a file of this name as it is. Each record is written at
        # once, so that an interrupted run keeps what it has done.
        with open_records(output, run=run, resume=resume) as file:
            try:
                for record in scored(file.done):
                    file.write(record)
                file.finish(sort)
            except KeyboardInterrupt:
                kept = f"{shown_name(str(file.rows_path))} keeps {len(file.done)} rows"
                errors.print(f"{kept}; the same command with --resume goes on.", markup=False, soft_wrap=True)
                raise
            rows, failed = len(file.done), file.failed
        errors.print(f"Wrote {rows} rows to {shown_name(str(output))}.", markup=False, soft_wrap=True)
    if notice := about_unread(unread_in_archives):
        errors.print(notice, markup=False, soft_wrap=True)
    if explanations is not None and explanations.missing:
        first = f"{len(explanations.missing)} images have no picture, the first: {explanations.missing[0]}."
        errors.print(first, markup=False, soft_wrap=True)
    if failed:
        errors.print(f"{failed} of {rows} images could not be read.")
        raise typer.Exit(1)


def started_by_launcher() -> bool:
    """Whether `accelerate launch` or `torchrun` has started this process, and perhaps others beside it."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:  # no file of the system
        return False
