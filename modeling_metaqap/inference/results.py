"""Finished results as one table: files of records, and folders of the shards that several processes have written."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .record_files import holds_records, read_records, read_run
from .records import ScoreRecord
from .shards import is_unfinished, output_of
from .thumbnails import with_thumbnails


def results_in(places: Iterable[str]) -> list[Path]:
    """The files of records that places are; nothing if one of them is something else.

    Args:
        places: as `find_places` gives them, which makes the shards of a folder.
    """
    files = []
    for place in places:
        if is_unfinished(os.path.basename(place)):
            continue
        if not holds_records(place):
            return []
        files.append(Path(place))
    return files


def read_results(
    files: Iterable[Path], *, scale: tuple[float, float] = (0.0, 1.0), thumbnail: int
) -> Iterator[ScoreRecord]:
    """The records of several files, with a thumbnail where the photograph is still there, in bounded memory.

    Args:
        files: as `results_in` gives them.
        scale: of the scores where it is not known any more, see `read_records`.
        thumbnail: its longer side in pixels.

    Raises:
        MetaQAPError: see `read_records`.
    """
    for file in files:
        output = output_of(file)
        records = read_records(file, run=read_run(output), scale=scale)
        yield from with_thumbnails(records, side=thumbnail, folder=output.parent)


def describe_results(files: Sequence[Path]) -> dict[str, str]:
    """What results are called and were made with, by name; of several outputs, what they have in common."""
    outputs = list(dict.fromkeys(map(output_of, files)))
    others = f" and {len(outputs) - 1:,} more" if outputs[1:] else ""
    first, *rest = map(read_run, outputs)
    common = {name: value for name, value in first.items() if all(run.get(name) == value for run in rest)}
    return {"results": f"{outputs[0].name}{others}", **common}


__all__ = ["describe_results", "read_results", "results_in"]
