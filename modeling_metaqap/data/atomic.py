"""Files that are either complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of another one when it is complete. What a kill left is overwritten.

    Raises:
        OSError: if the folder is missing or cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either as it was or complete, whatever happens.

    Raises:
        OSError: see `replacing`.
    """
    with replacing(path) as file:
        file.write(content)


def save_picture(picture: "Image.Image", path: Path) -> None:
    """Write a picture in the format that the ending of its name says; see `write_atomically`.

    Raises:
        OSError: see `replacing`.
        KeyError: for an ending that Pillow does not know.
    """
    from PIL import Image

    with replacing(path) as file:
        picture.save(file, format=Image.registered_extensions()[path.suffix.lower()])


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


__all__ = ["replace_files", "replacing", "save_picture", "write_atomically"]
