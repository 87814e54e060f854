"""The `metaqap` command."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from .. import DEFAULT_CHECKPOINT, __version__
from ..errors import MetaQAPError
from ..inference.decoding import UNREADABLE, explain_error, find_images, read_rgb
from ..inference.engines import ONNX_FILES, Engine
from ..inference.onnx_export import export_onnx
from ..inference.pictures import explanation_picture
from ..inference.record_files import cannot_write, record_writer
from ..inference.records import ScoreRecord
from ..inference.scorer import Scorer, describe

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)


class Order(StrEnum):
    """Orders of the results."""

    input = "input"
    best = "best"
    worst = "worst"
    path = "path"


class Dtype(StrEnum):
    """Number formats of the computation."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Checkpoint = Annotated[str, typer.Option(help="Folder or Hub id of a MetaQAP checkpoint.", show_default=False)]


def _print_version(value: bool) -> None:
    if value:
        print(f"metaqap {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """No-reference image quality: how good does a photograph look, without another one to compare it with?"""


@app.command()
def score(
    paths: Annotated[
        list[str], typer.Argument(help="Images, folders, glob patterns, or - for a list of paths on standard input.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the results here: .csv, .jsonl or .parquet.")
    ] = None,
    checkpoint: Checkpoint = str(DEFAULT_CHECKPOINT),
    engine: Annotated[
        Engine, typer.Option(help="What runs the model; onnx and onnx-int8 need `metaqap export` first.")
    ] = Engine.torch,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default the GPU if there is one.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the computation.")] = Dtype.float32,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops in one pass through the model.")] = 8,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.")] = False,
    sort: Annotated[Order, typer.Option(help="Order of the results.")] = Order.input,
    explain: Annotated[
        Path | None,
        typer.Option(help="For each image write a picture here: its quality map and the likeliest distortions."),
    ] = None,
) -> None:
    """Score images: quality is higher for better images, and most photographs lie between 0 and 1.

    The exit status is 1 if an image could not be read (the others are still scored) and 2 for a wrong call.
    """
    from_stdin = [line for line in map(str.strip, sys.stdin) if line] if "-" in paths else []
    images = find_images([path for path in paths if path != "-"], recursive=recursive) + from_stdin
    if not images:
        raise MetaQAPError("There are no images to score: standard input is empty.")
    with record_writer(output) as write:
        scorer = Scorer(checkpoint, engine=engine, device=device, dtype=dtype.value, batch_size=batch_size)
        explanations = None if explain is None else _Explanations(explain, scorer)
        records = []
        scored = scorer.score(images, quality_map=explanations is not None)
        for record in _with_progress(scored, total=len(images)):
            records.append(record)
            if explanations is not None:
                explanations.write(record)
            if sort is Order.input:
                # Written at once, so that an interrupted run keeps what it has done.
                write(record)
        if sort is not Order.input:
            records = _sorted(records, sort)
            for record in records:
                write(record)
    _print_records(records)
    if output is not None:
        errors.print(f"Wrote {len(records)} rows to {output}.", highlight=False)
    failed = sum(record.error is not None for record in records)
    if failed:
        errors.print(f"{failed} of {len(records)} images could not be read.", highlight=False)
        raise typer.Exit(1)


@app.command()
def distort(
    photo: Annotated[Path, typer.Argument(help="A photograph, 32 x 32 pixels or more.")],
    grid: Annotated[Path, typer.Option(help="The picture to write, such as grid.png.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the distortions' randomness.")] = 0,
    cell: Annotated[int, typer.Option(min=32, max=1024, help="Longer side of one cell in pixels.")] = 224,
) -> None:
    """Draw the 25 distortions of quality-aware pretraining at their five levels on a photograph."""
    try:
        from ..data.distortions.grid import distortion_grid
    except ImportError as error:
        raise MetaQAPError(f"The distortions need {error.name}; install `metaqap[train]`.") from error
    if grid.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise MetaQAPError(f"The picture {grid} must end in .png, .jpg or .webp.")
    try:
        picture = distortion_grid(read_rgb(photo), seed=seed, cell=cell)
    except UNREADABLE as error:
        raise MetaQAPError(f"{photo} cannot be distorted: {explain_error(error)}.") from error
    try:
        picture.save(grid)
    except OSError as error:
        raise cannot_write(grid, error) from error
    errors.print(f"Wrote {grid}, {picture.width} x {picture.height} pixels.", highlight=False)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with your rated images.")],
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", help="A row for each image, with its name and opinion score; default the folder's one."),
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the images' names.")] = None,
    mos_column: Annotated[str | None, typer.Option(help="Column with the opinion scores.")] = None,
    mos_range: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest score that a rater could give.")
    ] = (0.0, 1.0),
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Lower scores are better ones, as with DMOS.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report and the plots.")] = Path(
        "metaqap-evaluation"
    ),
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst disagreements to list.")] = 10,
    checkpoint: Checkpoint = str(DEFAULT_CHECKPOINT),
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default the GPU if there is one.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops in one pass through the model.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap; 0 for no intervals.")] = 1000,
) -> None:
    """Measure how well scores agree with your own ratings: figures, plots and the worst disagreements.

    The folder gets a results.json, a report.md, every prediction as CSV, a scatter and a residual plot.
    """
    try:
        import datasets

        from ..errors import DataError, MetaQAPError
        from ..evaluation.evaluating import FolderOptions, evaluate_folder
        from ..evaluation.folder_report import worst_disagreements, write_folder_report
        from ..evaluation.tables import HEADINGS, format_figure
    except ImportError as error:
        raise MetaQAPError(f"This needs the train extra ({error}): pip install 'metaqap[train]'.") from error
    datasets.disable_progress_bars()
    options = FolderOptions(
        csv=csv_file,
        image_column=image_column,
        mos_column=mos_column,
        mos_range=mos_range,
        higher_is_better=not lower_is_better,
    )
    try:
        with errors.status(f"Scoring the images of {folder} ..."):
            measurement = evaluate_folder(
                folder,
                options,
                checkpoint=checkpoint,
                device=device,
                batch_size=batch_size,
                seed=seed,
                n_bootstrap=bootstrap,
            )
        disagreements = worst_disagreements(measurement, worst)
        write_folder_report(measurement, disagreements, output)
    except (MetaQAPError, DataError) as error:
        raise MetaQAPError(str(error)) from error
    except OSError as error:
        raise cannot_write(output, error) from error

    table = Table(title=f"{folder}: {measurement.row['n']} images", title_justify="left")
    table.add_column("")
    table.add_column("value [95 % interval]", justify="right")
    for name, heading in HEADINGS.items():
        table.add_row(heading, Text(format_figure(measurement.row[name])))
    console.print(table)
    if disagreements:
        table = Table(title="Worst disagreements, after the logistic fit", title_justify="left")
        table.add_column("image", overflow="fold")
        for heading in ("predicted", "fitted", "rated", "rated less fitted"):
            table.add_column(heading, justify="right")
        for one in disagreements:
            values = (one.prediction, one.fitted, one.quality)
            table.add_row(Text(one.image_id), *(f"{value:.3f}" for value in values), f"{one.residual:+.3f}")
        console.print(table)
    errors.print(f"Wrote the report and the plots to {output}.", highlight=False, markup=False)


@app.command()
def info(
    checkpoint: Checkpoint = str(DEFAULT_CHECKPOINT),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a checkpoint: its learners, what it was trained on and measured at."""
    description = describe(Scorer(checkpoint, device="cpu").model)
    if as_json:
        print(json.dumps({"checkpoint": checkpoint, **description}, indent=2))
        return
    table = Table(title=f"Checkpoint {checkpoint}", title_justify="left")
    for heading in ("base learner", "backbone"):
        table.add_column(heading)
    for heading in ("weight", "parameters"):
        table.add_column(heading, justify="right")
    for learner in description["base_learners"]:
        table.add_row(
            learner["name"], learner["backbone"], f"{learner['weight']:.3f}", f"{learner['parameters'] / 1e6:.2f} M"
        )
    console.print(table)
    radius = description["interval_radius"]
    console.print(f"intercept {description['intercept']:+.3f}", highlight=False)
    interval = "not calibrated" if radius is None else f"quality ± {radius:.3f}"
    console.print(f"90 % prediction interval: {interval}", highlight=False)
    labels = description["distortion_labels"]
    console.print(f"distortions it can name: {len(labels) if labels else 'none'}", highlight=False)
    for name, value in (description["training_summary"] or {}).items():
        console.print(f"{name.replace('_', ' ')}: {_flat(value)}", highlight=False)


@app.command()
def serve(
    checkpoint: Checkpoint = str(DEFAULT_CHECKPOINT),
    host: Annotated[str | None, typer.Option(help="Address to listen on; default this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default the GPU if there is one.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests that are computed at once; others wait.")] = 2,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of photographs to offer as examples.", show_default=False)
    ] = None,
) -> None:
    """Serve the demo: score, compare, distort and batches in the browser, and the same functions as an API."""
    try:
        from ..demo import serve as serve_demo
    except ImportError as error:
        raise MetaQAPError(f'The demo needs {error.name}; install it with `pip install "metaqap[space]"`.') from error
    serve_demo(checkpoint, host=host, port=port, device=device, concurrency=concurrency, examples=examples)


