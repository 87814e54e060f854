"""Scores of many photographs as a folder of Parquet files, which processes write that know nothing of one another.

The folder is one table for pandas and `datasets`. Each unit of the work has shards of its own, named by the unit, so
whoever scores it again writes the same files over them: nothing stands there twice, even if a process that was
believed dead goes on. A shard is complete or not there. The last shard of a unit says in its name that it is the last
one. What the scores are made with stands in `FOLDER.run.json`, as for a single file of records.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ..data.image_places import kind_of
from ..data.image_units import ImageUnit
from ..data.names import from_portable_name
from ..errors import MetaQAPError
from ..installing import missing_package
from .record_files import check_run, errors_of, write_parquet, write_run
from .records import ScoreRecord

#: Rows of a shard at most: what is scored again when a process dies.
SHARD_ROWS = 1000

_NAME = re.compile(r"(?P<task>\d{6,}-(?P<key>[0-9a-f]{20}))-\d{5,}(?P<last>-last)?\.parquet")
_UNFINISHED = re.compile(r"\.+\d{6,}-[0-9a-f]{20}-")


class Tally(NamedTuple):
    """Rows, and how many of them have an error instead of a score."""

    rows: int = 0
    failed: int = 0


@dataclass(frozen=True)
class ShardTask:
    """A unit that is to be scored.

    Attributes:
        position: of the unit among all, so that the shards sorted by their names are in the order of the places.
        unit: photographs to score.
        skip: names of those that have a row already, in shards of other units.
    """

    position: int
    unit: ImageUnit
    skip: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the names of its shards begin with."""
        return f"{self.position:06}-{self.unit.key}"

    def to_json(self) -> str:
        """Text to send to another process; names may hold any bytes."""
        span = None if self.unit.span is None else [self.unit.span.start, self.unit.span.stop]
        return json.dumps([self.position, self.unit.places, span, self.skip])

    @classmethod
    def from_json(cls, text: str) -> "ShardTask":
        """What `to_json` has written."""
        position, places, span, skip = json.loads(text)
        unit = ImageUnit(tuple(places), None if span is None else range(*span))
        return cls(position, unit, tuple(skip))


def check_folder(folder: Path, *, replace: bool) -> None:
    """Refuse a folder that shards cannot be written to, before the work and without touching it.

    Args:
        folder: need not be there.
        replace: whether it may hold shards.

    Raises:
        MetaQAPError: for the name of a file, a folder with other files, a missing folder above it, or missing rights.
    """
    if find_spec("pyarrow") is None:
        raise MetaQAPError(missing_package("pyarrow"))
    if folder.suffix.lower() in (".csv", ".jsonl", ".parquet"):
        raise MetaQAPError(f"Several processes write a folder of Parquet files; name a folder, not {folder}.")
    if not folder.parent.is_dir():
        raise MetaQAPError(f"Cannot write {folder}: there is no folder {folder.parent}.")
    if folder.exists() and not folder.is_dir():
        raise MetaQAPError(f"Cannot write {folder}: it is a file.")
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        raise MetaQAPError(f"Cannot write {folder}: permission denied.")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if other := [name for name in names if not _NAME.fullmatch(name) and not name.startswith(".")]:
        raise MetaQAPError(f"The folder {folder} holds other files, such as {min(other)}; name an empty or a new one.")
    if names and not replace:
        raise MetaQAPError(
            f"There are scores in {folder}; replace them with --overwrite, continue them with --resume, or write to "
            f"another folder."
        )


def begin_shards(folder: Path, *, run: dict[str, Any], resume: bool) -> None:
    """Make a folder ready for shards of a run: empty, or with those of the same run.

    Raises:
        MetaQAPError: if it holds shards that were made with something else, or cannot be written.
    """
    with errors_of(folder):
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if is_unfinished(path.name):  # what a kill left
                path.unlink(missing_ok=True)
        shards = _shards(folder)
        if resume and shards:
            check_run(folder, run)
            return
        for shard in shards:
            shard.unlink()
        write_run(folder, run)


def open_tasks(folder: Path, units: Sequence[ImageUnit]) -> list[ShardTask]:
    """What is left to do of the units, in their order.

    Units that are finished are recognised by the names of their shards. Shards of units that there are no more, after
    photographs were added, are read: what has a row there is not scored again.
    """
    tasks = [ShardTask(position, unit) for position, unit in enumerate(units)]
    names = {task.name for task in tasks}
    keys = {task.unit.key for task in tasks}
    shards = [(shard, _parts(shard)) for shard in _shards(folder)]
    finished = {parts["key"] for _, parts in shards if parts["last"]} & keys
    others = [shard for shard, parts in shards if parts["task"] not in names and parts["key"] not in finished]
    tasks = [task for task in tasks if task.unit.key not in finished]
    return _without(tasks, done=(name for shard in others for name in names_in(shard)))


