"""`metaqap suggest`: a folder -> a CSV file with the photographs to rate next."""

import csv as csv_files
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MetaQAPError
from .options import SHIPPED, BatchSize, CacheDir, Checkpoint, Device


def suggest(
    folder: Annotated[Path, typer.Argument(help="Folder with photographs.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many to name.")] = 50,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write and to fill in.")] = Path(
        "to-rate.csv"
    ),
    csv: Annotated[
        Path | None, typer.Option(help="Ratings that there are already; these photographs are left out.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with their names.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.")] = False,
    checkpoint: Checkpoint = SHIPPED,
    device: Device = None,
    batch_size: BatchSize = 8,
    cache_dir: CacheDir = None,
) -> None:
    """Name the photographs whose ratings would teach `metaqap adapt` most, in a CSV file to fill in."""
    if output.exists():
        raise MetaQAPError(f"{output} is there already; name a new file.")
    from ..fusion.suggesting import suggest as suggest_photographs
    from ..inference.record_files import cannot_write
    from .printing import errors, feature_progress, say_left_out, silence_libraries

    silence_libraries()
    with feature_progress() as on_progress:
        names = suggest_photographs(
            folder,
            n,
            csv=csv,
            image_column=image_column,
            recursive=recursive,
            checkpoint=checkpoint,
            cache_dir=cache_dir,
            device=device,
            batch_size=batch_size,
            on_progress=on_progress,
            on_unreadable=say_left_out,
        )
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            csv_files.writer(file).writerows([["image", "mos"], *([name, ""] for name in names)])
    except OSError as error:
        raise cannot_write(output, error) from error
    errors.print(f"Wrote {len(names)} photographs to rate to {output}.", markup=False, soft_wrap=True)
