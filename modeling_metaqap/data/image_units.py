"""Shares of the work for many processes: places of photographs -> units that one process at a time scores.

A unit is a batch of single photographs, a whole archive or table, or a part of one that can be read by itself. The
units follow from the places alone, not from the number of processes, so a run that goes on finds the same ones.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .image_places import kind_of
from .stored_images import span_ends

# A unit takes a process some seconds at least and some minutes at most, and of many photographs there are about so
# many units.
_SMALLEST, _LARGEST, _UNITS = 16, 1000, 200

# Of so many archives each is a unit of its own; looking into each of them to cut it would take long.
_MANY_ARCHIVES = 100


@dataclass(frozen=True)
class ImageUnit:
    """Photographs that are scored together.

    Attributes:
        places: single photographs, or one archive; see `find_places`.
        span: numbers of the archive's images; None for all.
    """

    places: tuple[str, ...]
    span: range | None = None

    @property
    def key(self) -> str:
        """The same for the same photographs, whatever unit comes before."""
        text = "\0".join(self.places) if self.span is None else f"{self.places[0]}\0{self.span.start}-{self.span.stop}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:20]


def split_into_units(places: Sequence[str]) -> list[ImageUnit]:
    """Share places out into units, in their order.

    Args:
        places: as `find_places` gives them.
    """
    is_archive = [kind_of(place).holds_many for place in places]
    cut_archives = sum(is_archive) < _MANY_ARCHIVES
    size = _unit_size(is_archive.count(False))
    units: list[ImageUnit] = []
    batch: list[str] = []

    def close_batch() -> None:
        if batch:
            units.append(ImageUnit(tuple(batch)))
            batch.clear()

    for place, holds_many in zip(places, is_archive, strict=True):
        if holds_many:
            close_batch()
            units += _parts_of(place) if cut_archives else [ImageUnit((place,))]
            continue
        batch.append(place)
        if len(batch) == size:
            close_batch()
    close_batch()
    return units


def _unit_size(count: int) -> int:
    return min(_LARGEST, max(_SMALLEST, count // _UNITS))


def _parts_of(place: str) -> Iterable[ImageUnit]:
    ends = span_ends(place)
    if ends is None or ends[-1] <= _SMALLEST:
        return [ImageUnit((place,))]
    return [ImageUnit((place,), span) for span in _spans(ends, size=_unit_size(ends[-1]))]


def _spans(ends: Sequence[int], *, size: int) -> Iterator[range]:
    """Spans of at least `size`, the last one excepted, that end at some of `ends`."""
    start = 0
    for end in ends:
        if end - start >= size or (end == ends[-1] and end > start):
            yield range(start, end)
            start = end


__all__ = ["ImageUnit", "split_into_units"]
