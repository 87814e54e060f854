"""Image files on disk: which file names count as images, and how paths, folders and patterns are expanded to them.

Imports nothing heavy, so that a mistyped path is answered at once.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from ..errors import MetaQAPError
from ..installing import how_to_install
from .names import shown_name

_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_READS_HEIF = find_spec("pillow_heif") is not None

#: File name endings that a folder is searched for, in lower case.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .png .ppm .pgm .tga .tif .tiff .webp".split()
) | (_HEIF_SUFFIXES if _READS_HEIF else frozenset())

# Photographs that are not read: JPEG XL, cameras' raw files and, without its package, HEIF.
_UNREAD_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .jxl .nef .nrw .orf .pef .raf .raw .rw2 .srw .x3f".split()
) | (_HEIF_SUFFIXES - IMAGE_SUFFIXES)


def is_image_file(path: Path) -> bool:
    """Whether this is a file whose name ends as an image's does."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def find_images(paths: Iterable[str], *, recursive: bool = False) -> list[str]:
    """Expand files, folders and globs to a list of image files without repetition, folders in sorted order.

    What is named as an image in a folder but is none, such as a broken link or a pipe, is in the list too: whoever
    reads the images says so.

    Args:
        paths: files (of any name), folders (searched for `IMAGE_SUFFIXES`) and glob patterns.
        recursive: also search the folders' sub-folders.

    Raises:
        MetaQAPError: for a path that does not exist, a pattern without a match or a folder without images.
    """
    found: dict[str, None] = {}
    for path in paths:
        if os.path.isdir(path):
            files = files_in_folder(path, IMAGE_SUFFIXES, recursive=recursive)
            if not files:
                unread = unread_photographs([path], recursive=recursive)
                hint = "" if recursive else "; add --recursive to search its sub-folders"
                raise MetaQAPError(unread or f"The folder {shown_name(path)} holds no images{hint}.")
        elif os.path.lexists(path):
            files = [path]
        elif glob.has_magic(path):
            files = sorted(file for file in glob.glob(path, recursive=recursive) if not os.path.isdir(file))
            if not files:
                raise MetaQAPError(f"No file matches {shown_name(path)}.")
        else:
            raise MetaQAPError(f"There is no file or folder {shown_name(path)}.")
        found |= dict.fromkeys(files)
    return list(found)


def unread_photographs(paths: Iterable[str], *, recursive: bool) -> str | None:
    """A sentence about the files of folders that look like photographs and are not read here; None without any.

    Args:
        paths: what a user typed; of these the folders are searched.
        recursive: also search their sub-folders.
    """
    folders = [path for path in paths if os.path.isdir(path)]
    files = [file for path in folders for file in files_in_folder(path, _UNREAD_SUFFIXES, recursive=recursive)]
    if not files:
        return None
    endings = Counter(Path(file).suffix.lower() for file in files)
    counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())
    text = f"Photographs that cannot be read here are left out: {counts}; the first is {shown_name(files[0])}."
    if not _HEIF_SUFFIXES.isdisjoint(endings):
        text += f" Install pillow-heif for HEIC: `{how_to_install('pillow-heif')}`."
    return text


def files_in_folder(folder: str, suffixes: Iterable[str], *, recursive: bool) -> list[str]:
    """What in a folder is named with one of these endings, in lower case, and is no folder; sorted."""
    candidates, endings = Path(folder).rglob("*") if recursive else Path(folder).glob("*"), tuple(suffixes)
    return sorted(str(file) for file in candidates if _has_ending(file, endings) and not os.path.isdir(file))


def _has_ending(file: Path, endings: tuple[str, ...]) -> bool:
    return bool(file.suffix) and file.name.lower().endswith(endings)


def read_list(stream: IO[bytes], *, separator: bytes = b"\n") -> list[str]:
    r"""The names of a list, one on each line or separated by NUL bytes (`find -print0`), without repetition.

    Names may hold any bytes, spaces at their ends included. A line may end in `\r\n`.
    """
    names = stream.read().split(separator)
    if separator == b"\n":
        names = [name.removesuffix(b"\r") for name in names]
    return list(dict.fromkeys(os.fsdecode(name) for name in names if name))


__all__ = ["IMAGE_SUFFIXES", "files_in_folder", "find_images", "is_image_file", "read_list", "unread_photographs"]
