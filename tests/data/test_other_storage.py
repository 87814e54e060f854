"""Images in buckets and on the Hub, by stand-ins on this machine: they are found, and read as they lie."""

import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem

from modeling_metaqap.data.stored_images import images_in
from modeling_metaqap.decoding_metaqap import UnreadableImage
from modeling_metaqap.errors import MetaQAPError

pa = pytest.importorskip("pyarrow", reason="needs the train extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the train extra")

CONTENT = {f"{index} ü.jpg": bytes([index]) * (100 + index) for index in range(5)}


def zipped():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"in/{name}", content)
    return data.getvalue()


def tarred():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in CONTENT.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def table():
    data = io.BytesIO()
    images = [{"bytes": content, "path": name} for name, content in CONTENT.items()]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(images, kind)}), data, row_group_size=2)
    return data.getvalue()


def read(*places, **options):
    """Name -> bytes, or the reason why there are none."""
    found = {}
    for image in images_in(places, **options):
        try:
            found[image.name] = image.read()
        except UnreadableImage as error:
            found[image.name] = str(error)
    return found


class Bucket(AbstractFileSystem):
    """What s3fs and gcsfs are to fsspec: objects with names in which `/` means a folder."""

    protocol = "s3"
    cachable = False
    objects = {
        **{f"bucket/photos/{name}": content for name, content in CONTENT.items()},
        "bucket/photos/notes.txt": b"text",
        "bucket/photos/raw.NEF": b"raw",
        "bucket/photos/far/f.png": b"f",
        "bucket/packed/a.zip": zipped(),
        "bucket/packed/b.tar.gz": tarred(),
        "bucket/packed/c.parquet": table(),
        "bucket/secret.jpg": PermissionError(13, "Permission denied"),
    }

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path)
        entries = {}
        for name, content in self.objects.items():
            if name == path:
                entries[name] = {"name": name, "type": "file", "size": len(content)}
            elif name.startswith(f"{path}/"):
                child = "/".join(name.split("/")[: path.count("/") + 2])
                kind, size = ("file", len(content) if isinstance(content, bytes) else 1)
                entries[child] = {"name": child, "type": kind if child == name else "directory", "size": size}
        if not entries:
            raise FileNotFoundError(path)
        return list(entries.values()) if detail else sorted(entries)

    def _open(self, path, mode="rb", **_):
        if isinstance(content := self.objects.get(path, FileNotFoundError(path)), Exception):
            raise content
        return io.BytesIO(content)


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(_registry, "s3", Bucket)


def test_folders_patterns_and_files_of_a_bucket_are_read_under_their_addresses(bucket):
    photos = {f"s3://bucket/photos/{name}": content for name, content in CONTENT.items()}
    assert read("s3://bucket/photos") == photos
    assert read("s3://bucket/photos", recursive=True) == photos | {"s3://bucket/photos/far/f.png": b"f"}
    assert read("s3://bucket/photos/[12]*.jpg") == dict(list(photos.items())[1:3])
    assert read("s3://bucket/secret.jpg") == {
        "s3://bucket/secret.jpg": "it cannot be fetched from its storage: permission denied"
    }
    with pytest.raises(MetaQAPError, match=r"There is no file or folder s3://bucket/absent\."):
        read("s3://bucket/absent")


def test_archives_and_tables_of_a_bucket_are_read_as_they_lie(bucket):
    found = read("s3://bucket/packed")
    assert list(found.values()) == 3 * list(CONTENT.values())
    names = [f"s3://bucket/packed/a.zip::in/{name}" for name in CONTENT]
    names += [f"s3://bucket/packed/b.tar.gz::{name}" for name in CONTENT]
    assert list(found) == names + [f"s3://bucket/packed/c.parquet::{row}" for row in range(5)]
    chain = read("zip://in::s3://bucket/packed/a.zip")
    assert chain == {f"zip://in/{name}::s3://bucket/packed/a.zip": content for name, content in CONTENT.items()}


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's HTTP API that reading the files of a data set calls, as of huggingface_hub 2.4."""

    files = {"README.md": b"a data set", "data/0.parquet": table(), "data/more/1.parquet": table()}

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:4] == ["api", "datasets", "me", "photos"]:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
            self._answer(json.dumps(tree if "tree" in parts else {"id": "me/photos", "sha": "1" * 40}).encode())
        elif parts[:4] == ["datasets", "me", "photos", "resolve"]:
            content = self.files["/".join(parts[5:])]
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            self._answer(content[int(first) : int(last) + 1], status=206)
        else:
            self._answer(b"{}", status=404)

    def _answer(self, data, *, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import HfFileSystem, constants

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        HfFileSystem.clear_instance_cache()
        yield
        HfFileSystem.clear_instance_cache()
        server.shutdown()


def test_a_data_set_of_the_hub_is_read_with_its_sub_folders(hub):
    found = read("hf://datasets/me/photos")
    assert list(found.values()) == 2 * list(CONTENT.values())
    assert list(found)[::9] == [
        "hf://datasets/me/photos/data/0.parquet::0",
        "hf://datasets/me/photos/data/more/1.parquet::4",
    ]
    assert len(read("hf://datasets/me/photos/data/0.parquet")) == 5


def test_an_archive_at_a_web_address_is_not_fetched_but_told_in_one_sentence():
    address = "https://example.org/photos.ZIP?download=1"
    reason = "archives at web addresses are not opened; save it and name the file"
    assert read(address) == {address: reason}
