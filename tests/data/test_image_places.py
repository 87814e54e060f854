"""What users type -> places of images, and what kind each is."""

import os
import zipfile

import fsspec
import pytest

from modeling_metaqap import MetaQAPError
from modeling_metaqap.data.image_places import Kind, find_places, kind_of, search_places


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    for name in ("a.jpg", "b [1].PNG", "notes.txt", "sub/c.webp", "shards/0.tar", "shards/1.parquet"):
        files.pipe(f"/photos/{name}", b"content")
    return "memory://photos"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "backup.zip", "shards/0.tar", "shards/cache-1.arrow", "shards/1.TAR.GZ", "empty/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_the_name_decides_what_a_place_is(folder):
    assert kind_of("https://example.org/photos.zip") is Kind.address
    assert kind_of("s3://bucket/a.jpg") is kind_of("zip://a.jpg::photos.zip") is Kind.remote
    assert kind_of("s3://bucket/a.tar.gz") is kind_of("simplecache::s3://bucket/a.tar") is Kind.tar
    assert kind_of(str(folder / "backup.zip")) is Kind.zip
    assert kind_of("there/is/no.zip") is kind_of("C:/photos/a.jpg") is Kind.file
    assert [kind for kind in Kind if kind.holds_many] == [Kind.zip, Kind.tar, Kind.table]


def test_a_folder_gives_its_images_or_if_it_has_none_its_archives(folder):
    assert find_places([str(folder)]) == [str(folder / "a.jpg")]
    assert find_places([f"file://{folder}"]) == [str(folder / "a.jpg")]
    assert find_places([str(folder / "shards")]) == [str(folder / "shards" / name) for name in ("0.tar", "1.TAR.GZ")]
    with pytest.raises(MetaQAPError, match="holds no images; add --recursive"):
        find_places([str(folder / "empty")])


def test_a_folder_is_listed_once(folder, memory, monkeypatch):
    for name in ("b.CR2", "sub/c.nef", ".jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    fsspec.filesystem("memory").pipe("/photos/d.nef", b"content")
    listed, walk = [], os.walk
    monkeypatch.setattr(os, "walk", lambda path: listed.append(path) or walk(path))
    found = search_places([str(folder), memory, str(folder)], recursive=True)
    assert found.places[0] == str(folder / "a.jpg") and len(found.places) == 4
    assert found.unread == [str(folder / "b.CR2"), str(folder / "sub/c.nef"), "memory:///photos/d.nef"]
    assert listed.count(str(folder)) == 2, "once for each time that it was named"
    listed.clear()
    assert len(find_places([str(folder / "shards")])) == 2
    with pytest.raises(MetaQAPError, match="left out: 1 .nef"):
        find_places([str(folder / "sub")])
    assert len(listed) == 2


def test_folders_patterns_and_files_of_fsspec_are_found(memory):
    assert find_places([memory]) == ["memory:///photos/a.jpg", "memory:///photos/b [1].PNG"]
    assert len(find_places([memory], recursive=True)) == 3
    assert find_places([f"{memory}/shards"]) == ["memory:///photos/shards/0.tar", "memory:///photos/shards/1.parquet"]
    assert find_places([f"{memory}/*.jpg", f"{memory}/b [1].PNG"]) == [
        "memory:///photos/a.jpg",
        "memory://photos/b [1].PNG",
    ]


def test_members_of_an_archive_of_fsspec_keep_the_name_of_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/b.jpg", b"content")
    assert find_places([f"zip://in::{tmp_path}/a.zip"]) == [f"zip://in/b.jpg::{tmp_path}/a.zip"]


def test_a_list_gives_its_lines_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a.jpg\r\nhttps://example.org/b.jpg\n\ns3://bucket/*.jpg\na.jpg\n")
    assert find_places(["@list.txt"]) == ["a.jpg", "https://example.org/b.jpg", "s3://bucket/*.jpg"]
    (tmp_path / "@photo.jpg").touch()
    assert find_places(["@photo.jpg"]) == ["@photo.jpg"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("memory://photos/absent.jpg", "There is no file or folder memory://photos/absent.jpg"),
        ("memory://photos/*.gif", "No file matches"),
        ("nonsense://a.jpg", "nonsense"),
        ("zip://a.jpg::https://example.org/a.zip", "leads through a web address; save that file"),
        ("zip://a.jpg::absent.zip", "absent.zip"),
        ("@absent.txt", "The list absent.txt cannot be read: no such file"),
        ("absent.zip", "There is no file or folder absent.zip"),
    ],
)
def test_a_place_that_cannot_be_read_is_one_sentence(memory, argument, message):
    with pytest.raises(MetaQAPError, match=message.replace("*", r"\*")) as caught:
        find_places([argument])
    assert str(caught.value).endswith(".") and not str(caught.value).endswith("..")
