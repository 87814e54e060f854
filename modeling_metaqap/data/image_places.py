"""Where photographs lie: what users type -> names of files, web addresses, remote files and archives.

A place is a name, and its kind follows from it. What lies in it is read by `stored_images`. Imports nothing heavy, so
that a mistyped name is answered at once.
"""

import glob
import os
import re
from collections.abc import Iterable
from enum import Enum
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..errors import MetaQAPError, sentence
from ..fetching_metaqap import is_web_address
from ..installing import missing_package
from .image_files import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    by_ending,
    files_in_folder,
    find_images,
    no_images,
    read_list,
)
from .names import shown_name


class Kind(Enum):
    """What a place is."""

    file = "a file of this machine"
    address = "a web address"
    remote = "a file that fsspec opens"
    zip = "a zip archive"
    tar = "a tar archive"
    table = "a Parquet or Arrow file"

    @property
    def holds_many(self) -> bool:
        """Whether it holds any number of images, and not one."""
        return self in (Kind.zip, Kind.tar, Kind.table)


_ARCHIVES = {
    ".zip": Kind.zip,
    ".tar": Kind.tar,
    ".tar.gz": Kind.tar,
    ".tgz": Kind.tar,
    ".parquet": Kind.table,
    ".arrow": Kind.table,
}

# What a folder is searched for.
_GROUPS = (IMAGE_SUFFIXES, _ARCHIVES, UNREAD_SUFFIXES)

