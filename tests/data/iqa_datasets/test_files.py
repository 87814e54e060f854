"""Downloading, unpacking, finding and reading files."""

import hashlib
import http.server
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
from iqa_fixtures import LAYOUTS, write_biq2021, write_csv, write_image, write_kadid10k, write_xlsx

from modeling_metaqap.data.iqa_datasets import BIQ2021, load_iqa_dataset
from modeling_metaqap.data.iqa_datasets.base import Download
from modeling_metaqap.data.iqa_datasets.files import (
    FileIndex,
    check_image,
    download_file,
    file_sha256,
    folder_sha256,
    new_folder,
    read_csv,
    read_table,
    unpack,
)
from modeling_metaqap.errors import DataError

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """An HTTP server on loopback that can misbehave."""

    def __init__(self) -> None:
        self.content = CONTENT
        # Bytes after which the connection breaks, one number per request; None or no number serves to the end.
        self.breaks: list[int | None] = []
        self.statuses: list[int] = []
        self.ranges_work = True
        self.says_length = True
        self.ranges: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/archive.zip"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        offset = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges_work else 0
        if offset and offset >= len(self.content):
            request.send_error(416)
            return
        request.send_response(206 if offset else 200)
        if self.says_length:
            request.send_header("Content-Length", str(len(self.content) - offset))
        request.end_headers()
        broken = self.breaks.pop(0) if self.breaks else None
        request.wfile.write(self.content[offset : None if broken is None else offset + broken])

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def download(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def fetch(**options: object) -> Path:
        options = {"sha256": SHA256, "pause": 0.0} | options
        return download_file(server.url, tmp_path / "downloads" / "archive.zip", **options)

    return fetch


def test_a_download_is_complete_and_verified(download):
    path = download()

    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["archive.zip"]


def test_a_download_is_complete_without_a_progress_bar(download):
    datasets.disable_progress_bars()
    try:
        assert download(attempts=1).read_bytes() == CONTENT
    finally:
        datasets.enable_progress_bars()


def test_a_download_goes_on_where_the_connection_broke(download, server):
    server.breaks = [1000, 300_000]

    assert download().read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=301000-"]


def test_a_download_goes_on_in_a_later_run(download, server):
    server.breaks = [1000, 0]
    with pytest.raises(DataError, match=r"127.0.0.1.* cannot be downloaded .* run again later to continue"):
        download(attempts=1)

    assert download().read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"


def test_progress_renews_the_patience(download, server):
    server.breaks = [50_000] * 20

    assert download(attempts=2).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_asked_for_everything_again(download, server):
    server.ranges_work = False
    server.breaks = [1000]

    assert download().read_bytes() == CONTENT


def test_a_server_that_does_not_say_the_length_is_verified_by_the_checksum(download, server):
    server.says_length = False
    server.breaks = [1000]

    with pytest.raises(DataError, match="SHA-256"):
        download()


def test_a_passing_server_error_is_outlived(download, server):
    server.statuses = [503, 500]

    assert download().read_bytes() == CONTENT


def test_a_bad_checksum_is_refused_and_nothing_is_left(download, server, tmp_path):
    server.content = CONTENT[:-1] + b"?"

    with pytest.raises(DataError, match=f"instead of {SHA256}: the download is damaged or the file was changed"):
        download()

    assert not list((tmp_path / "downloads").iterdir())


def test_leftovers_of_another_file_are_thrown_away(download, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "archive.zip.part").write_bytes(CONTENT * 2)

    assert download().read_bytes() == CONTENT


def test_a_refusal_is_one_clear_error(download, server):
    server.statuses = [404]

    with pytest.raises(DataError, match=r"The server refuses http://127.0.0.1.*archive.zip \(404 Not Found\)"):
        download()


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="cannot be downloaded"):
        download_file("http://127.0.0.1:9/x", tmp_path / "x", sha256=None, attempts=2, pause=0.0)


