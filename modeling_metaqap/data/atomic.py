"""Files that are either complete or not there."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either as it was or complete, whatever happens. What a kill left is overwritten.

    Raises:
        OSError: if the folder is missing or cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def replace_files(source: Path, target: Path) -> None:
    """Move the files of one folder into another of the same disk, over those of the same names.

    Each file there is either the old or the new one, whole, whatever happens.

    Raises:
        OSError: if a folder is missing or cannot be written to.
    """
    for file in sorted(source.iterdir()):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.replace(target / file.name)


__all__ = ["replace_files", "write_atomically"]
