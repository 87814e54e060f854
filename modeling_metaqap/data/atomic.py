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


__all__ = ["write_atomically"]
