"""`metaqap evaluate`: a folder of rated images -> how well scores agree with the ratings."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    SHIPPED,
    BatchSize,
    Checkpoint,
    Csv,
    Device,
    ImageColumn,
    LowerIsBetter,
    MosColumn,
    MosRange,
)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with your rated images.")],
    csv: Csv = None,
    image_column: ImageColumn = None,
    mos_column: MosColumn = None,
    mos_range: MosRange = None,
    lower_is_better: LowerIsBetter = False,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder for the report and the plots.")
    ] = Path("metaqap-evaluation"),
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst disagreements to list.")] = 10,
    checkpoint: Checkpoint = SHIPPED,
    device: Device = None,
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap; 0 for no intervals.")] = 1000,
) -> None:
    """Measure how well scores agree with your own ratings: figures, plots and the worst disagreements.

    The folder gets a results.json, a report.md, every prediction as CSV, a scatter and a residual plot.
    """
    import datasets
    from rich.table import Table
    from rich.text import Text

    from ..data.rating_options import RatingOptions
    from ..evaluation.evaluating import evaluate_folder
    from ..evaluation.folder_report import worst_disagreements, write_folder_report
    from ..evaluation.tables import HEADINGS, few_images_sentence, format_figure
    from ..inference.record_files import cannot_write
    from ..lineage import has_own_scale
    from .printing import console, errors, silence_libraries

    silence_libraries()
    datasets.disable_progress_bars()
    options = RatingOptions(
        csv=csv,
        image_column=image_column,
        mos_column=mos_column,
        mos_range=mos_range,
        lower_is_better=lower_is_better,
    )
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
    try:
        write_folder_report(measurement, disagreements, output_dir)
    except OSError as error:
        raise cannot_write(output_dir, error) from error

    # Ratings on another scale were brought to that of the scores.
    scale = "; opinions and scores from 0 to 1" if has_own_scale(mos_range) else ""
    table = Table(title=f"{folder}: {measurement.row['n']} images{scale}", title_justify="left")
    table.add_column("")
    table.add_column("value [95 % interval]", justify="right")
    for name, heading in HEADINGS.items():
        table.add_row(heading, Text(format_figure(measurement.row[name])))
    console.print(table)
    if sentence := few_images_sentence(measurement.row):
        console.print(sentence, soft_wrap=True)
    if disagreements:
        table = Table(title=f"Worst disagreements, after the logistic fit{scale}", title_justify="left")
        table.add_column("image", overflow="fold")
        for heading in ("predicted", "fitted", "rated", "rated less fitted"):
            table.add_column(heading, justify="right")
        for one in disagreements:
            values = (one.prediction, one.fitted, one.quality)
            table.add_row(Text(one.image_id), *(f"{value:.3f}" for value in values), f"{one.residual:+.3f}")
        console.print(table)
    errors.print(f"Wrote the report and the plots to {output_dir}.", markup=False, soft_wrap=True)
