"""What a run tells while it goes on: to its log, to trackers and to the screen."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..data.accelerate_state import failing_together
from .recipe import Recipe
from .run_folder import RunFolder
from .state import Position


class Journal:
    """What a run tells. All processes call the methods; the main one writes.

    Args:
        accelerator: of the run, with its trackers.
        folder: where the log is.
    """

    def __init__(self, accelerator: Accelerator, folder: RunFolder):
        self._accelerator = accelerator
        self._folder = folder
        self._console = Console(stderr=True, quiet=not accelerator.is_main_process)

    def start_tracking(self, recipe: Recipe) -> None:
        """Begin with the tracker, if there is one."""
        if self._accelerator.log_with:
            with failing_together():
                settings = {name: str(value) for name, value in asdict(recipe).items()}
                self._accelerator.init_trackers("metaqap", config=settings)

    def say(self, message: str) -> None:
        self._console.print(message)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what takes a while."""
        with self._console.status(what):
            yield

    def log(self, *, step: int, **values: Any) -> None:
        """Write a row to the log and to the trackers.

        Args:
            step: number of the step that it is about.
            values: numbers, and `refit_head` for a row about the heads that are fitted at the end.
        """
        with failing_together():
            if self._accelerator.is_main_process:
                self._folder.log(step=step, **values)
                numbers = {name: value for name, value in values.items() if name != "refit_head"}
                self._accelerator.log(numbers, step=step)

    @contextmanager
    def steps(self, position: Position, *, total: int) -> Iterator["Steps"]:
        """Show the progress of the steps.

        Args:
            position: where the run stands.
            total: number of all steps.
        """
        progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]}"),
            console=self._console,
            disable=not self._accelerator.is_main_process,
        )
        with progress:
            task = progress.add_task("train", total=total, completed=position.step, epoch=position.epoch, loss="-")
            yield Steps(progress, task)


class Steps:
    """Loss and speed of the steps since the last row of the log, and the bar that shows them."""

    def __init__(self, progress: Progress, task: TaskID):
        self._progress = progress
        self._task = task
        self.start_row()

    def start_row(self) -> None:
        """Begin anew with the mean and the clock: after a row, and after anything that is no step."""
        self._losses: list[float] = []
        self._started = time.perf_counter()

    def add(self, loss: float, position: Position) -> None:
        self._losses.append(loss)
        self._progress.update(self._task, advance=1, epoch=position.epoch, loss=f"{loss:.4f}")

    def row(self, *, batch_size: int) -> dict[str, float]:
        """Mean loss and images a second; the next row begins."""
        rate = len(self._losses) * batch_size / (time.perf_counter() - self._started)
        row = {"loss": sum(self._losses) / len(self._losses), "images_per_second": round(rate, 2)}
        self.start_row()
        return row


__all__ = ["Journal", "Steps"]
