"""The files of measurements: rows of figures as JSON, kept and replaced row by row, and predictions as CSV."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..data.atomic import write_atomically
from ..data.names import portable_name, spreadsheet_text
from ..errors import MetaQAPError
from .evaluating import Measurement
from .tables import Row


def read_results(path: Path) -> list[Row]:
    """Rows of a results file; none if it does not exist.

    Raises:
        MetaQAPError: It is not a results file.
    """
    try:
        rows = json.loads(path.read_text())["results"]
        return [row for row in rows if _key(row)]
    except FileNotFoundError:
        return []
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise MetaQAPError(f"{path} is not a results file; move it away or name another one.") from error


def merge_results(rows: Sequence[Row], new: Iterable[Row]) -> list[Row]:
    """`rows` with the new ones: in the place of a row about the same checkpoint, data set and split, or at the end."""
    merged = {_key(row): row for row in rows}
    merged |= {_key(row): row for row in new}
    return list(merged.values())


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as JSON, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps({"results": rows}, indent=2, allow_nan=False) + "\n").encode())


def write_predictions(path: Path, measurement: Measurement) -> None:
    """One line for each image: id, predicted quality and opinion score as quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of files can be formulas to a spreadsheet.
    names = [spreadsheet_text(portable_name(name)) for name in measurement.image_ids]
    columns = (names, measurement.predictions.tolist(), measurement.qualities.tolist())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "prediction", "quality"])
        writer.writerows(zip(*columns, strict=True))


def file_stem(row: Row) -> str:
    """`"best-livec-test_0"`: the start of the names of a row's files."""
    return re.sub(r"[^\w.+-]+", "-", f"{row['checkpoint']}-{row['dataset']}-{row['split']}").strip("-.")


def _key(row: Row) -> tuple[str, str, str]:
    return row["checkpoint"], row["dataset"], row["split"]


__all__ = ["file_stem", "merge_results", "read_results", "write_predictions", "write_results"]