# `s3://...`, and chains of fsspec such as `simplecache::s3://...`.
_REMOTE = re.compile(r"(\w+::)*[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_remote(place: str) -> bool:
    """Whether this is a path of fsspec, such as `s3://bucket/a.jpg` or `zip://a.jpg::photos.zip`."""
    return _REMOTE.match(place) is not None and not is_web_address(place)


def kind_of(place: str) -> Kind:
    """What a place is, by its name; an archive must be a regular file."""
    if is_web_address(place):
        return Kind.address
    remote = is_remote(place)
    name = _own_part(place) if remote else place
    archive = archive_kind(name)
    if archive is not None and (remote or os.path.isfile(place)):
        return archive
    return Kind.remote if remote else Kind.file


class FoundPlaces(NamedTuple):
    """What a search has found.

    Attributes:
        places: without repetition.
        unread: files in folders that look like photographs and are not read; see `about_unread`.
    """

    places: list[str]
    unread: list[str]


def archive_kind(name: str) -> Kind | None:
    """The kind of archive or table that a file of this name is; None for others."""
    return next((kind for suffix, kind in _ARCHIVES.items() if name.lower().endswith(suffix)), None)


def find_places(arguments: Iterable[str], *, recursive: bool = False) -> list[str]:
    """The places of `search_places`."""
    return search_places(arguments, recursive=recursive).places


def search_places(arguments: Iterable[str], *, recursive: bool = False) -> FoundPlaces:
    """Expand what a user typed to places; each folder is listed once.

    Args:
        arguments: files, folders and patterns, see `find_images`; web addresses; paths, folders and patterns of
            fsspec; archives; `@list.txt` for a file with one of these names, unexpanded, on each line. A folder
            without images is searched for archives.
        recursive: also search the folders' sub-folders. Those of a data set on the Hub are always searched.

    Raises:
        MetaQAPError: for what does not exist, cannot be reached or holds no images.
    """
    places: dict[str, None] = {}
    unread: dict[str, None] = {}
    for argument in arguments:
        found = _expanded(argument, recursive=recursive)
        places |= dict.fromkeys(found.places)
        unread |= dict.fromkeys(found.unread)
    return FoundPlaces(list(places), list(unread))


def check_packages(places: Iterable[str]) -> None:
    """Tells early what could not be read for want of a package.

    Raises:
        MetaQAPError: if there are Parquet or Arrow files but no pyarrow.
    """
    if find_spec("pyarrow") is None and any(kind_of(place) is Kind.table for place in places):
        raise MetaQAPError(missing_package("pyarrow"))


def _expanded(argument: str, *, recursive: bool) -> FoundPlaces:
    if is_web_address(argument):
        return FoundPlaces([argument], [])
    if is_remote(argument):
        protocol, _, path = argument.partition("://")
        if protocol.lower() not in ("file", "local"):
            return _remote_places(argument, recursive=recursive)
        argument = path
    if argument.startswith("@") and not os.path.lexists(argument):
        return FoundPlaces(_listed(argument[1:]), [])
    if os.path.isdir(argument):
        return _chosen(argument, *files_in_folder(argument, *_GROUPS, recursive=recursive), is_searched=recursive)
    return FoundPlaces(find_images([argument]), [])


def _chosen(
    folder: str, images: list[str], archives: list[str], unread: list[str], *, is_searched: bool
) -> FoundPlaces:
    """Of what a folder holds, its images, or if it has none its archives."""
    # Beside the files of a data set there may be results that `datasets` has kept.
    archives = [name for name in archives if not os.path.basename(name).startswith("cache-")]
    if not images and not archives:
        raise no_images(folder, unread, is_searched=is_searched)
    return FoundPlaces(images or archives, unread)


def _listed(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            places = read_list(file)
    except OSError as error:
        raise MetaQAPError(f"The list {shown_name(path)} cannot be read: {(error.strerror or '').lower()}.") from error
    if not places:
        raise MetaQAPError(f"The list {shown_name(path)} is empty.")
    return places


def _remote_places(argument: str, *, recursive: bool) -> FoundPlaces:
    try:
        return _expand_remote(argument, recursive=recursive)
    except MetaQAPError:
        raise
    except Exception as error:  # each file system has its own
        raise MetaQAPError(f"{shown_name(argument)} cannot be read: {sentence(error)}.") from error


def _expand_remote(argument: str, *, recursive: bool) -> FoundPlaces:
    files, path = file_system(argument)
    if files.isdir(path):
        deep = recursive or argument.startswith("hf://datasets/")
        groups = by_ending(files.find(path, maxdepth=None if deep else 1), *_GROUPS)
        found = _chosen(argument, *groups, is_searched=deep)
        return FoundPlaces(*([_with_own_part(argument, name) for name in group] for group in found))
    elif files.exists(path):
        return FoundPlaces([argument], [])
    elif glob.has_magic(path):
        names = sorted(name for name, details in files.glob(path, detail=True).items() if details["type"] == "file")
        if not names:
            raise MetaQAPError(f"No file matches {shown_name(argument)}.")
    else:
        raise MetaQAPError(f"There is no file or folder {shown_name(argument)}.")
    return FoundPlaces([_with_own_part(argument, name) for name in names], [])


def file_system(place: str) -> tuple[Any, str]:
    """The file system of fsspec that a remote place lies in, and its path there.

    Raises:
        MetaQAPError: if a package is missing, or the place goes through a web address, which only `fetch` may open.
    """
    import fsspec

    if any(is_web_address(part) for part in place.split("::")):
        raise MetaQAPError(f"{shown_name(place)} leads through a web address; save that file and name it instead.")
    try:
        return fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise MetaQAPError(f"{shown_name(place)} cannot be read: {sentence(error)}.") from error


def _own_part(place: str) -> str:
    """Of a chain the part with the path in the first file system: `a.jpg` of `zip://a.jpg::photos.zip`."""
    return next(part for part in place.split("::") if "://" in part).partition("://")[2]


def _with_own_part(place: str, path: str) -> str:
    parts = place.split("::")
    index = next(index for index, part in enumerate(parts) if "://" in part)
    parts[index] = f"{parts[index].partition('://')[0]}://{path}"
    return "::".join(parts)


__all__ = [
    "FoundPlaces",
    "Kind",
    "archive_kind",
    "check_packages",
    "file_system",
    "find_places",
    "is_remote",
    "kind_of",
    "search_places",
]
