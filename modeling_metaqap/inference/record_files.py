"""Files of score records: written row by row as scores come, continued after an interruption, sorted at the end.

CSV and JSON Lines grow in place, one whole row after the other. A Parquet file can only be read when it is complete,
so its rows are kept in a JSON Lines file beside it, `scores.parquet.part`, of which it is made at the end. What the
rows were made with stands in `scores.csv.run.json`; an output is only continued with the same.
"""

import csv
import io
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from ..data.atomic import replacing, write_atomically
from ..data.locking import only_writer
from ..data.names import from_portable_name, from_spreadsheet_text, portable_name, spreadsheet_text
from ..errors import MetaQAPError
from ..installing import missing_package
from .choices import Order
from .records import NOT_VALUES, ScoreRecord, as_json, scale_title

# Fields of a record that are lists; only JSON Lines have them.
_LISTS = ("base_scores", "distortion_probabilities")

#: What each output file holds: one column for each field of a record that is a single value of the image.
COLUMNS = {column.name: column.type for column in fields(ScoreRecord) if column.name not in (*_LISTS, *NOT_VALUES)}

#: Rows of one row group of a Parquet file.
ROW_GROUP = 10_000


def cannot_write(path: Path, error: OSError) -> MetaQAPError:
    """The sentence for a file or folder that cannot be written."""
    return MetaQAPError(f"Cannot write {path}: {(error.strerror or str(error)).lower()}.")


