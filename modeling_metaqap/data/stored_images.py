"""Images wherever they lie: in files, at web addresses, in remote storage, and within archives and tables.

Nothing is unpacked to disk, and of an archive only a few images are in memory at a time. An archive may come from a
stranger: names of its members are only names, and no member is read beyond `MAX_BYTES`.
"""

import gzip
import tarfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from ..decoding_metaqap import UnreadableImage
from ..errors import MetaQAPError
from ..fetching_metaqap import Fetching, fetch
from .image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, nothing_but_unread
from .image_places import Kind, archive_kind, check_packages, file_system, find_places, is_remote, kind_of

#: An image that is no file of its own is refused if it holds more bytes, as at a web address.
MAX_BYTES = Fetching.max_bytes

#: Of web addresses.
DEFAULT_LIMITS = Fetching()

_UNUSUAL_PACKING = "it is packed in a way that is not read; pack it again with plain zip"

# Images of a Parquet file that are in memory at a time, and bytes of it.
_ROWS, _PAGE_BYTES = 8, 1 << 22

# fsspec's tar archives cannot be read by several threads at once.
_one_chain_at_a_time = threading.Lock()


class StoredImage(NamedTuple):
    """An image that is no file of this machine.

    Attributes:
        name: stable and unambiguous, such as `photos.zip::folder/a.jpg`.
        read: gives the bytes of the image file; raises `UnreadableImage` with the reason.
    """

    name: str
    read: Callable[[], bytes]


def images_in(
    places: Iterable[str],
    *,
    recursive: bool = False,
    image_column: str = "image",
    fetching: Fetching = DEFAULT_LIMITS,
) -> Iterator[str | StoredImage]:
    """The images of files, folders, patterns, web addresses, paths of fsspec, archives, Parquet files and `@list.txt`.

    Args:
        places: see `find_places`.
        recursive: also search the sub-folders of folders.
        image_column: of Parquet and Arrow files: the column that holds the images.
        fetching: limits for web addresses.

    Raises:
        MetaQAPError: for a place that does not exist, cannot be reached or holds no images.

    Example:

    ```python
    >>> from modeling_metaqap import Scorer, images_in

    >>> for record in Scorer().score(images_in(["photos.zip", "shards/*.tar", "hf://datasets/me/photos"])):
    ...     print(record.path, record.quality)
    ```
    """
    found = find_places(places, recursive=recursive)
    return stored_images(found, image_column=image_column, fetching=fetching)


def stored_images(
    places: Iterable[str],
    *,
    image_column: str = "image",
    fetching: Fetching = DEFAULT_LIMITS,
    skip: Container[str] = (),
    span: range | None = None,
    unread: list[str] | None = None,
) -> Iterator[str | StoredImage]:
    """The images of these places, in their order: files of this machine as their paths, all others to be read.

    What cannot be read is an image too, and says why when it is read. An archive that cannot be read on is an image of
    the archive's name, and of the numbers of its span, if there is one.

    Args:
        places: as `find_places` gives them.
        image_column, fetching: see `images_in`.
        skip: names of images to leave out.
        span: of archives only the images with these numbers, from 0; it ends where `span_ends` says.
        unread: takes the names of what looks like a photograph in archives with images and is not read; see
            `about_unread`. An archive without images says it itself.

    Raises:
        MetaQAPError: if a package is missing.
    """
    places = list(places)
    check_packages(places)
    for place in places:
        if place in skip:
            continue
        kind = kind_of(place)
        left_out: list[str] = []
        archive = place if span is None else f"{place}::{span.start}-{span.stop - 1}"
        if kind is Kind.file:
            yield place
        elif kind is Kind.address:
            yield StoredImage(place, partial(_fetched, place, fetching))
        elif kind is Kind.remote:
            yield StoredImage(place, partial(_remote_bytes, place))
        elif kind is Kind.zip:
            yield from _until_damaged(archive, _zip_members(place, left_out), skip, left_out, span=span)
        elif kind is Kind.tar:
            yield from _until_damaged(archive, _tar_members(place, left_out), skip, left_out, span=span, at_once=True)
        elif place.lower().endswith(".parquet"):
            cells = _parquet_cells(place, image_column, skip, span)
            yield from _until_damaged(archive, cells, skip, left_out, at_once=True)
        else:
            cells = _arrow_cells(place, image_column)
            yield from _until_damaged(archive, cells, skip, left_out, span=span, at_once=True)
        if unread is not None:
            unread += left_out


def span_ends(place: str) -> list[int] | None:
    """Behind which of its images an archive can be cut, so that each part can be read by itself.

    Returns:
        Numbers of images from the start, in rising order; the last one is of all. None for what has to be read from
        its start (tar archives, Arrow files), is no archive, or cannot be opened.
    """
    kind = kind_of(place)
    try:
        if kind is Kind.zip:
            return list(range(1, sum(1 for _ in _zip_members(place, [])) + 1)) or None
        if kind is Kind.table and place.lower().endswith(".parquet"):
            with _open(place) as file:
                footer = _pyarrow().parquet.ParquetFile(file).metadata
                groups = map(footer.row_group, range(footer.num_row_groups))
                return list(accumulate(group.num_rows for group in groups)) or None
    except Exception:  # nearly anything, for damaged archives; whoever reads it says so
        return None
    return None


