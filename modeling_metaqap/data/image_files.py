"""Image files on disk: which file names count as images, and how paths, folders and patterns are expanded to them.

Imports nothing heavy, so that a mistyped path is answered at once.
"""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
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

#: Of photographs that are not read: JPEG XL, cameras' raw files and, without its package, HEIF.
UNREAD_SUFFIXES = frozenset(
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
            files, unread = files_in_folder(path, IMAGE_SUFFIXES, UNREAD_SUFFIXES, recursive=recursive)
            if not files:
                raise no_images(path, unread, is_searched=recursive)
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


def no_images(folder: str, unread: Sequence[str], *, is_searched: bool) -> MetaQAPError:
    """The sentence for a folder without images.

    Args:
        folder: as the user typed it.
        unread: files in it that look like photographs and are not read.
        is_searched: whether its sub-folders were searched.
    """
    hint = "" if is_searched else "; add --recursive to search its sub-folders"
    return MetaQAPError(about_unread(unread) or f"The folder {shown_name(folder)} holds no images{hint}.")


def about_unread(files: Sequence[str]) -> str | None:
    """A sentence about files that look like photographs and are not read here; None without any."""
    if not files:
        return None
    text = f"Photographs that cannot be read here are left out: {_counts(files)}; the first is {shown_name(files[0])}."
    return f"{text} {hint[:1].upper()}{hint[1:]}." if (hint := _how_to_read(files)) else text


def nothing_but_unread(files: Sequence[str]) -> str:
    """Why an archive has no images: it holds nothing, or only files that look like photographs and are not read."""
    if not files:
        return "it holds no images"
    hint = _how_to_read(files)
    return f"it holds only photographs that cannot be read here: {_counts(files)}" + (f"; {hint}" if hint else "")


def _counts(files: Iterable[str]) -> str:
    """How many there are of each ending, such as `"2 .heic, 1 .dng"`."""
    endings = Counter(Path(file).suffix.lower() for file in files)
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())


def _how_to_read(files: Iterable[str]) -> str:
    """What to install for some of these files; empty if nothing helps."""
    if not any(Path(file).suffix.lower() in _HEIF_SUFFIXES for file in files):
        return ""
    return f"install pillow-heif for HEIC: `{how_to_install('pillow-heif')}`"


def files_in_folder(folder: str, *groups: Collection[str], recursive: bool) -> list[list[str]]:
    """What in a folder is no folder and has a name with one of these endings, in lower case.

    The folder is listed once, however many groups there are. Links to folders are not followed.

    Args:
        folder: to search.
        groups: of endings.
        recursive: also search its sub-folders.

    Returns:
        For each group its names, sorted.
    """
    names: list[str] = []
    for place, _, files in os.walk(folder):
        names += [str(Path(place, file)) for file in files if "." in file]
        if not recursive:
            break
    return by_ending(names, *groups)


def by_ending(names: Iterable[str], *groups: Collection[str]) -> list[list[str]]:
    """For each group of endings, in lower case, the names that have one of them; sorted."""
    endings = [tuple(group) for group in groups]
    found: list[list[str]] = [[] for _ in groups]
    for name in sorted(names):
        if os.path.splitext(name)[1]:  # not of `.jpg`, a hidden file without ending
            for names_of_group, group in zip(found, endings, strict=True):
                if name.lower().endswith(group):
                    names_of_group.append(name)
    return found


def read_list(stream: IO[bytes], *, separator: bytes = b"\n") -> list[str]:
    r"""The names of a list, one on each line or separated by NUL bytes (`find -print0`), without repetition.

    Names may hold any bytes, spaces at their ends included. A line may end in `\r\n`.
    """
    names = stream.read().split(separator)
    if separator == b"\n":
        names = [name.removesuffix(b"\r") for name in names]
    return list(dict.fromkeys(os.fsdecode(name) for name in names if name))


__all__ = [
    "IMAGE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "about_unread",
    "by_ending",
    "files_in_folder",
    "find_images",
    "is_image_file",
    "no_images",
    "nothing_but_unread",
    "read_list",
]