def check_output(output: Path, *, replace: bool) -> None:
    """Refuse a file that cannot be written, before the work and without touching it.

    Args:
        output: the file.
        replace: whether it may exist.

    Raises:
        MetaQAPError: for an ending that is not known, a missing folder or package, or a file that exists or is
            read-only.
    """
    suffix = output.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".parquet"):
        raise MetaQAPError(f"The output {output} must end in .csv, .jsonl or .parquet.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MetaQAPError(missing_package("pyarrow"))
    check_writable(output)
    exists = output.exists() or (suffix == ".parquet" and _part_of(output).exists())
    if exists and not replace:
        raise MetaQAPError(
            f"There is a file {output}; replace it with --overwrite, continue it with --resume, or write to another."
        )


def check_writable(output: Path) -> None:
    """Refuse a file that cannot be written, without touching it.

    Raises:
        MetaQAPError: for a missing folder, a folder of this name, or a file or folder that is read-only.
    """
    if not output.parent.is_dir():
        raise MetaQAPError(f"Cannot write {output}: there is no folder {output.parent}.")
    if output.is_dir():
        raise MetaQAPError(f"Cannot write {output}: it is a folder.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise MetaQAPError(f"Cannot write {output}: permission denied.")


def _part_of(output: Path) -> Path:
    """Where the rows of a Parquet file are kept while it is written."""
    return output.with_name(f"{output.name}.part")


def _run_path(output: Path) -> Path:
    """Where it stands what an output was made with."""
    return output.with_name(f"{output.name}.run.json")


def write_run(output: Path, run: dict[str, Any]) -> None:
    """Write beside an output what it is made with, as JSON values by name."""
    write_atomically(_run_path(output), (json.dumps(run, indent=2) + "\n").encode())


def check_run(output: Path, run: dict[str, Any]) -> None:
    """Refuse to continue an output that was made with something else.

    Raises:
        MetaQAPError: that names what differs, or if nothing says what the output was made with.
    """
    path = _run_path(output)
    begin_anew = "leave out --resume to begin anew, or write to another file"
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MetaQAPError(
            f"{output} cannot be continued, as there is no {path.name} that says what it was made with; {begin_anew}."
        ) from None
    except ValueError:
        raise MetaQAPError(f"{path} is damaged; {begin_anew}.") from None
    for name in {**before, **run} if isinstance(before, dict) else ():
        if before.get(name) != run.get(name):
            raise MetaQAPError(
                f"{output} cannot be continued: it was made with the {name} {before.get(name)}, and now it is "
                f"{run.get(name)}; {begin_anew}."
            )


class _Row(NamedTuple):
    """A row of a file: where it begins and ends in bytes, and what it holds."""

    begin: int
    end: int
    record: ScoreRecord


class _Format(Protocol):
    """How records are rows of a text file."""

    header: bytes

    def encode(self, record: ScoreRecord) -> bytes:
        """The row with its line break."""

    def rows(self, file: IO[bytes]) -> Iterator[_Row]:
        """The whole rows, up to the end or to one that was torn.

        Raises:
            ValueError: for a row in the middle that is none.
        """


class _JsonLines:
    header = b""

    def encode(self, record: ScoreRecord) -> bytes:
        values = as_json(record) | {"path": portable_name(record.path)}
        return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def rows(self, file: IO[bytes]) -> Iterator[_Row]:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            begin, end = end, end + len(line)
            yield _Row(begin, end, _record(json.loads(line)))


class _Csv:
    header = (",".join(COLUMNS) + "\r\n").encode()

    def encode(self, record: ScoreRecord) -> bytes:
        text = io.StringIO(newline="")
        cells = (spreadsheet_text(value) if isinstance(value, str) else value for value in _values(record).values())
        csv.writer(text).writerow(cells)
        return text.getvalue().encode()

    def rows(self, file: IO[bytes]) -> Iterator[_Row]:
        end, line = 0, b""

        def lines() -> Iterator[str]:
            nonlocal end, line
            for line in file:
                end += len(line)
                yield line.decode("utf-8", "replace")

        begin = 0
        for number, cells in enumerate(csv.reader(lines())):
            if not line.endswith(b"\r\n") or len(cells) != len(COLUMNS):
                # Within quotes a torn row takes in all that follows, which is nothing.
                if end < os.fstat(file.fileno()).st_size:
                    raise ValueError(f"row {number + 1} has not {len(COLUMNS)} cells")
                return
            if number:
                values = {
                    name: None if cell == "" else from_spreadsheet_text(cell) if _kind(name) is str else cell
                    for name, cell in zip(COLUMNS, cells, strict=True)
                }
                yield _Row(begin, end, _record(values))
            begin = end


def json_line(record: ScoreRecord) -> bytes:
    """A record as a line of JSON Lines, with its line break."""
    return _JsonLines().encode(record)


def _values(record: ScoreRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in COLUMNS} | {"path": portable_name(record.path)}


def _kind(column: str) -> Callable[[Any], Any]:
    """`str`, `float` or `int`."""
    kinds = typing.get_args(COLUMNS[column]) or (COLUMNS[column],)
    return next(kind for kind in kinds if kind is not types.NoneType)


def _record(values: dict[str, Any]) -> ScoreRecord:
    if not isinstance(values, dict) or set(values) - set(_LISTS) != set(COLUMNS):
        raise ValueError("a row has other columns")
    cells: dict[str, Any] = {name: None if values[name] is None else _kind(name)(values[name]) for name in COLUMNS}
    if not all(math.isfinite(value) for value in cells.values() if isinstance(value, float)):
        raise ValueError("a number is not finite")
    lists = {
        name: None if values[name] is None else list(map(float, values[name])) for name in _LISTS if name in values
    }
    return ScoreRecord(**cells | lists | {"path": from_portable_name(cells["path"])})


def _format_of(output: Path) -> _Format:
    return _Csv() if output.suffix.lower() == ".csv" else _JsonLines()


def _rows_of(path: Path, layout: _Format) -> Iterator[_Row]:
    with path.open("rb") as file:
        try:
            yield from layout.rows(file)
        except (ValueError, TypeError, csv.Error) as error:
            raise MetaQAPError(f"{path} is damaged: {error}.") from error


def _parquet_records(path: Path) -> Iterator[ScoreRecord]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP):
        yield from map(_record, batch.to_pylist())


class RecordFile:
    """A file of records that is being written.

    Attributes:
        done: paths of the images that have a row.
        failed: how many of the rows have an error instead of a score.
        rows_path: the file that holds the rows while they are written.
    """

    def __init__(self, output: Path, *, run: dict[str, Any] | None, resume: bool):
        self.output, self.run = output, run
        self.is_parquet = output.suffix.lower() == ".parquet"
        self._format = _format_of(output)
        self.rows_path = _part_of(output) if self.is_parquet else output
        self.done: set[str] = set()
        self.failed = 0
        with errors_of(output):
            if resume and (self._has_rows() or self._is_finished_parquet()):
                self._continue()
            else:
                self._begin()

    def _begin(self) -> None:
        # In this order: rows must never stand beside a description of another run.
        _run_path(self.output).unlink(missing_ok=True)
        self._file = self.rows_path.open("wb", buffering=0)
        self._end = 0
        if self._format.header:
            self._append(self._format.header)
        if self.run is not None:
            write_run(self.output, self.run)

    def _continue(self) -> None:
        check_run(self.output, self.run or {})
        if self._is_finished_parquet():
            self._rows_from_parquet()
        end = len(self._format.header)
        for row in self.rows():
            self.done.add(row.record.path)
            self.failed += row.record.error is not None
            end = row.end
        self._file = self.rows_path.open("r+b", buffering=0)
        self._end = end
        self._file.truncate(end)
        self._file.seek(end)

    def _has_rows(self) -> bool:
        return self.rows_path.exists() and self.rows_path.stat().st_size > len(self._format.header)

    def _is_finished_parquet(self) -> bool:
        return self.is_parquet and self.output.exists() and not self.rows_path.exists()

    def rows(self) -> Iterator[_Row]:
        """The rows that were written.

        Raises:
            MetaQAPError: for a file that was changed by something else.
        """
        yield from _rows_of(self.rows_path, self._format)

    def records(self) -> Iterator[ScoreRecord]:
        """The records that were written; see `rows`."""
        return (row.record for row in self.rows())

    def write(self, record: ScoreRecord) -> None:
        """Append a row.

        Raises:
            MetaQAPError: if it cannot be written; the rows before it stay whole.
        """
        with errors_of(self.output):
            self._append(self._format.encode(record))
        self.done.add(record.path)
        self.failed += record.error is not None

    def _append(self, row: bytes) -> None:
        try:
            rest = memoryview(row)
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            # A full disk takes a part of it.
            with suppress(OSError):
                self._file.truncate(self._end)
                self._file.seek(self._end)
            raise
        self._end += len(row)

    def finish(self, order: Order = Order.input) -> None:
        """Bring the rows into an order and complete the file; a kill leaves it as it was."""
        with errors_of(self.output):
            if order is not Order.input:
                self._sort(order)
            if self.is_parquet:
                write_parquet(self.output, self.records())
                self.rows_path.unlink()

    def close(self) -> None:
        self._file.close()

    def _sort(self, order: Order) -> None:
        # Places in the file, not the rows themselves.
        places = [(sort_key(row.record, order), row.begin, row.end) for row in self.rows()]
        places.sort(key=lambda place: place[0])
        with self.rows_path.open("rb") as source, replacing(self.rows_path) as target:
            target.write(self._format.header)
            for _, begin, end in places:
                source.seek(begin)
                target.write(source.read(end - begin))

    def _rows_from_parquet(self) -> None:
        with replacing(self.rows_path) as file:
            for record in _parquet_records(self.output):
                file.write(self._format.encode(record))


def holds_records(path: str) -> bool:
    """Whether this is a file of records, by its ending; a Parquet file, which may hold images too, by its columns."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".jsonl", ".parquet") or not os.path.isfile(path):
        return False
    if suffix != ".parquet" or find_spec("pyarrow") is None:
        return suffix != ".parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(path).names) == set(COLUMNS)
    except (OSError, pa.ArrowException):
        return False


def read_records(
    path: Path, *, run: Mapping[str, str] | None = None, scale: tuple[float, float] = (0.0, 1.0)
) -> Iterator[ScoreRecord]:
    """The records of a file that `metaqap score` or [`open_records`] has written, in its order.

    Args:
        path: the file.
        run: what they were made with, their scale included; by default what `read_run` finds beside the file.
        scale: that they are on if that is not known any more.

    Raises:
        MetaQAPError: if it cannot be read or holds something else, or if its scores cannot be on that `scale`.
    """
    run = read_run(path) if run is None else run
    own_scale = _scale_of(run) if run else scale
    try:
        for record in _read(path):
            record.scale = own_scale
            if not run and record.quality is not None and not -0.5 <= record.share(record.quality) <= 1.5:
                raise MetaQAPError(
                    f"{path} has the score {record.quality:g}, which cannot be on the scale from "
                    f"{scale_title(scale)}; say with `scale` which one it is on, such as 1 5, since the .run.json of "
                    "these results is not there any more."
                )
            yield record
    except OSError as error:
        raise MetaQAPError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _scale_of(run: Mapping[str, str]) -> tuple[float, float]:
    """What `scale_title` was given."""
    low, _, high = run.get("scale", "0 to 1").partition(" to ")
    try:
        return float(low), float(high)
    except ValueError:
        return 0.0, 1.0


def _read(path: Path) -> Iterator[ScoreRecord]:
    if path.suffix.lower() == ".parquet":
        try:
            yield from _parquet_records(path)
        except (ValueError, TypeError) as error:  # of which pyarrow's are made
            raise MetaQAPError(f"{path} is damaged: {error}.") from error
        return
    layout = _format_of(path)
    with path.open("rb") as file:
        if file.read(len(layout.header)) != layout.header:
            raise MetaQAPError(f"{path} holds no results of `metaqap score`: its columns are others.")
    yield from (row.record for row in _rows_of(path, layout))


def read_run(path: Path) -> dict[str, str]:
    """What the records of a file were made with, by name; nothing where that is not known any more."""
    try:
        run = json.loads(_run_path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in run.items()} if isinstance(run, dict) else {}


def sort_key(record: ScoreRecord, order: Order) -> tuple[bool, float | bytes]:
    """What to sort records by; those without a score come last, however they are sorted by quality."""
    if order is Order.path:
        return False, os.fsencode(record.path)
    sign = 1 if order is Order.worst else -1
    return record.quality is None, sign * (record.quality or 0.0)


def write_parquet(output: Path, records: Iterable[ScoreRecord]) -> None:
    """Write a Parquet file in row groups of `ROW_GROUP`; a kill leaves the file as it was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = {str: pa.string(), float: pa.float64(), int: pa.int64()}
    schema = pa.schema([(name, arrow[_kind(name)]) for name in COLUMNS])  # type: ignore[index]
    values = (_values(record) for record in records)
    with replacing(output) as file, pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(values, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


@contextmanager
def open_records(output: Path, *, run: dict[str, Any] | None = None, resume: bool = False) -> Iterator[RecordFile]:
    """A file to write records to, in the format that its ending names.

    A file of this name is replaced at once, so open it when everything else is known to work. Call `finish` at the
    end.

    Args:
        output: `.csv`, `.jsonl` or `.parquet`.
        run: what the scores are made with, as JSON values by name; written beside the output.
        resume: keep the rows of an interrupted run of the same `run`, and append to them.

    Raises:
        MetaQAPError: as `check_output` does, for an output that cannot be continued, and for one that another process
            is writing.
    """
    check_output(output, replace=True)
    with ExitStack() as stack:
        with errors_of(output):
            stack.enter_context(only_writer(output))
        file = RecordFile(output, run=run, resume=resume)
        stack.callback(file.close)
        yield file


@contextmanager
def errors_of(output: Path) -> Iterator[None]:
    """Say of which file a failure to write is. What fails between the records has nothing to do with it."""
    try:
        yield
    except OSError as error:
        raise cannot_write(output, error) from error


__all__ = [
    "COLUMNS",
    "ROW_GROUP",
    "RecordFile",
    "cannot_write",
    "check_output",
    "check_run",
    "check_writable",
    "errors_of",
    "holds_records",
    "json_line",
    "open_records",
    "read_records",
    "read_run",
    "sort_key",
    "write_parquet",
    "write_run",
]