def _until_damaged(
    archive: str,
    images: Iterator[StoredImage],
    skip: Container[str],
    left_out: list[str],
    *,
    span: range | None = None,
    at_once: bool = False,
) -> Iterator[StoredImage]:
    """The images of an archive under different names, without those to skip, and one for damage or no images.

    That one names what `images` have left out, which is then empty again.
    """
    names: set[str] = set()
    try:
        for image in images:
            name, number = image.name, 1
            while name in names:  # archives may hold several members of one name
                number += 1
                name = f"{image.name}::{number}"
            names.add(name)
            if name not in skip and (span is None or len(names) - 1 in span):
                image = image._replace(name=name)
                yield _read_now(image) if at_once else image
    except MetaQAPError:
        raise
    except UnreadableImage as error:
        yield _unreadable(archive, str(error))
    except Exception as error:  # nearly anything, for damaged archives
        behind = f" behind {len(names):,} images" if names else ""
        damaged = f"it is damaged{behind}; copy it again from where it came from"
        yield _unreadable(archive, _reason_of_storage(error) or damaged)
    else:
        if not names:
            yield _unreadable(archive, nothing_but_unread(left_out))
            left_out.clear()


def _read_now(image: StoredImage) -> StoredImage:
    """The image with its bytes; of a stream they cannot be read later."""
    try:
        data = image.read()
    except UnreadableImage as error:
        return _unreadable(image.name, str(error))
    return image._replace(read=lambda: data)


def _unreadable(name: str, reason: str) -> StoredImage:
    def read() -> bytes:
        raise UnreadableImage(reason)

    return StoredImage(name, read)


def _fetched(address: str, fetching: Fetching) -> bytes:
    if archive_kind(urlsplit(address).path) is not None:
        raise UnreadableImage("archives at web addresses are not opened; save it and name the file")
    try:
        return fetch(address, fetching)
    except (OSError, ValueError) as error:
        raise UnreadableImage(str(error).removesuffix(".")) from error


def _remote_bytes(place: str) -> bytes:
    try:
        if "::" not in place:
            return _read_all(place)
        with _one_chain_at_a_time:
            return _read_all(place)
    except (UnreadableImage, MetaQAPError) as error:
        raise UnreadableImage(str(error).removesuffix(".")) from error
    except Exception as error:  # each file system has its own
        reason = _reason_of_storage(error) or type(error).__name__
        raise UnreadableImage(f"it cannot be fetched from its storage: {reason}") from error


def _reason_of_storage(error: Exception) -> str:
    """What a file system says, or nothing if the error comes from elsewhere."""
    if isinstance(error, FileNotFoundError):  # fsspec gives it without words
        return "no such file or directory"
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else ""


def _read_all(place: str) -> bytes:
    with _open(place) as file:
        return _limited(file.read(MAX_BYTES + 1))


def _limited(data: bytes) -> bytes:
    _check_size(len(data))
    return data


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableImage(f"it is larger than the limit of {MAX_BYTES:,} bytes for what is no file of its own")


def _open(place: str) -> IO[bytes]:
    if not is_remote(place):
        return open(place, "rb")
    files, path = file_system(place)
    file: IO[bytes] = files.open(path, "rb")
    # An archive of fsspec closes the file that it lies in when nobody refers to the archive any more.
    weakref.finalize(file, id, files).atexit = False
    return file


def _is_image(place: str, member: str, left_out: list[str]) -> bool:
    """Whether a file of an archive is an image by its name; what only looks like a photograph is noted."""
    # Archives that macOS makes have a shadow of each file in a folder of this name.
    path = PurePosixPath(member.replace("\\", "/"))
    if "__MACOSX" in path.parts:
        return False
    if path.suffix.lower() in UNREAD_SUFFIXES:
        left_out.append(f"{place}::{member}")
    return path.suffix.lower() in IMAGE_SUFFIXES


def _zip_members(place: str, left_out: list[str]) -> Iterator[StoredImage]:
    # Not closed at the end, since members are read later: with the last of them it closes itself.
    archive, lock = zipfile.ZipFile(_open(place)), threading.Lock()
    files = (member for member in archive.infolist() if not member.is_dir())
    members = [member for member in files if _is_image(place, member.filename, left_out)]
    for member in members:
        yield StoredImage(f"{place}::{member.filename}", partial(_zip_member, archive, member, lock))


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, lock: threading.Lock) -> bytes:
    _check_size(member.file_size)
    if member.flag_bits & 1:
        raise UnreadableImage("it is encrypted in its archive")
    # Python unpacks bzip2 and LZMA without a bound, so a few kilobytes of them could fill the memory.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableImage(_UNUSUAL_PACKING)
    try:
        with lock, archive.open(member) as file:
            return _limited(file.read(MAX_BYTES + 1))
    except UnreadableImage:
        raise
    except NotImplementedError as error:
        raise UnreadableImage(_UNUSUAL_PACKING) from error
    except Exception as error:  # BadZipFile, zlib's, EOFError, OSError and more
        raise UnreadableImage("it is damaged in its archive; copy it again from where it came from") from error


