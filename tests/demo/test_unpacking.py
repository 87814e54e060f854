"""Zip archives of strangers: what is unpacked of them, and what is refused."""

import io
import os
import stat
import zipfile

import pytest

from modeling_metaqap.demo import unpacking
from modeling_metaqap.demo.unpacking import Upload, unpack_uploads
from modeling_metaqap.errors import MetaQAPError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unpacked").mkdir()
    return tmp_path / "unpacked"


def zipped(path, members, **options):
    """An archive of names, or `ZipInfo`, and what they hold."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return Upload(path, path.name)


def unpacked(upload, folder, *, max_bytes=10**6, max_total=10**7):
    return unpack_uploads([upload], folder, max_bytes=max_bytes, max_total=max_total)


def of_kind(name, kind):
    member = zipfile.ZipInfo(name)
    member.external_attr = (kind | 0o777) << 16
    return member


def test_files_keep_their_folders_and_what_systems_add_is_left_out(tmp_path, folder):
    names = ["mine/a.jpg", "mine/ratings.csv", "__MACOSX/mine/._a.jpg", "mine/.DS_Store", "mine/deeper/"]
    upload = zipped(tmp_path / "Mine.ZIP", [(name, name) for name in names])
    (tmp_path / "b.jpg").write_text("b")
    found = unpack_uploads([upload, Upload(tmp_path / "b.jpg", "b#.jpg")], folder, max_bytes=99, max_total=99)
    assert [str(path.relative_to(folder)) for path in found] == ["mine/a.jpg", "mine/ratings.csv", "b#.jpg"]
    assert [path.read_text() for path in found] == ["mine/a.jpg", "mine/ratings.csv", "b"]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(found)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        ("../a.jpg", "has a name that leads elsewhere: ../a.jpg."),
        ("mine/../../.a", "has a name that leads elsewhere"),
        ("/tmp/a.jpg", "has a name that leads elsewhere: /tmp/a.jpg."),
        ("C:a.jpg", "has a name that leads elsewhere"),
        (r"..\a.jpg", "has a name that leads elsewhere"),
        (of_kind("a.jpg", stat.S_IFLNK), "is a link or a device: a.jpg."),
        (of_kind(".hidden", stat.S_IFLNK), "is a link or a device"),
        (of_kind("a.jpg", stat.S_IFIFO), "is a link or a device"),
        ("a" * 300, "has too long a name"),
        ("a/" * 40 + "a", "has too long a name"),
    ],
    ids=str,
)
def test_what_leads_elsewhere_is_refused_and_nothing_is_written(tmp_path, folder, member, sentence):
    upload = zipped(tmp_path / "mine.zip", [("first.jpg", "first"), (member, "/etc/passwd")])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(MetaQAPError) as refusal:
        unpacked(upload, folder)
    assert str(refusal.value).startswith("mine.zip is refused, since a file in it ") and sentence in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)
    assert set(tmp_path.rglob("*")) == before


def test_a_bomb_is_refused_by_its_list(tmp_path, folder, monkeypatch):
    upload = zipped(tmp_path / "bomb.zip", [("a.bmp", bytes(5_000_000))], compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(MetaQAPError, match=r"bomb.zip would unpack to more than 100 times its size"):
        unpacked(upload, folder)


def test_other_compressions_are_refused_since_they_unpack_all_of_a_chunk(tmp_path, folder):
    upload = zipped(tmp_path / "mine.zip", [("a.bmp", os.urandom(999))], compression=zipfile.ZIP_BZIP2)
    with pytest.raises(MetaQAPError, match=r"mine.zip is refused, since a file in it is compressed in an unusual way"):
        unpacked(upload, folder)


def test_limits_hold_whatever_the_list_says(tmp_path, folder):
    """The sizes in the list are changed to 1, by which an archive looks small."""
    honest = zipped(tmp_path / "honest.zip", [("a.jpg", os.urandom(3000)), ("b.jpg", os.urandom(3000))])
    with pytest.raises(MetaQAPError, match=r"a.jpg in honest.zip is larger than the limit of 2,000 bytes of one file"):
        unpacked(honest, folder, max_bytes=2000)
    (folder / "a.jpg").unlink()
    with pytest.raises(MetaQAPError, match=r"The files hold more than the limit of 5,000 bytes; give fewer"):
        unpacked(honest, folder, max_total=5000)
    content = honest.path.read_bytes()
    (tmp_path / "lying.zip").write_bytes(content.replace((3000).to_bytes(4, "little") * 2, b"\1\0\0\0" * 2))
    lying = tmp_path / "empty"
    lying.mkdir()
    try:
        unpacked(Upload(tmp_path / "lying.zip", "lying.zip"), lying, max_total=5000)
    except MetaQAPError as refusal:
        assert "lying.zip cannot be unpacked" in str(refusal)
    assert sum(path.stat().st_size for path in lying.iterdir()) <= 5000


def test_photographs_that_were_not_in_an_archive_count_too(tmp_path, folder):
    (tmp_path / "a.jpg").write_bytes(bytes(3000))
    with pytest.raises(MetaQAPError, match="more than the limit of 2,999 bytes"):
        unpacked(Upload(tmp_path / "a.jpg", "a.jpg"), folder, max_total=2999)


def test_too_many_files_are_refused(tmp_path, folder, monkeypatch):
    upload = zipped(tmp_path / "mine.zip", [(f"{number}.jpg", "") for number in range(4)])
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    with pytest.raises(MetaQAPError, match="There are more than 3 files"):
        unpacked(upload, folder)
    # Its list alone would take memory, before the files could be counted.
    monkeypatch.setattr(unpacking, "_MAX_LIST", 100)
    with pytest.raises(MetaQAPError, match="A zip archive has too many files in it"):
        unpacked(upload, folder)


def test_two_files_of_one_name_are_refused(tmp_path, folder):
    upload = zipped(tmp_path / "mine.zip", [("a.jpg", "one")])
    (tmp_path / "a.jpg").write_text("other")
    with pytest.raises(MetaQAPError, match=r"two files a.jpg; give each its own name"):
        unpack_uploads([upload, Upload(tmp_path / "a.jpg", "a.jpg")], folder, max_bytes=99, max_total=99)


@pytest.mark.parametrize(
    "damage", [lambda data: b"no zip", lambda data: data[:-9], lambda data: b"x" * 99 + data[99:]]
)
def test_a_damaged_archive_is_one_sentence(tmp_path, folder, damage):
    upload = zipped(tmp_path / "mine.zip", [("a.jpg", os.urandom(999))])
    upload.path.write_bytes(damage(upload.path.read_bytes()))
    with pytest.raises(
        MetaQAPError, match=r"^mine.zip cannot be unpacked; make a new zip archive, without a password.$"
    ):
        unpacked(upload, folder)


def test_an_archive_with_a_password_is_one_sentence(tmp_path, folder):
    upload = zipped(tmp_path / "mine.zip", [("a.jpg", "a")])
    content = bytearray(upload.path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    upload.path.write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.infolist()[0].flag_bits & 1
    with pytest.raises(MetaQAPError, match="without a password"):
        unpacked(upload, folder)
