"""`metaqap score` with several processes: a folder of Parquet files, by Ray or by what `accelerate launch` starts."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..data.image_places import kind_of
from ..data.image_units import split_into_units
from ..data.locking import only_writer
from ..data.names import shown_name
from ..inference.shards import ShardTask, Tally, begin_shards, check_folder, count_rows, open_tasks
from ..inference.sharing import ScoringOptions, describe_run
from .scoring import run_of

if TYPE_CHECKING:
    from ..inference.fastest import Choice


def score_with_ray(
    places: Sequence[str],
    folder: Path,
    options: ScoringOptions,
    *,
    resume: bool,
    overwrite: bool,
    notice: str | None,
    address: str | None,
    workers: int | None,
) -> None:
    """Score with the workers of a Ray cluster, or of this machine.

    Raises:
        MetaQAPError: for a folder, cluster, checkpoint or options that cannot be used.
        typer.Exit: with status 1, if images could not be read.
    """
    from ..inference.ray_pool import check_ray, ray_pool

    check_ray()
    check_folder(folder, replace=overwrite or resume)
    with only_writer(folder), ray_pool(address=address, workers=workers, device=options.device) as pool:
        engine = pool.prepare(options)
        run = describe_run(
            engine.weights or options.checkpoint,
            engine=engine.name,
            dtype=engine.dtype,
            learners=options.learners,
            scale=engine.scale,
        )
        begin_shards(folder, run=run, resume=resume)
        _say(engine.choice, notice)
        tasks = open_tasks(folder, split_into_units(places))
        if tasks:
            _follow(pool.score(tasks, options, engine, folder), folder, total=_images_of(tasks))
    _report(count_rows(folder), folder)


def score_with_processes(
    places: Sequence[str],
    folder: Path,
    options: ScoringOptions,
    *,
    resume: bool,
    overwrite: bool,
    notice: str | None,
) -> None:
    """Score this process's share, beside the others that `accelerate launch` has started.

    Raises:
        MetaQAPError: for a folder, checkpoint or options that cannot be used.
        typer.Exit: with status 1, if images could not be read.
    """
    from ..inference.process_share import ProcessShare
    from .printing import silence_libraries

    silence_libraries()
    share = ProcessShare()
    share.begin(lambda: check_folder(folder, replace=overwrite or resume))
    with ExitStack() as stack:
        share.begin(lambda: stack.enter_context(only_writer(folder)))
        scorer = share.make_scorer(options)
        run = run_of(scorer, options.checkpoint, learners=options.learners)
        share.begin(lambda: begin_shards(folder, run=run, resume=resume))
        tasks = open_tasks(folder, split_into_units(places))
        scored = share.score(tasks, options, scorer, folder)
        if share.is_main:
            _say(scorer.choice, notice)
            _follow(scored, folder, total=_images_of(share.part_of(tasks)))
        else:
            for _ in scored:
                pass
        share.wait_for_all()
    # Where one process ends with a status other than 0, the launcher ends all others.
    if share.is_main:
        _report(count_rows(folder), folder)


def _images_of(tasks: Iterable[ShardTask]) -> int | None:
    """How many images there are to score; None if an archive does not say how many it holds."""
    count = 0
    for task in tasks:
        unit = task.unit
        if unit.span is not None:
            count += len(unit.span)
        elif kind_of(unit.places[0]).holds_many:
            return None
        else:
            count += len(unit.places) - len(task.skip)
    return count


def _say(choice: "Choice | None", notice: str | None) -> None:
    from .printing import errors

    if choice is not None:
        errors.print(f"Scoring with {choice}.", highlight=False, soft_wrap=True)
    if notice:
        errors.print(notice, markup=False, soft_wrap=True)


def _follow(tallies: Iterable[Tally], folder: Path, *, total: int | None) -> None:
    """Show how far the work is, and say after Ctrl-C how it goes on."""
    from .printing import errors, scoring_progress

    try:
        with scoring_progress(done=0, total=total) as advance:
            for tally in tallies:
                advance(tally.rows)
    except KeyboardInterrupt:
        kept = f"{shown_name(str(folder))} keeps what was scored"
        errors.print(f"{kept}; the same command with --resume goes on.", markup=False, soft_wrap=True)
        raise


def _report(tally: Tally, folder: Path) -> None:
    from .printing import errors

    errors.print(f"Wrote {tally.rows} rows to {shown_name(str(folder))}.", markup=False, soft_wrap=True)
    if tally.failed:
        errors.print(f"{tally.failed} of {tally.rows} images could not be read.")
        raise typer.Exit(1)