class _Forward:
    """A file that is read forwards only, and never much of it at once, whatever its headers ask for."""

    def __init__(self, file: IO[bytes]):
        self._file, self._position = file, 0
        self.last_read = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if size > MAX_BYTES:
            raise tarfile.ReadError("a header is too large")
        self.last_read = self._file.read(size)
        self._position += len(self.last_read)
        return self.last_read

    def seek(self, position: int) -> None:
        while self._position < position and self.read(min(1 << 16, position - self._position)):
            pass
        if self._position != position:
            raise tarfile.ReadError("unexpected end of data")


def _tar_members(place: str, left_out: list[str]) -> Iterator[StoredImage]:
    with _open(place) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Forward(gzip.GzipFile(fileobj=file) if packed else file)  # type: ignore[arg-type]
        archive = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # they are kept otherwise
            if member.isreg() and _is_image(place, member.name, left_out):
                yield StoredImage(f"{place}::{member.name}", partial(_tar_member, archive, member))
        # A damaged header ends the archive in silence; its proper end is a block of zeros, or nothing.
        if stream.last_read.strip(b"\0"):
            raise tarfile.ReadError("a header is damaged")


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    _check_size(member.size)
    file = archive.extractfile(member)
    data = b"" if file is None else file.read(member.size)  # no more: this reserves the memory for all that it asks
    if len(data) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _pyarrow() -> Any:
    import pyarrow
    import pyarrow.parquet  # noqa: F401

    return pyarrow


def _arrow_cells(place: str, column: str) -> Iterator[StoredImage]:
    pyarrow = _pyarrow()
    with _open(place) as file:
        source = file if is_remote(place) else pyarrow.memory_map(place)
        # `datasets` writes streams, others files; a file can be read in any order and begins with these letters.
        is_stream = file.read(6) != b"ARROW1"
        open_arrow = pyarrow.ipc.open_stream if is_stream else pyarrow.ipc.open_file
        file.seek(0)
        index = _column_index(open_arrow(source).schema, column)
        source.seek(0)
        table = open_arrow(source, options=pyarrow.ipc.IpcReadOptions(included_fields=[index]))
        row = 0
        for batch in table if is_stream else map(table.get_batch, range(table.num_record_batches)):
            batch.validate(full=True)  # offsets of a damaged file would lead anywhere
            yield from _images_of_rows(place, row, _bytes_of(batch.column(0)))
            row += len(batch)


def _parquet_cells(place: str, column: str, skip: Container[str], span: range | None) -> Iterator[StoredImage]:
    with _open(place) as file:
        table = _pyarrow().parquet.ParquetFile(file, buffer_size=_PAGE_BYTES)
        index = _column_index(table.schema_arrow, column)
        is_struct = _pyarrow().types.is_struct(table.schema_arrow.field(index).type)
        end = 0
        for group in range(table.num_row_groups):
            begin, end = end, end + table.metadata.row_group(group).num_rows
            # A span never cuts a group.
            if span is not None and begin not in span:
                continue
            if all(_row_name(place, row) in skip for row in range(begin, end)):
                continue
            columns = [f"{column}.bytes" if is_struct else column]
            row = begin
            try:
                for batch in table.iter_batches(_ROWS, row_groups=[group], columns=columns):
                    yield from _images_of_rows(place, row, _bytes_of(batch.column(0)))
                    row += len(batch)
            except (OSError, ValueError, ArithmeticError):  # of which pyarrow's are made
                reason = "these rows are damaged; copy the file again from where it came from"
                yield _unreadable(f"{place}::{row}-{end - 1}", reason)


def _row_name(place: str, row: int) -> str:
    return f"{place}::{row}"


def _images_of_rows(place: str, row: int, cells: Any) -> Iterator[StoredImage]:
    for number, cell in enumerate(cells, start=row):
        yield StoredImage(_row_name(place, number), partial(_cell, cell))


def _cell(cell: Any) -> bytes:
    buffer = cell.as_buffer()
    if buffer is None:
        # A path beside it is not followed: it would lead wherever the author of the file wants.
        raise UnreadableImage("its row holds no image; a path alone is not followed")
    _check_size(buffer.size)
    return buffer.to_pybytes()


def _bytes_of(column: Any) -> Any:
    """The binary array of a column of images: itself, or the field `bytes` of what `datasets` writes."""
    if not _pyarrow().types.is_struct(column.type):
        return column
    return column.flatten()[column.type.get_field_index("bytes")]


def _column_index(schema: Any, column: str) -> int:
    types = _pyarrow().types
    index = schema.get_field_index(column)
    if index < 0:
        columns = ", ".join(schema.names[:20])
        raise UnreadableImage(f"it has no column {column!r}; name one of {columns} with --image-column")
    kind = schema.field(index).type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise UnreadableImage(f"its column {column!r} holds {kind}, not images")
    return index


__all__ = ["MAX_BYTES", "StoredImage", "images_in", "span_ends", "stored_images"]
