"""Small pictures of photographs, to look through many of them."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image

from ..decoding_metaqap import UnreadableImage
from .decoding import read_photograph
from .records import ScoreRecord

# Photographs of records that are read at a time.
_GROUP = 32


def make_thumbnail(pixels: Image.Image, side: int) -> Image.Image:
    """A copy whose longer side has `side` pixels at most; smaller pictures keep their size."""
    small = pixels.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def with_thumbnails(
    records: Iterable[ScoreRecord], *, side: int, folder: Path, num_workers: int = 4
) -> Iterator[ScoreRecord]:
    """Finished records, with a thumbnail where the photograph is still there, in bounded memory.

    A path is looked for as it stands and below `folder`. A file whose size in pixels is not the record's is another
    photograph, and the record stays without a thumbnail, as it does for images in archives and elsewhere.

    Args:
        records: as `read_records` gives them.
        side: of the longer side in pixels.
        folder: where the file of records lies.
        num_workers: threads that decode images.
    """
    records = iter(records)

    def complete(record: ScoreRecord) -> ScoreRecord:
        record.thumbnail = _find(record, side, folder)
        return record

    with ThreadPoolExecutor(num_workers) as pool:
        while group := list(islice(records, _GROUP)):
            yield from pool.map(complete, group)


def _find(record: ScoreRecord, side: int, folder: Path) -> Image.Image | None:
    for path in (record.path, os.path.join(folder, record.path)):
        if record.error is None and os.path.isfile(path):
            try:
                photograph = read_photograph(path, shortest_edge=side)
            except UnreadableImage:
                continue
            if (photograph.width, photograph.height) == (record.width, record.height):
                return make_thumbnail(photograph.pixels, side)
    return None


__all__ = ["make_thumbnail", "with_thumbnails"]