@app.command()
def export(
    checkpoint: Checkpoint = str(DEFAULT_CHECKPOINT),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; default the checkpoint's own.")
    ] = None,
    photos: Annotated[
        list[str] | None, typer.Option(help="Images or folders to compare with PyTorch on; can be repeated.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write an int8 file, calibrated on the photos.")] = False,
) -> None:
    """Write the checkpoint as ONNX for `metaqap score --engine onnx`, and say how far it is from PyTorch."""
    result = export_onnx(checkpoint, output, photographs=find_images(photos or []), int8=int8)
    table = Table(title=f"Exported to {result.folder}", title_justify="left")
    table.add_column("file")
    for heading in ("MB", "images compared", "largest difference", "mean difference"):
        table.add_column(heading, justify="right")
    for engine, agreement in result.agreement.items():
        size = (result.folder / ONNX_FILES[engine]).stat().st_size / 1e6
        differences = (f"{agreement.largest:.1e}", f"{agreement.mean:.1e}")
        table.add_row(ONNX_FILES[engine], f"{size:.1f}", str(agreement.n), *differences)
    console.print(table)
    errors.print("Differences are in units of quality, to PyTorch in float32.", highlight=False)


class _Explanations:
    """A folder with one picture for each scored image, under the image's own name."""

    def __init__(self, folder: Path, scorer: Scorer):
        self.folder, self.scorer = folder, scorer
        self.names: Counter[str] = Counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MetaQAPError(f"Cannot write to {folder}: {(error.strerror or str(error)).lower()}.") from error

    def write(self, record: ScoreRecord) -> None:
        if record.error is not None:
            return
        photograph = self.scorer.read(record.path).pixels
        picture = explanation_picture(photograph, record, self.scorer.model.config.distortion_labels or [])
        record.quality_map = None  # it is drawn, and thousands of them would fill the memory
        stem = Path(record.path).stem
        self.names[stem] += 1
        name = f"{stem}.png" if self.names[stem] == 1 else f"{stem}-{self.names[stem]}.png"
        try:
            picture.save(self.folder / name)
        except OSError as error:
            raise cannot_write(self.folder / name, error) from error


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(_flat(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _with_progress(records: Iterable[ScoreRecord], *, total: int) -> Iterator[ScoreRecord]:
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


def _sorted(records: list[ScoreRecord], order: Order) -> list[ScoreRecord]:
    if order is Order.path:
        return sorted(records, key=lambda record: record.path)
    sign = 1 if order is Order.worst else -1
    # Images without a score come last.
    return sorted(records, key=lambda record: (record.quality is None, sign * (record.quality or 0)))


def _print_records(records: list[ScoreRecord]) -> None:
    has_interval = any(record.quality_low is not None for record in records)
    has_distortion = any(record.distortion is not None for record in records)
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("quality", justify="right")
    if has_interval:
        table.add_column("90 % interval", justify="right")
    if has_distortion:
        table.add_column("most like")
    table.add_column("size", justify="right")
    for record in records:
        size = "" if record.width is None else f"{record.width} x {record.height}"
        if record.error is not None:
            cells: list[str | Text] = [Text(record.error, style="red")]
        else:
            cells = [f"{record.quality:.3f}"]
        if has_interval:
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


def main() -> None:
    """Entry point: a user's mistake is one sentence on standard error and status 2, never a traceback."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        status = app(standalone_mode=False)
    except (MetaQAPError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        errors.print(f"metaqap: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        errors.print("metaqap: interrupted.", style="red")
        sys.exit(130)
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
