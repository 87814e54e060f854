"""`metaqap report`: photographs, or results that are there already -> one HTML page to look through."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.image_files import about_unread
from ..data.image_places import check_packages
from ..data.names import shown_name
from ..errors import MetaQAPError
from ..inference.choices import THUMBNAIL, Dtype, Engine
from .options import (
    SHIPPED,
    AllowPrivate,
    BatchSize,
    Checkpoint,
    Device,
    EngineChoice,
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

if TYPE_CHECKING:
    from ..inference.records import ScoreRecord


def report(
    paths: Places,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, such as report.html.")],
    overwrite: Overwrite = False,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Photograph quality",
    maps: Annotated[
        bool | None,
        typer.Option(
            "--maps/--no-maps",
            help="Show the map of local quality of each photograph. Default where the engine gives maps, as PyTorch "
            "does, which auto then stands for.",
            show_default=False,
        ),
    ] = None,
    thumbnail: Annotated[
        int,
        typer.Option(min=32, max=1024, help="Longer side of the pictures in pixels; larger ones make a larger file."),
    ] = THUMBNAIL,
    checkpoint: Checkpoint = SHIPPED,
    engine: EngineChoice = Engine.auto,
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
) -> None:
    """Write a web page to look through scored photographs: the worst, the best, sorted and filtered.

    The page is one file with thumbnails in it, and asks nothing of any server. Results that `metaqap score` has
    written, .csv, .jsonl or .parquet files or a folder of Parquet files, are shown without scoring again, with
    pictures of the photographs that are found. Where no .run.json beside them says their scale, --scale does. The exit
    status is 1 if an image could not be read.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise MetaQAPError(f"The page {output} must end in .html.")
    places, unread = places_to_score(paths, recursive=recursive, null=null)
    check_packages(places)
    if fast and (maps or engine is not Engine.auto or dtype is not Dtype.float32):
        raise MetaQAPError("--fast chooses engine and dtype itself, and gives no quality maps; leave out the others.")
    if maps and engine not in (Engine.auto, Engine.torch):
        raise MetaQAPError("--maps needs --engine torch; the other engines give no quality maps.")

    from ..data.rating_options import checked_range
    from ..data.stored_images import stored_images
    from ..fetching_metaqap import Fetching
    from ..inference.html_report import write_html_report
    from ..inference.record_files import check_writable
    from ..inference.records import scale_title
    from ..inference.results import describe_results, read_results, results_in
    from ..inference.scorer import Scorer
    from .printing import errors, silence_libraries

    silence_libraries()
    check_writable(output)
    if output.exists() and not overwrite:
        raise MetaQAPError(f"There is a file {output}; replace it with --overwrite, or write to another.")
    records: Iterable[ScoreRecord]
    unread_in_archives: list[str] = []
    if results := results_in(places):
        options = (checkpoint, engine, device, dtype, fast, learners, maps or None, raters_scale)
        if options != (SHIPPED, Engine.auto, None, Dtype.float32, False, None, None, False):
            raise MetaQAPError(
                f"{shown_name(paths[0])} holds finished scores, which are shown as they are; leave out the options of "
                "scoring, or name the photographs instead."
            )
        shown_scale = (0.0, 1.0) if scale is None else checked_range(scale, name="scale")
        about = describe_results(results)
        # What is known of the scale goes before what is shown.
        records = read_results(results, scale=shown_scale, thumbnail=thumbnail)
        records = with_progress(records, doing="reading", total=None)
    else:
        if maps is None:
            maps = not fast and engine in (Engine.auto, Engine.torch)
        if maps:
            engine = Engine.torch  # the only one that gives a quality map
        num_images = number_of_images(places)
        scorer = Scorer(
            checkpoint,
            engine=engine,
            device=device,
            dtype=dtype,
            scale=chosen_scale(scale, raters_scale),
            learners=learners,
            fast=fast,
            num_images=num_images,
            batch_size=batch_size,
            isolate=isolate,
        )
        if notice := about_unread(unread):
            errors.print(notice, markup=False, soft_wrap=True)
        shown_scale = scorer.scale
        about = {
            "checkpoint": Path(checkpoint).name,
            **run_of(scorer, checkpoint, learners=learners),
        }
        images = stored_images(
            places,
            image_column=image_column,
            fetching=Fetching(allow_private=allow_private),
            unread=unread_in_archives,
        )
        records = with_progress(scorer.score(images, quality_map=maps, thumbnail=thumbnail), total=num_images)
    about["scale"] = scale_title(shown_scale)  # not that of finished results
    summary = write_html_report(records, output, title=title, about=about, scale=shown_scale)

    size = f"{summary.size / 1e6:.1f} MB"
    wrote = f"Wrote {summary.photographs:,} photographs to {shown_name(str(output))}, {size}."
    errors.print(wrote, markup=False, soft_wrap=True)
    if notice := about_unread(unread_in_archives):
        errors.print(notice, markup=False, soft_wrap=True)
    if summary.without_picture:
        errors.print(
            f"{summary.without_picture:,} of them have no picture: they are not at their paths any more, have "
            "changed, or lie in archives.",
            soft_wrap=True,
        )
    if summary.failed:
        errors.print(f"{summary.failed:,} of {summary.photographs:,} images could not be read.")
        raise typer.Exit(1)
