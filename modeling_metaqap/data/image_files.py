"""Image files on disk: which file names count as images, and how paths, folders and patterns are expanded to them.

Imports nothing heavy, so that a mistyped path is answered at once.
"""

import glob
from collections.abc import Iterable
from pathlib import Path

from ..errors import MetaQAPError

#: File name endings that a folder is searched for, in lower case.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .png .ppm .pgm .tga .tif .tiff .webp".split()
)


def is_image_file(path: Path) -> bool:
    """Whether this is a file whose name ends as an image's does."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def find_images(paths: Iterable[str], *, recursive: bool = False) -> list[str]:
    """Expand files, folders and globs to a list of image files without repetition, folders in sorted order.

    Args:
        paths: files (of any name), folders (searched for `IMAGE_SUFFIXES`) and glob patterns.
        recursive: also search the folders' sub-folders.

    Raises:
        MetaQAPError: for a path that does not exist, a pattern without a match or a folder without images.
    """
    found: dict[str, None] = {}
    for path in paths:
        if Path(path).is_dir():
            candidates = Path(path).rglob("*") if recursive else Path(path).glob("*")
            files = sorted(str(file) for file in candidates if is_image_file(file))
            if not files:
                hint = "" if recursive else "; add --recursive to search its sub-folders"
                raise MetaQAPError(f"The folder {path} holds no images{hint}.")
        elif Path(path).exists():
            files = [path]
        elif glob.has_magic(path):
            files = sorted(file for file in glob.glob(path, recursive=recursive) if Path(file).is_file())
            if not files:
                raise MetaQAPError(f"No file matches {path}.")
        else:
            raise MetaQAPError(f"There is no file or folder {path}.")
        found |= dict.fromkeys(files)
    return list(found)


__all__ = ["IMAGE_SUFFIXES", "find_images", "is_image_file"]