def zip_folder(folder: Path, archive: Path, *, top: str) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"{top}/{path.relative_to(folder)}")
    return archive


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small BIQ2021 that the server publishes like a repository host."""
    root = tmp_path / "published"
    root.mkdir()
    write_biq2021(root)
    server.content = zip_folder(root, tmp_path / "published.zip", top="BIQ2021-62c7b40").read_bytes()
    monkeypatch.setattr(BIQ2021, "download", Download(url=server.url, content_sha256=folder_sha256(root)))
    return root


def load_downloaded(tmp_path: Path) -> object:
    return load_iqa_dataset("biq2021", split="test", cache_dir=tmp_path / "cache", allow_partial=True)


def test_biq2021_is_downloaded_once(published, server, tmp_path):
    assert len(load_downloaded(tmp_path)) == 4
    assert load_downloaded(tmp_path)[0]["image_id"] == "ss03 (1).jpg"

    assert len(server.ranges) == 1
    assert not list((tmp_path / "cache").rglob("*.zip*"))


def test_a_download_that_was_deleted_is_fetched_again(published, server, tmp_path):
    load_downloaded(tmp_path)
    for path in (tmp_path / "cache" / "metaqap").rglob("*.jpg"):
        path.unlink()
    subprocess.run(["rm", "-r", str(tmp_path / "cache" / "metaqap" / "biq2021")], check=True)

    assert load_downloaded(tmp_path)[0]["image"].size == (24, 16)


def test_a_changed_publication_is_refused_and_nothing_is_left(published, server, tmp_path):
    (published / "Images" / "ss01 (1).jpg").write_bytes(b"changed")
    server.content = zip_folder(published, tmp_path / "changed.zip", top="BIQ2021-62c7b40").read_bytes()

    with pytest.raises(DataError, match="have the checksum .* damaged or were changed. They were deleted"):
        load_downloaded(tmp_path)

    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not left


def test_the_checksum_of_a_folder_can_be_repeated_in_a_shell(published):
    command = "find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    shell = subprocess.run(command, shell=True, cwd=published, capture_output=True, text=True, check=True)

    assert folder_sha256(published) == shell.stdout.split()[0]


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_data_set_is_read_from_its_archive(tmp_path, kind, as_file):
    folder, downloads = tmp_path / "kadid10k", tmp_path / "downloads"
    folder.mkdir()
    downloads.mkdir()
    write_kadid10k(folder)
    archive = downloads / f"kadid10k.{kind}"
    if kind == "zip":
        zip_folder(folder, archive, top="kadid10k")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, "kadid10k")

    for _ in range(2):
        dataset = load_iqa_dataset(
            "kadid10k",
            split="all",
            data_dir=archive if as_file else downloads,
            cache_dir=tmp_path / "cache",
            allow_partial=True,
        )
        assert len(dataset) == LAYOUTS["kadid10k"][1]
        assert dataset[0]["image"].size == (24, 16)


def test_labels_may_lie_beside_an_archive_of_images(tmp_path):
    root = tmp_path / "downloads"
    root.mkdir()
    LAYOUTS["csiq"][0](root)
    for name in ("dst_imgs", "src_imgs"):
        zip_folder(root / name, root / f"{name}.zip", top=name)
        subprocess.run(["rm", "-r", str(root / name)], check=True)

    dataset = load_iqa_dataset("csiq", split="all", data_dir=root, cache_dir=tmp_path / "cache", allow_partial=True)

    assert len(dataset) == LAYOUTS["csiq"][1]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_truncated_archive_is_one_clear_error_and_nothing_is_left(tmp_path, name):
    archive = tmp_path / name
    image = write_image(tmp_path / "image.png", size=(200, 200))
    if archive.suffix == ".zip":
        zip_folder(image.parent, archive, top="x")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(image, "image.png")
    archive.write_bytes(archive.read_bytes()[:60_000])

    with pytest.raises(DataError, match=f"{name} is damaged"):
        with new_folder(tmp_path / "unpacked" / "here") as folder:
            unpack(archive, folder)

    assert not list((tmp_path / "unpacked").iterdir())


def test_a_new_folder_takes_nobody_elses_place(tmp_path):
    for name in ("mine", "mine.incomplete"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_text(name)

    with pytest.raises(OSError), new_folder(tmp_path / "mine") as folder:
        (folder / "other.txt").write_text("new")

    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")} == {
        "mine/precious.txt",
        "mine.incomplete/precious.txt",
    }


def test_names_are_found_whatever_their_case_unless_it_is_ambiguous(tmp_path):
    for name in ("Folder/a.JPG", "Folder/b.jpg", "Folder/B.jpg"):
        write_image(tmp_path / name)
    index = FileIndex(tmp_path)

    assert index["folder/A.jpg"] == tmp_path / "Folder" / "a.JPG"
    assert index["Folder/b.jpg"] == tmp_path / "Folder" / "b.jpg"
    assert not index["Folder/b.JPG"].exists()
    assert not index["Folder/c.jpg"].exists()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp"])
def test_a_complete_image_passes_and_a_truncated_one_does_not(tmp_path, suffix):
    path = write_image(tmp_path / f"image.{suffix}", size=(64, 48))
    check_image(path, title="set")

    path.write_bytes(path.read_bytes()[:-60])

    with pytest.raises(DataError, match=f"image.{suffix} cannot be read"):
        check_image(path, title="set")


def test_bytes_after_the_end_of_a_jpeg_are_no_damage(tmp_path):
    path = write_image(tmp_path / "image.jpg")
    path.write_bytes(path.read_bytes() + b"maker's notes")

    check_image(path, title="set")


def test_a_csv_may_have_a_byte_order_mark_semicolons_and_empty_lines(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffname;mos;\n a.jpg ;0,5;\n;;\n\nb.jpg;1\n")

    assert read_csv(path, columns=("name", "mos"), title="set") == [
        {"name": "a.jpg", "mos": "0,5"},
        {"name": "b.jpg", "mos": "1"},
    ]


def test_a_table_is_found_anywhere_in_a_workbook_and_ends_in_an_empty_row(tmp_path):
    rows = [(), (None, "DMOS ", "image"), (None, 1, 1600), (None, 2, "b"), (), (None, "mean", 1.5)]
    path = write_xlsx(tmp_path / "scores.xlsx", {"notes": [("dmos",)], "scores": rows})

    assert read_table(path, columns=("image", "dmos"), title="set") == [
        {"image": 1600, "dmos": 1},
        {"image": "b", "dmos": 2},
    ]
    with pytest.raises(DataError, match=r"no sheet of .*scores\.xlsx has a table with .* 'image', 'mos'"):
        read_table(path, columns=("image", "mos"), title="set")


def test_a_csv_in_another_encoding_is_one_clear_error(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("name,mos\nä.jpg,1\n".encode("latin-1"))

    with pytest.raises(DataError, match="labels.csv is not a CSV file"):
        read_csv(path, columns=("name", "mos"), title="set")


def test_the_checksum_of_a_file(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("a",), [])

    assert file_sha256(path) == hashlib.sha256(b"a\r\n").hexdigest()
