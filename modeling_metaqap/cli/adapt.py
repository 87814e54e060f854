"""`metaqap adapt`: rated photographs -> a checkpoint of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import MetaQAPError
from .options import (
    SHIPPED,
    BatchSize,
    CacheDir,
    Checkpoint,
    Csv,
    Device,
    ImageColumn,
    LowerIsBetter,
    MosColumn,
    MosRange,
)


def adapt(
    folder: Annotated[Path, typer.Argument(help="Folder with your rated photographs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new checkpoint.")],
    csv: Csv = None,
    image_column: ImageColumn = None,
    mos_column: MosColumn = None,
    mos_range: MosRange = None,
    lower_is_better: LowerIsBetter = False,
    checkpoint: Checkpoint = SHIPPED,
    device: Device = None,
    batch_size: BatchSize = 8,
    cache_dir: CacheDir = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Train copies of the best learners too. Takes hours without a GPU.")
    ] = False,
    finetune_learners: Annotated[
        int, typer.Option(min=1, help="How many learners to train; each makes the checkpoint slower.")
    ] = 2,
    runs_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep unfinished training in; default the user's cache. The same command goes on with it.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cross-validation and of the learning curve.")] = 0,
) -> None:
    """Fit a checkpoint to your own ratings in minutes, without a GPU: 15 ratings or more.

    The CSV file has a row for each photograph with its name and mean rating; or for each rating, with a column rater
    too; or for each comparison, with the columns better and worse.

    The new checkpoint is used like any other. Its folder also says what to expect of it: adaptation.json,
    learning_curve.png and README.md.

    With --finetune, learners are trained on your photographs after that, and stand beside the others if that helps. It
    takes some hundred ratings.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise MetaQAPError(f"{output} is there already; name a new folder.")
    from rich.table import Table

    from ..fusion.adapting import AdaptationSettings
    from ..fusion.adapting import adapt as adapt_checkpoint
    from ..fusion.finetuning_settings import FinetuningSettings
    from ..inference.record_files import cannot_write
    from ..inference.records import scale_title
    from ..lineage import has_own_scale
    from .printing import console, errors, feature_progress, say_left_out, silence_libraries

    silence_libraries()
    with feature_progress() as on_progress:
        adaptation = adapt_checkpoint(
            folder,
            csv,
            checkpoint=checkpoint,
            image_column=image_column,
            mos_column=mos_column,
            mos_range=mos_range,
            lower_is_better=lower_is_better,
            settings=AdaptationSettings(seed=seed),
            finetune=FinetuningSettings(learners=finetune_learners) if finetune else False,
            runs_dir=runs_dir,
            cache_dir=cache_dir,
            device=device,
            batch_size=batch_size,
            on_progress=on_progress,
            on_unreadable=say_left_out,
            on_run=_say_run,
        )
    try:
        adaptation.save(output)
    except OSError as error:
        raise cannot_write(output, error) from error
    adaptation.forget_runs()

    record = adaptation.record
    scale = ", on a scale from 0 to 1" if has_own_scale(record["mos_range"]) else ""
    table = Table(title=f"{folder}: {record['n']} ratings, each predicted by the others{scale}", title_justify="left")
    table.add_column("")
    for heading in ("before [95 % interval]", "after [95 % interval]"):
        table.add_column(heading, justify="right")
    for name, heading in (("plcc", "PLCC"), ("srocc", "SROCC"), ("rmse", "RMSE")):
        figures = (record["figures"][when][name] for when in ("before", "after"))
        table.add_row(heading, *(f"{one['value']:.3f} \\[{one['low']:.3f}, {one['high']:.3f}]" for one in figures))
    console.print(table)
    table = Table(title="What fewer ratings would have given, on a fifth that was left out", title_justify="left")
    for heading in ("ratings", "PLCC", "SROCC", "RMSE"):
        table.add_column(heading, justify="right")
    for point in record["learning_curve"]:
        table.add_row(f"{point['n']:,}", *(f"{point[name]:.3f}" for name in ("plcc", "srocc", "rmse")))
    console.print(table)
    console.print(adaptation.conclusion, markup=False, soft_wrap=True)
    errors.print(f"Wrote the checkpoint to {output}.", markup=False, soft_wrap=True)
    if has_own_scale(record["mos_range"]):
        scale = scale_title(tuple(record["mos_range"]))
        advice = f"Its scores lie between 0 and 1; `metaqap score --raters-scale` gives them on your scale, {scale}."
        errors.print(advice, markup=False, soft_wrap=True)


def _say_run(learner: str, fold: int, folds: int) -> None:
    from .printing import errors

    errors.print(f"Training {learner}, fold {fold} of {folds} ...", markup=False, soft_wrap=True)
