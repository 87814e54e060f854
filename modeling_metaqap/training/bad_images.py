"""Images of a data set that cannot be read: named, counted, and left out up to a number that the user chooses."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import datasets
from accelerate.utils import gather_object

from ..crops_metaqap import SHORTEST_EDGE
from ..data.accelerate_state import failing_together, process_state
from ..decoding_metaqap import UnreadableImage, errors_explained, read_rgb
from ..errors import DataError
from .splits import Splits

#: Names that are shown; there can be many.
_SHOWN = 20

#: A data set, or rows with images of Pillow.
Rows: TypeAlias = datasets.Dataset | Sequence[dict[str, Any]]


def as_stored(dataset: Rows) -> Rows:
    """The rows with their image files as they are, for `read_row`: `datasets` would decode all pixels of each."""
    if isinstance(dataset, datasets.Dataset):
        return dataset.cast_column("image", datasets.Image(decode=False))
    return dataset


def read_row(dataset: Rows, index: int, *, shortest_edge: int | None = SHORTEST_EDGE) -> dict[str, Any]:
    """One row of a data set, its image as 8-bit RGB.

    Args:
        dataset: what `as_stored` gave.
        index: of the row.
        shortest_edge: that the image will be shrunk to, see `read_image`.

    Raises:
        DataError: with the name of the image, if it cannot be read.
    """
    try:
        return _read(dataset, index, shortest_edge)
    except UnreadableImage as error:
        raise DataError(f"{error} (`max_bad_images` leaves such images out).") from error


def _read(dataset: Rows, index: int, shortest_edge: int | None) -> dict[str, Any]:
    """As `read_row`; the `UnreadableImage` has the name of the image."""
    try:
        with errors_explained():
            row = dataset[index]
            image = row["image"]
            if isinstance(image, dict):
                image = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
            return row | {"image": read_rgb(image, shortest_edge=shortest_edge)}
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
    bad: dict[int, set[int]] = {}
    errors: list[str] = []
    for dataset in splits.all:
        found = _bad_rows(dataset)
        bad[id(dataset)] = {index for index, _ in found}
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
    return splits.changed(lambda dataset: _without(dataset, bad[id(dataset)]))


def _bad_rows(dataset: datasets.Dataset) -> list[tuple[int, str]]:
    """Number and error of each row whose image cannot be read; the same list on every process."""
    state, stored = process_state(), as_stored(dataset)

    def error_of(index: int) -> tuple[int, str] | None:
        try:
            _read(stored, index, SHORTEST_EDGE)
        except UnreadableImage as error:
            return index, str(error)
        return None

    share = range(state.process_index, len(dataset), state.num_processes)
    with failing_together(), ThreadPoolExecutor() as pool:
        found = [error for error in pool.map(error_of, share) if error is not None]
    return sorted(gather_object(found)) if state.num_processes > 1 else found


def _without(dataset: datasets.Dataset, rows: set[int]) -> datasets.Dataset:
    return dataset.select([index for index in range(len(dataset)) if index not in rows]) if rows else dataset


def _name(dataset: Rows, index: int) -> str:
    if not isinstance(dataset, datasets.Dataset) or "image_id" not in dataset.column_names:
        return f"of row {index}"
    return dataset.select_columns("image_id")[index]["image_id"]


__all__ = ["Rows", "as_stored", "leave_out_bad_images", "read_row"]