def _without(tasks: list[ShardTask], *, done: Iterable[str]) -> list[ShardTask]:
    """The tasks, told which of their photographs have a row elsewhere."""
    skip: dict[int, list[str]] = {}
    owners: dict[str, list[int]] | None = None
    for name in done:
        if owners is None:
            owners = {}
            for index, task in enumerate(tasks):
                for place in task.unit.places:
                    owners.setdefault(place, []).append(index)
        # `photos.zip::a.jpg` lies in `photos.zip`.
        ends = [match.start() for match in re.finditer("::", name)]
        for place in (name, *(name[:end] for end in ends)):
            for index in owners.get(place, ()):
                skip.setdefault(index, []).append(name)
    left = []
    for index, task in enumerate(tasks):
        names = skip.get(index, [])
        if set(names) >= set(task.unit.places) and not kind_of(task.unit.places[0]).holds_many:
            continue
        left.append(ShardTask(task.position, task.unit, tuple(names)))
    return left


def score_task(
    folder: Path,
    task: ShardTask,
    score: Callable[[set[str]], Iterable[ScoreRecord]],
) -> Tally:
    """Score a unit into its shards; those that a process has written which died are kept.

    Args:
        folder: of the shards.
        task: what to score.
        score: gives the records of the unit's photographs without those of these names.

    Returns:
        What was added.

    Raises:
        MetaQAPError: if a shard cannot be written.
    """
    skip = set(task.skip)
    for number in count():
        shard = folder / f"{task.name}-{number:05}.parquet"
        if _last(shard).exists():
            return Tally()
        if not shard.exists():
            break
        skip.update(names_in(shard))
    rows = failed = 0
    chunk: list[ScoreRecord] = []
    for record in score(skip):
        if len(chunk) == SHARD_ROWS:
            _write(shard, chunk)
            chunk, number = [], number + 1
            shard = folder / f"{task.name}-{number:05}.parquet"
        record.base_scores = record.distortion_probabilities = record.distances = (
            None  # not written, and thousands take memory
        )
        chunk.append(record)
        rows += 1
        failed += record.error is not None
    _write(_last(shard), chunk)
    return Tally(rows, failed)


def begin_try(folder: Path, task: ShardTask) -> int:
    """Note that a unit is begun, and say how many times it was since `begin_shards`; `end_tries` forgets it.

    Raises:
        MetaQAPError: if that cannot be written.
    """
    with errors_of(folder), _tries(folder, task).open("ab") as file:
        file.write(b".")
        return file.tell()


def end_tries(folder: Path, task: ShardTask) -> None:
    """Forget how often a unit was begun, when it is finished."""
    _tries(folder, task).unlink(missing_ok=True)


def _tries(folder: Path, task: ShardTask) -> Path:
    return folder / f".{task.name}-tries"


def _last(shard: Path) -> Path:
    return shard.with_name(f"{shard.stem}-last.parquet")


def _write(shard: Path, records: list[ScoreRecord]) -> None:
    # Of its own, since another process may be at the same shard. Readers of a table leave out names with a dot.
    temporary = shard.with_name(f".{shard.stem}-{secrets.token_hex(4)}.parquet")
    with errors_of(shard):
        try:
            write_parquet(temporary, records)
            temporary.replace(shard)
        finally:
            temporary.unlink(missing_ok=True)


def count_rows(folder: Path) -> Tally:
    """Rows of all shards; only their footers are read.

    Raises:
        MetaQAPError: for a shard that is damaged.
    """
    import pyarrow.parquet as pq

    rows = failed = 0
    for shard in _shards(folder):
        with _readable(shard):
            footer = pq.read_metadata(shard)
        rows += footer.num_rows
        column = footer.schema.names.index("error")
        for group in map(footer.row_group, range(footer.num_row_groups)):
            failed += group.num_rows - group.column(column).statistics.null_count
    return Tally(rows, failed)


def names_in(shard: Path) -> Iterator[str]:
    """Names of the photographs that have a row in a shard.

    Raises:
        MetaQAPError: if it is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(shard):
        names = pq.read_table(shard, columns=["path"]).column(0).to_pylist()
    return map(from_portable_name, names)


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise MetaQAPError(f"{shard} is damaged; delete it and continue with --resume.") from error


def output_of(file: Path) -> Path:
    """What a file of records is the result of: the folder that it is a shard of by its name, or the file itself."""
    return file.absolute().parent if _NAME.fullmatch(file.name) else file


def is_unfinished(name: str) -> bool:
    """Whether a file of this name belongs to a shard that is being written, or that a kill has left."""
    return _UNFINISHED.match(name) is not None


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _parts(shard: Path) -> dict[str, Any]:
    found = _NAME.fullmatch(shard.name)
    assert found is not None
    return found.groupdict()


__all__ = [
    "SHARD_ROWS",
    "ShardTask",
    "Tally",
    "begin_shards",
    "begin_try",
    "check_folder",
    "count_rows",
    "end_tries",
    "is_unfinished",
    "names_in",
    "open_tasks",
    "output_of",
    "score_task",
]
