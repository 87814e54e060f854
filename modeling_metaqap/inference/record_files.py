"""Writes score records to a CSV, JSON Lines or Parquet file, one by one as they come."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MetaQAPError
from .records import ScoreRecord

#: What an output file holds: one column for each field of a record that is a single value of the image.
COLUMNS = {
    column.name: column.type
    for column in fields(ScoreRecord)
    if column.name not in ("interval_coverage", "base_scores", "distortion_probabilities", "quality_map")
}


def cannot_write(path: Path, error: OSError) -> MetaQAPError:
    """The sentence for a file or folder that cannot be written."""
    return MetaQAPError(f"Cannot write {path}: {(error.strerror or str(error)).lower()}.")


def check_output(output: Path) -> None:
    """Refuse a file that `record_writer` could not write, before the work and without touching it.

    Raises:
        MetaQAPError: for an ending that is not known, a missing folder or package, or a file that is read-only.
    """
    suffix = output.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".parquet"):
        raise MetaQAPError(f"The output {output} must end in .csv, .jsonl or .parquet.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MetaQAPError("Writing Parquet needs pyarrow; install it with `pip install pyarrow`.")
    if not output.parent.is_dir():
        raise MetaQAPError(f"Cannot write {output}: there is no folder {output.parent}.")
    if output.is_dir():
        raise MetaQAPError(f"Cannot write {output}: it is a folder.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise MetaQAPError(f"Cannot write {output}: permission denied.")


@contextmanager
def record_writer(output: Path | None) -> Iterator[Callable[[ScoreRecord], None]]:
    """A function that writes one record to the file, in the format that its ending names.

    A file of this name is replaced at once, so open it when everything else is known to work.

    Raises:
        MetaQAPError: as `check_output` does.
    """
    if output is None:
        yield lambda record: None
        return
    check_output(output)
    open_writer = {".csv": _csv_writer, ".jsonl": _jsonl_writer, ".parquet": _parquet_writer}[output.suffix.lower()]
    resources = ExitStack()
    with _errors_of(output):
        write = resources.enter_context(open_writer(output))

    def write_record(record: ScoreRecord) -> None:
        with _errors_of(output):
            write(record)

    try:
        yield write_record
    finally:
        with _errors_of(output):
            resources.close()


@contextmanager
def _errors_of(output: Path) -> Iterator[None]:
    """Say of which file a failure to write is. What fails between the records has nothing to do with it."""
    try:
        yield
    except OSError as error:
        raise cannot_write(output, error) from error


def _row(record: ScoreRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in COLUMNS}


@contextmanager
def _csv_writer(output: Path) -> Iterator[Callable[[ScoreRecord], None]]:
    with output.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()

        def write(record: ScoreRecord) -> None:
            rows.writerow(_row(record))
            file.flush()

        yield write


@contextmanager
def _jsonl_writer(output: Path) -> Iterator[Callable[[ScoreRecord], None]]:
    with output.open("w", encoding="utf-8") as file:

        def write(record: ScoreRecord) -> None:
            file.write(json.dumps(_row(record), ensure_ascii=False) + "\n")
            file.flush()

        yield write


@contextmanager
def _parquet_writer(output: Path) -> Iterator[Callable[[ScoreRecord], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), str | None: pa.string(), float | None: pa.float64(), int | None: pa.int64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])  # type: ignore[index]
    records: list[dict[str, Any]] = []
    with pq.ParquetWriter(output, schema) as file:

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(records, schema=schema))
            records.clear()

        def write(record: ScoreRecord) -> None:
            records.append(_row(record))
            if len(records) >= 1000:
                flush()

        try:
            yield write
        finally:
            if records:
                flush()


__all__ = ["COLUMNS", "cannot_write", "check_output", "record_writer"]
