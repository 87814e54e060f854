"""Files of data sets: downloading, unpacking, finding, checking and reading them, with one clear error per flaw."""

import csv
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.utils import tqdm

from ...decoding_metaqap import errors_explained, open_image
from ...errors import DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LABEL_SUFFIXES = (".csv", ".txt", ".mat", ".xlsx")

_CHUNK = 1 << 20


# Downloading and unpacking.


def download_file(
    url: str, destination: Path, *, sha256: str | None, attempts: int = 6, timeout: float = 30.0, pause: float = 1.0
) -> Path:
    """Downloads a file, resuming after a broken connection, also in a later run.

    What has arrived is kept beside `destination` with the suffix `.part`; `destination` only ever exists complete.

    Args:
        sha256: Expected checksum; `None` where the publisher's server makes the file anew for each request, so that
            what is inside of it has to be verified instead.
        attempts: Number of connections that may break without any progress before giving up.
        timeout: Seconds without data after which a connection counts as broken.
        pause: Seconds to wait before connecting again, doubled with each attempt in a row.

    Raises:
        DataError: The server cannot be reached or refuses, or the file has another checksum (and is deleted).
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".part")
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _fetch_rest(url, partial, timeout=timeout)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                partial.unlink()  # Longer than the file on the server, so it belongs to something else.
                continue
            if error.code < 500:
                raise DataError(f"The server refuses {url} ({error.code} {error.reason}).") from None
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        failures = 0 if partial.exists() and partial.stat().st_size > before else failures + 1
        if failures >= attempts:
            raise DataError(f"{url} cannot be downloaded ({reason}); run again later to continue.") from None
        time.sleep(pause * 2 ** max(failures - 1, 0))
    if sha256 is not None and (found := file_sha256(partial)) != sha256:
        partial.unlink()
        raise DataError(
            f"{url} has the SHA-256 {found} instead of {sha256}: the download is damaged or the file was changed. It "
            "was deleted."
        )
    partial.replace(destination)
    return destination


def _fetch_rest(url: str, partial: Path, *, timeout: float) -> None:
    """Appends to `partial` what it still lacks; raises if the connection ends early."""
    offset = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        rest = response.headers.get("Content-Length")
        name = url.rsplit("/", 1)[-1]
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(total=int(rest) if rest else None, unit="B", unit_scale=True, desc=f"Downloading {name}") as bar,
        ):
            received = 0  # the bar counts nothing where progress bars are switched off
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
            if rest is not None and received < int(rest):
                raise http.client.IncompleteRead(b"", int(rest) - received)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip or .tar archive, compressed or not, into a folder; [`new_folder`] makes that all or nothing.

    Raises:
        DataError: The archive is damaged.
    """
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as zip_file:
                zip_file.extractall(folder)
        else:
            with tarfile.open(archive) as tar_file:
                tar_file.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"The archive {archive} is damaged ({error}); get it again.") from None


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `destination` at the end, or is deleted if anything goes wrong.

    Raises:
        OSError: `destination` exists and is not an empty folder.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A name that nobody else can have taken, as the folder may be deleted.
    temporary = Path(tempfile.mkdtemp(prefix=f"{destination.name}.", suffix=".incomplete", dir=destination.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp keeps it from other users.
        yield temporary
        temporary.replace(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# Checksums.


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all the files in a folder, in hexadecimal.

    The same as `cd FOLDER && find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`.
    """
    digest = hashlib.sha256()
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(paths, key=os.fsencode):
        digest.update(f"{file_sha256(paths[name])}  {name}\n".encode())
    return digest.hexdigest()


def fingerprint(folder: Path) -> str:
    """Quick hash of the names and sizes of all the files in a folder, and of what label files among them hold."""
    digest = hashlib.sha256()
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
            if path.suffix.lower() in LABEL_SUFFIXES:
                digest.update(path.read_bytes())
    return digest.hexdigest()


# Finding and checking.


class FileIndex:
    """Finds files below a folder by relative path, forgiving a difference in case as between label file and disk.

    Args:
        folder: Folder that the paths are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def __getitem__(self, name: str) -> Path:
        """Path of the file called `name`; a path that does not exist where there is none, or no single one."""
        path = self.folder
        for component in name.split("/"):
            exact, folded = self._list(path)
            alike = folded.get(component.casefold(), [])
            path = path / (alike[0] if component not in exact and len(alike) == 1 else component)
        return path

    def _list(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._listed:
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []  # also if the name is too long
            folded: dict[str, list[str]] = {}
            for name in names:
                folded.setdefault(name.casefold(), []).append(name)
            self._listed[folder] = set(names), folded
        return self._listed[folder]


def check_image(path: Path, *, title: str) -> None:
    """Makes sure that a file is a complete image.

    Fast enough for tens of thousands of files: a JPEG that ends in its end-of-image marker and a PNG that ends in its
    last chunk are taken as complete; only others are decoded.

    Raises:
        DataError: The file is missing, empty, truncated, or no image.
    """
    if not os.path.exists(path):
        raise DataError(f"{title}: the image {path} is listed in the label files but does not exist.")
    try:
        with errors_explained(), open_image(path) as image, path.open("rb") as file:
            file.seek(-min(8, os.fstat(file.fileno()).st_size), os.SEEK_END)
            tail = file.read()
            ends = {"JPEG": tail.endswith(b"\xff\xd9"), "PNG": tail.startswith(b"IEND")}
            if not ends.get(image.format or "", False):
                image.load()
    except ValueError as error:
        raise DataError(f"{title}: the image {path} cannot be read: {error}.") from None


# Reading label files.


def parse_score(value: Any, *, what: str, path: Path, title: str) -> float:
    """Reads a number from a label file.

    Raises:
        DataError: `value` is no number; the message says whose (`what`) and in which file.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{title}: the score of {what!r} in {path} is {value!r}, not a number.") from None


def read_csv(path: Path, *, columns: Sequence[str], title: str) -> list[dict[str, str]]:
    """Rows of a CSV file with (at least) the given columns; empty lines and unnamed columns are left out.

    Raises:
        DataError: The file is no UTF-8 text, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=_delimiter(path), restval="")
            header = [name for name in reader.fieldnames or [] if name]
            rows = [{name: row[name].strip() for name in header} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{title}: {path} is not a CSV file ({error}).") from None
    _require_columns(header, columns, path=path, title=title)
    return [row for row in rows if any(row.values())]


def _delimiter(path: Path) -> str:
    """Spreadsheets in many countries write semicolons. No column of a public data set has one in its name."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def read_sheets(path: Path, *, title: str) -> list[list[tuple[Any, ...]]]:
    """The cells of each sheet of an Excel workbook, row by row.

    Raises:
        DataError: The file is no workbook.
    """
    import openpyxl  # Needed for few data sets only, and slow to import.

    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            return [list(sheet.iter_rows(values_only=True)) for sheet in workbook.worksheets]
        finally:
            workbook.close()
    except Exception as error:  # openpyxl has no exception of its own; a broken file raises nearly anything.
        raise DataError(f"{title}: {path} is not an Excel workbook ({error}).") from None


def read_table(path: Path, *, columns: Sequence[str], title: str) -> list[dict[str, Any]]:
    """Rows of the first table in an Excel workbook that has (at least) the given columns.

    The table may stand on any sheet, begin in any row and column, and ends in an empty row. Column names are compared
    without regard to case or surrounding spaces, and the rows' keys are the names as given in `columns`.

    Raises:
        DataError: The file is no workbook, or no sheet has such a table.
    """
    for sheet in read_sheets(path, title=title):
        for first, header in enumerate(sheet):
            names = [str(cell).strip().casefold() for cell in header]
            if not all(column.casefold() in names for column in columns):
                continue
            places = {column: names.index(column.casefold()) for column in columns}
            rows = []
            for cells in sheet[first + 1 :]:
                row = {column: cells[place] if place < len(cells) else None for column, place in places.items()}
                if all(value is None for value in row.values()):
                    break
                rows.append(row)
            return rows
    raise DataError(f"{title}: no sheet of {path} has a table with the columns {', '.join(map(repr, columns))}.")


def read_mat(path: Path, *, variables: Sequence[str], title: str) -> list[list[Any]]:
    """Variables of a MATLAB file as flat lists of numbers or strings, all of one length.

    Raises:
        DataError: The file is damaged, lacks a variable, or its variables differ in length.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # A truncated file raises nearly anything, zlib.error and struct.error included.
        raise DataError(f"{title}: {path} is not a complete MATLAB file ({error}).") from None
    lists = []
    for variable in variables:
        if variable not in content:
            raise DataError(f"{title}: {path} has no variable {variable!r}.")
        values = content[variable].ravel(order="F").tolist()
        # A cell array of strings arrives as an array of arrays with one string each.
        lists.append([value.item() if hasattr(value, "item") else value for value in values])
    require_same_length(dict(zip(variables, lists, strict=True)), path=path, title=title)
    return lists


def require_same_length(columns: Mapping[str, Sequence[Any]], *, path: Path, title: str) -> None:
    """Raises an [`DataError`] unless all the columns, given by name, have the same length."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise DataError(f"{title}: the entries in {path} do not match: {described}.")


def _require_columns(header: Sequence[str], columns: Sequence[str], *, path: Path, title: str) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise DataError(
            f"{title}: {path} has no column {' or '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, header)) or 'none'}."
        )
