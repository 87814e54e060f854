"""Scoring in the processes that `accelerate launch` starts, one for each GPU: every process takes its share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .shards import ShardTask, Tally
from .sharing import ScoringOptions

if TYPE_CHECKING:
    from .scorer import Scorer

# A process that has finished its share waits for the others. One that dies ends all, by the launcher.
_PATIENCE = timedelta(days=30)


class ProcessShare:
    """This process among those that score together.

    Attributes:
        is_main: whether it is the one that prepares the folder and prints.
    """

    def __init__(self) -> None:
        from accelerate import PartialState

        from ..data.accelerate_state import process_state, without_accelerator

        PartialState(cpu=without_accelerator(), timeout=_PATIENCE)
        self._state = process_state()
        self.is_main = self._state.is_main_process

    def make_scorer(self, options: ScoringOptions) -> "Scorer":
        """A scorer on this process's device; the main process is first, and makes the file of ONNX Runtime if it pays.

        Raises:
            MetaQAPError: in all processes, if one of them cannot make it.
        """
        from ..data.accelerate_state import main_process_first

        alone = self._state.num_processes == 1
        device = options.device if alone or options.device is not None else str(self._state.device)
        return main_process_first(replace(options, device=device).make_scorer)

    def begin(self, begin: Callable[[], None]) -> None:
        """Let the main process begin, and the others after it.

        Raises:
            MetaQAPError: in all processes, if that fails.
        """
        from ..data.accelerate_state import failing_together

        with failing_together():
            if self.is_main:
                begin()

    def part_of(self, tasks: Iterable[ShardTask]) -> list[ShardTask]:
        """The tasks of this process.

        They go by the place of a unit among all, finished ones included, so that the processes agree whenever each of
        them looks at the folder.
        """
        return [task for task in tasks if task.position % self._state.num_processes == self._state.process_index]

    def score(
        self, tasks: Sequence[ShardTask], options: ScoringOptions, scorer: "Scorer", folder: Path
    ) -> Iterator[Tally]:
        """Score this process's part of the tasks into shards; yields what each has added."""
        for task in self.part_of(tasks):
            yield options.score_task(scorer, folder, task)

    def wait_for_all(self) -> None:
        """Return when every process is done with its part."""
        if self._state.num_processes > 1:
            from accelerate.utils import gather_object

            gather_object([None])


__all__ = ["ProcessShare"]
