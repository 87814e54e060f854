"""Images of a data set that cannot be read: named, counted, and left out up to a number that the user chooses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import datasets
from accelerate.utils import gather_object

from ..data.accelerate_state import failing_together, process_state
from ..decoding_metaqap import UnreadableImage, errors_explained, to_rgb
from ..errors import DataError
from .splits import Splits

#: Names that are shown; there can be many.
_SHOWN = 20


def read_row(dataset: datasets.Dataset, index: int) -> dict[str, Any]:
    """One row of a data set, its image as 8-bit RGB.

    Raises:
        DataError: with the name of the image, if it cannot be read.
    """
    try:
        return _read(dataset, index)
    except UnreadableImage as error:
        raise DataError(f"{error} (`max_bad_images` leaves such images out).") from error


def _read(dataset: datasets.Dataset, index: int) -> dict[str, Any]:
    """As `read_row`; the `UnreadableImage` has the name of the image."""
    try:
        with errors_explained():
            row = dataset[index]
            return row | {"image": to_rgb(row["image"])}
    except UnreadableImage as error:
        raise UnreadableImage(f"The image {_name(dataset, index)} cannot be read: {error}") from error


def leave_out_bad_images(splits: Splits, *, most: int, say: Callable[[str], None]) -> Splits:
    """Look at all images of a run, each process at its share, and leave out those that cannot be read.

    All processes must call this.

    Args:
        splits: of the run.
        most: how many images may be left out of all splits together.
        say: gets a sentence with their names.

    Raises:
        DataError: if there are more.
    """
    values = {field.name: getattr(splits, field.name) for field in fields(Splits)}
    chosen = {name: value for name, value in values.items() if isinstance(value, datasets.Dataset)}
    # In pretraining a data set is there under two names.
    distinct = {id(dataset): dataset for dataset in chosen.values()}
    bad: dict[int, set[int]] = {}
    errors: list[str] = []
    for key, dataset in distinct.items():
        found = _bad_rows(dataset)
        bad[key] = {index for index, _ in found}
        errors += [error for _, error in found]
    if len(errors) > most:
        raise DataError(f"{len(errors)} images cannot be read, more than `max_bad_images` {most}. {errors[0]}.")
    if not errors:
        return splits
    say(f"Left out {len(errors)} images of {most} that may be:")
    for error in errors[:_SHOWN]:
        say(f"  {error}")
    if len(errors) > _SHOWN:
        say(f"  and {len(errors) - _SHOWN} more.")
    kept = {key: _without(dataset, bad[key]) for key, dataset in distinct.items()}
    return replace(splits, **{name: kept[id(dataset)] for name, dataset in chosen.items()})


def _bad_rows(dataset: datasets.Dataset) -> list[tuple[int, str]]:
    """Number and error of each row whose image cannot be read; the same list on every process."""
    state = process_state()

    def error_of(index: int) -> tuple[int, str] | None:
        try:
            _read(dataset, index)
        except UnreadableImage as error:
            return index, str(error)
        return None

    share = range(state.process_index, len(dataset), state.num_processes)
    with failing_together(), ThreadPoolExecutor() as pool:
        found = [error for error in pool.map(error_of, share) if error is not None]
    return sorted(gather_object(found)) if state.num_processes > 1 else found


def _without(dataset: datasets.Dataset, rows: set[int]) -> datasets.Dataset:
    return dataset.select([index for index in range(len(dataset)) if index not in rows]) if rows else dataset


def _name(dataset: datasets.Dataset, index: int) -> str:
    if "image_id" not in dataset.column_names:
        return f"of row {index}"
    return dataset.select_columns("image_id")[index]["image_id"]


__all__ = ["leave_out_bad_images", "read_row"]
