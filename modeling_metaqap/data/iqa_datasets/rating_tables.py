"""A person's own CSV file of ratings: which file it is, its columns, and what it says of each image."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..rating_options import RatingOptions, checked_range
from .files import parse_score, read_csv

#: Names under which a column is recognised, the first one first, in any case.
IMAGE_COLUMNS = ("file_name", "image_name", "image name", "image_id", "image", "filename", "name", "path")
MOS_COLUMNS = ("mos", "dmos", "score", "quality", "rating")
STD_COLUMNS = ("mos_std", "std", "sd")
REFERENCE_COLUMNS = ("reference_id", "reference", "ref_img")
SPLIT_COLUMNS = ("split", "set")
RATER_COLUMNS = ("rater", "rater_id", "user", "user_id", "observer", "worker", "worker_id", "participant")

_TITLE = "ratings"

# Scales that ratings are often given on.
_USUAL_RANGES = ((1, 5), (0, 5), (1, 7), (0, 10), (1, 10), (0, 100))


@dataclass(frozen=True, kw_only=True)
class RatedImage:
    """What a file says of one image.

    Attributes:
        name: of the image, with slashes.
        mos: its mean rating.
        mos_std: standard deviation of the raters' ratings, where it is known.
        reference_id: of what it is a version, where that is said.
        split: as the file has it; None where there is no such column.
    """

    name: str
    mos: float
    mos_std: float | None
    reference_id: str | None
    split: str | None


@dataclass(frozen=True, kw_only=True)
class RatingTable:
    """A file of ratings.

    Attributes:
        path: of the file.
        images: each once.
        mos_range: lowest and highest rating that a rater could give.
        has_splits: whether the file puts images into splits.
    """

    path: Path
    images: list[RatedImage]
    mos_range: tuple[float, float]
    has_splits: bool


def known_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column that has the first of some names that there is, in any case."""
    folded = {column.casefold(): column for column in columns}
    return next((folded[name] for name in names if name in folded), None)


def choose_column(path: Path, columns: Sequence[str], option: str, chosen: str | None, names: Sequence[str]) -> str:
    """The column that was chosen by an option, or else the one with a usual name.

    Raises:
        DataError: if there is none.
    """
    column = known_column(columns, names) if chosen is None else chosen
    if column is None or column not in columns:
        what = f"no column {chosen!r}" if chosen else f"none of the columns {', '.join(names)}"
        raise DataError(f"{path} has {what}; choose `{option}` from {', '.join(columns)}.")
    return column


def find_csv(folder: Path, csv: str | Path | None) -> Path:
    """The file with the ratings of the images in a folder.

    Args:
        folder: with the images.
        csv: as everywhere in a shell, relative to the working directory, or for convenience to the folder; None for
            the only one in the folder.

    Raises:
        DataError: if there is no such folder or file, or several.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist.")
    if csv is not None:
        path = Path(csv).expanduser()
        path = path.absolute() if os.path.isfile(path) else folder / path
        if not os.path.isfile(path):  # also if the name is too long
            raise DataError(f"The label file {path} does not exist.")
        return path
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must hold one CSV file (found: {names}); name the one with the scores with `csv`.")
    return found[0]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file, at least one.

    Raises:
        DataError: if there is none, or it is no CSV file.
    """
    rows = read_csv(path, columns=(), title=_TITLE)
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def read_table(path: Path, options: RatingOptions, *, rows: list[dict[str, str]] | None = None) -> RatingTable:
    """Read mean ratings, or one row for each rating with a column `rater`, whose mean counts.

    Rows without a rating are left out.

    Args:
        path: of the file.
        options: its columns and its scale; the other options have no say here.
        rows: of the file, if they have been read already.

    Raises:
        DataError: for a file that cannot be understood, in one sentence.
    """
    rows = read_rows(path) if rows is None else rows
    columns = list(rows[0])
    image_column = choose_column(path, columns, "image_column", options.image_column, IMAGE_COLUMNS)
    mos_column = choose_column(path, columns, "mos_column", options.mos_column, MOS_COLUMNS)
    rater_column, std_column, reference_column, split_column = (
        known_column(columns, names) for names in (RATER_COLUMNS, STD_COLUMNS, REFERENCE_COLUMNS, SPLIT_COLUMNS)
    )
    scores: dict[str, list[float]] = defaultdict(list)
    raters: dict[str, set[str]] = defaultdict(set)
    last: dict[str, dict[str, str]] = {}
    for row in rows:
        if not row[mos_column]:
            continue
        name = row[image_column].replace("\\", "/")
        if rater_column is None and name in scores:
            raise DataError(
                f"{path} has more than one row for {name}; keep one, or say in a column `rater` whose rating each is."
            )
        if rater_column is not None:
            if row[rater_column] in raters[name]:
                raise DataError(f"{path} has more than one rating of {name} by the rater {row[rater_column]!r}.")
            raters[name].add(row[rater_column])
        score = parse_score(row[mos_column], what=name, path=path, title=_TITLE)
        if not math.isfinite(score):
            raise DataError(f"{path} has the rating {row[mos_column]!r} for {name}, which is not a number.")
        scores[name].append(score)
        last[name] = row
    if not scores:
        raise DataError(f"{path} has no ratings.")

    def deviation(name: str) -> float | None:
        if rater_column is not None:
            return float(np.std(scores[name], ddof=1)) if len(scores[name]) > 1 else None
        text = "" if std_column is None else last[name][std_column]
        return parse_score(text, what=name, path=path, title=_TITLE) if text else None

    return RatingTable(
        path=path,
        images=[
            RatedImage(
                name=name,
                mos=float(np.clip(np.mean(several), min(several), max(several))),  # whatever rounding does
                mos_std=deviation(name),
                reference_id=(last[name][reference_column] or None) if reference_column else None,
                split=last[name][split_column] if split_column else None,
            )
            for name, several in scores.items()
        ],
        mos_range=_range_of(path, [score for several in scores.values() for score in several], options.mos_range),
        has_splits=split_column is not None,
    )


def _range_of(path: Path, scores: Sequence[float], mos_range: tuple[float, float] | None) -> tuple[float, float]:
    """The range that was chosen, or 0 to 1 if all ratings lie there."""
    lowest, highest = min(scores), max(scores)
    low, high = (0.0, 1.0) if mos_range is None else checked_range(mos_range)
    if low <= lowest and highest <= high:
        return low, high
    if mos_range is not None:
        raise DataError(
            f"The ratings in {path} run from {lowest:g} to {highest:g}, outside of the range {low:g} to {high:g}; say "
            "with `mos_range` which lowest and highest rating a rater could give."
        )
    usual = next((one for one in _USUAL_RANGES if one[0] <= lowest and highest <= one[1]), None)
    low, high = usual or (math.floor(lowest), math.ceil(highest))
    raise DataError(
        f"The ratings in {path} run from {lowest:g} to {highest:g}; say with `mos_range` which lowest and highest "
        f"rating a rater could give, such as `mos_range` {low} {high}."
    )


__all__ = [
    "IMAGE_COLUMNS",
    "RatedImage",
    "RatingTable",
    "choose_column",
    "find_csv",
    "known_column",
    "read_rows",
    "read_table",
]
