"""Uploads -> one folder of files, within limits. Zip archives may come from anybody. No Gradio in here."""

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..data.names import shown_name
from ..errors import MetaQAPError

#: Files of all uploads together; those that systems add by themselves do not count.
MAX_FILES = 10_000

# Bytes that are read at once. The list of an archive, which Python reads as a whole, may be longer: some 50,000 files.
_CHUNK, _MAX_LIST = 1 << 20, 5_000_000

# Photographs hardly shrink. What unpacks to more than so many times its size is made to fill disks.
_MAX_RATIO = 100

# Folders within folders, and bytes of a name, which no file system takes longer.
_MAX_DEPTH, _MAX_NAME = 16, 255

# The others unpack a whole chunk at once, whatever comes out of it.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What makes a path an absolute one on Windows.
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True)
class Upload:
    """A file that a visitor uploaded.

    Attributes:
        path: where it lies on the server.
        name: as the visitor calls it, without folders.
    """

    path: Path
    name: str


def unpack_uploads(uploads: Sequence[Upload], folder: Path, *, max_bytes: int, max_total: int) -> list[Path]:
    """Put the files of uploads into a folder, those in zip archives unpacked and all others as links.

    Hidden files and what systems put into archives by themselves are left out.

    Args:
        uploads: zip archives and other files.
        folder: an empty one; nothing is written outside of it.
        max_bytes: of one file in an archive.
        max_total: bytes of all files, unpacked.

    Returns:
        The files, in the order of the uploads.

    Raises:
        MetaQAPError: for an archive that is damaged, over a limit or a bomb, that has links or names that lead
            elsewhere in it, and for two files of one name.
    """
    taken = _Taken(folder, max_bytes=max_bytes, max_total=max_total)
    for upload in uploads:
        if upload.name.lower().endswith(".zip"):
            _unpack(upload, taken)
        else:
            taken.claim(upload.path.stat().st_size)
            taken.new_path(upload.name).symlink_to(upload.path)
    return taken.files


class _Taken:
    """What has been put into the folder so far."""

    def __init__(self, folder: Path, *, max_bytes: int, max_total: int):
        self.files: list[Path] = []
        self.max_bytes = max_bytes
        self.bytes_left = max_total
        self._folder = folder
        self._max_total = max_total

    def claim(self, size: int) -> None:
        """Take so many of the bytes that are left."""
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise MetaQAPError(f"The files hold more than the limit of {self._max_total:,} bytes; give fewer of them.")

    def new_path(self, name: str) -> Path:
        """The path of a new file, whose folder is there."""
        if len(self.files) == MAX_FILES:
            raise MetaQAPError(f"There are more than {MAX_FILES:,} files; give fewer of them.")
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise MetaQAPError(f"There are two files {_shown(name)}; give each its own name.")
        self.files.append(path)
        return path


class _SmallReads(io.FileIO):
    """A file that is not read by more at once than the list of an archive may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_LIST:
            raise MetaQAPError("A zip archive has too many files in it; zip fewer of them.")
        return super().read(-1 if size is None else size) or b""


def _unpack(upload: Upload, taken: _Taken) -> None:
    try:
        with _SmallReads(upload.path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                _check(member, upload)
            members = [member for member in members if not _is_left_out(member)]
            if sum(member.file_size for member in members) > max(_MAX_RATIO * upload.path.stat().st_size, _CHUNK):
                raise MetaQAPError(
                    f"{_shown(upload.name)} would unpack to more than {_MAX_RATIO} times its size, which photographs "
                    "never do; it is refused."
                )
            for member in members:
                _extract(archive, member, upload, taken)
    except MetaQAPError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise MetaQAPError(
            f"{_shown(upload.name)} cannot be unpacked; make a new zip archive, without a password."
        ) from error


def _check(member: zipfile.ZipInfo, upload: Upload) -> None:
    """Refuse what is no file or folder within the archive's own."""
    path = PurePosixPath(member.filename)
    what = f"{_shown(upload.name)} is refused, since a file in it"
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or _DRIVE.match(member.filename):
        raise MetaQAPError(f"{what} has a name that leads elsewhere: {_shown(member.filename)}.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise MetaQAPError(f"{what} is a link or a device: {_shown(member.filename)}.")
    if len(path.parts) > _MAX_DEPTH or any(len(part.encode(errors="replace")) > _MAX_NAME for part in path.parts):
        raise MetaQAPError(f"{what} has too long a name: {_shown(member.filename)}.")
    if member.compress_type not in _COMPRESSIONS:
        raise MetaQAPError(f"{what} is compressed in an unusual way, {_shown(member.filename)}; zip it anew.")


def _is_left_out(member: zipfile.ZipInfo) -> bool:
    """Folders, and what systems add by themselves."""
    path = PurePosixPath(member.filename)
    return member.is_dir() or "__MACOSX" in path.parts or path.name.startswith(".")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, upload: Upload, taken: _Taken) -> None:
    path = taken.new_path(member.filename)
    with archive.open(member) as content, path.open("wb") as copy:
        # Counted as it comes: the size in the list is only what somebody wrote there.
        while chunk := content.read(_CHUNK):
            taken.claim(len(chunk))
            if copy.tell() + len(chunk) > taken.max_bytes:
                raise MetaQAPError(
                    f"{_shown(member.filename)} in {_shown(upload.name)} is larger than the limit of "
                    f"{taken.max_bytes:,} bytes of one file."
                )
            copy.write(chunk)


def _shown(name: str) -> str:
    return shown_name(name if len(name) <= 80 else f"{name[:40]}...{name[-37:]}")


__all__ = ["MAX_FILES", "Upload", "unpack_uploads"]
