"""Where commands print: results on standard output, everything else on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data.names import shown_name

console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
errors = Console(stderr=True, highlight=False)


def silence_libraries() -> None:
    """Keep off the terminal what libraries say of loading weights and of odd image files."""
    from transformers.utils import logging as transformers_logging

    from ..data.silencing import silence_decoders

    silence_decoders()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def scoring_progress(*, done: int = 0, total: int | None, doing: str = "scoring") -> Iterator[Callable[[int], None]]:
    """A bar, in a terminal and for more than a few photographs, for a function that is told of each that is scored.

    Args:
        done: photographs that are scored already.
        total: all of them; None if that is not known.
        doing: what is done to them.
    """
    progress = Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        redirect_stdout=False,  # which would lead the results to standard error
        disable=(total is not None and total - done < 16) or not errors.is_terminal,
    )
    with progress:
        task = progress.add_task("", total=total, completed=done, rate="")

        def advance(count: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=count, rate="" if speed is None else f"{speed:.1f} images/s")

        yield advance


@contextmanager
def feature_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar, in a terminal, for a function that gets the numbers of photographs that are done and of all."""
    columns = (TextColumn("features of photographs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    with progress:
        task = progress.add_task("features", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def say_left_out(path: Path, reason: str) -> None:
    """Name a photograph that cannot be read and is left out."""
    errors.print(f"Left out {shown_name(str(path))}: {reason}.", markup=False, soft_wrap=True)


__all__ = ["console", "errors", "feature_progress", "say_left_out", "scoring_progress", "silence_libraries"]
