"""Images in archives, tables and elsewhere are read as they lie, and what is damaged is one image's error."""

import gzip
import io
import re
import tarfile
import tracemalloc
import zipfile

import fsspec
import numpy as np
import pytest
from corpus import photograph

from modeling_metaqap.data import stored_images as module
from modeling_metaqap.data.stored_images import StoredImage, images_in, stored_images
from modeling_metaqap.decoding_metaqap import UnreadableImage
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fetching_metaqap import Fetching
from modeling_metaqap.installing import missing_package

pa = pytest.importorskip("pyarrow", reason="needs the train extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the train extra")

CONTENT = {f"{index} ü.jpg": bytes([index]) * (100 + index) for index in range(5)}
CELLS = tuple(CONTENT.values())


def make_zip(path, members=CONTENT, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def make_tar(path, members=CONTENT, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in dict(members).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def make_parquet(path, cells=CELLS, row_group=2):
    images = [{"bytes": cell, "path": f"{index}.jpg"} for index, cell in enumerate(cells)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"label": list(range(len(cells))), "image": pa.array(images, kind)})
    pq.write_table(table, path, row_group_size=row_group)
    return str(path)


def read(images):
    """Name -> bytes, or the reason why there are none; all read at the end, as decoding threads may."""
    found = {}
    for image in list(images):
        try:
            found[image.name] = image.read()
        except UnreadableImage as error:
            found[image.name] = str(error)
    return found


def named(place, members=CONTENT):
    return {f"{place}::{name}": data for name, data in members.items()}


class TestArchives:
    @pytest.mark.parametrize(("make", "suffix"), [(make_zip, "zip"), (make_tar, "tar"), (make_tar, "tar.gz")])
    def test_the_images_of_an_archive_are_read_under_its_name_and_theirs(self, tmp_path, make, suffix):
        others = {"0.json": b"{}", "notes.txt": b"text", "__MACOSX/._a.jpg": b"shadow", "in/b.PNG": b"b"}
        options = {"mode": "w:gz"} if suffix == "tar.gz" else {}
        place = make(tmp_path / f"photos.{suffix}", CONTENT | others, **options)
        assert read(stored_images([place])) == named(place, CONTENT | {"in/b.PNG": b"b"})
        skipped = {f"{place}::{name}" for name in list(CONTENT)[:4]}
        assert list(read(stored_images([place], skip=skipped))) == [f"{place}::4 ü.jpg", f"{place}::in/b.PNG"]
        assert read(stored_images([place], skip={*named(place), f"{place}::in/b.PNG"})) == {}

    def test_the_same_archive_elsewhere_gives_the_same_images(self, tmp_path):
        files = fsspec.filesystem("memory")
        for make, name in ((make_zip, "a.zip"), (make_tar, "a.tar"), (make_parquet, "a.parquet")):
            with open(make(tmp_path / name), "rb") as file:
                files.pipe(f"/{name}", file.read())
            place = f"memory://{name}"
            assert list(read(stored_images([place])).values()) == list(CONTENT.values())
        files.pipe("/a.jpg", b"content")
        assert read(stored_images(["memory://a.jpg", "memory://b.jpg"])) == {
            "memory://a.jpg": b"content",
            "memory://b.jpg": "it cannot be fetched from its storage: no such file or directory",
        }

    def test_members_of_one_name_have_different_names(self, tmp_path):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            for data in (b"1", b"2", b"3"):
                member = tarfile.TarInfo("a.jpg")
                member.size = 1
                archive.addfile(member, io.BytesIO(data))
        expected = {f"{path}::a.jpg": b"1", f"{path}::a.jpg::2": b"2", f"{path}::a.jpg::3": b"3"}
        assert read(stored_images([str(path)])) == expected
        assert read(stored_images([str(path)], skip={f"{path}::a.jpg"})) == dict(list(expected.items())[1:])

    @pytest.mark.parametrize("make", [make_zip, make_tar])
    def test_names_that_lead_elsewhere_are_only_names(self, tmp_path, make, monkeypatch):
        monkeypatch.chdir(tmp_path)
        members = {"../../outside.jpg": b"1", "/etc/absolute.jpg": b"2"}
        place = make(tmp_path / ("a.zip" if make is make_zip else "a.tar"), members)
        assert list(read(stored_images([place])).values()) == [b"1", b"2"]
        assert [path.name for path in tmp_path.rglob("*")] == [place.rsplit("/", 1)[1]]

    def test_links_in_a_tar_are_not_followed(self, tmp_path):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            link = tarfile.TarInfo("a.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(link)
        assert read(stored_images([str(path)])) == {str(path): "it holds no images"}

    @pytest.mark.parametrize(("make", "suffix"), [(make_zip, "zip"), (make_tar, "tar")])
    def test_photographs_that_cannot_be_read_here_are_named(self, tmp_path, monkeypatch, make, suffix):
        monkeypatch.setattr(module, "IMAGE_SUFFIXES", frozenset({".jpg"}))
        monkeypatch.setattr(module, "UNREAD_SUFFIXES", frozenset({".heic", ".dng"}))  # as without pillow-heif
        phone = {"a.HEIC": b"a", "b.heic": b"b", "__MACOSX/._a.HEIC": b"shadow", "c.dng": b"c"}
        place, unread = make(tmp_path / f"phone.{suffix}", phone), []
        [(name, reason)] = read(stored_images([place], unread=unread)).items()
        said = (
            "it holds only photographs that cannot be read here: 2 .heic, 1 .dng; install pillow-heif for HEIC: `pip"
        )
        assert (name, unread) == (place, []) and reason.startswith(said)
        place = make(tmp_path / f"raw.{suffix}", {"a.dng": b"a"})
        assert read(stored_images([place])) == {place: "it holds only photographs that cannot be read here: 1 .dng"}
        mixed = make(tmp_path / f"mixed.{suffix}", {"0.jpg": b"0", **phone})
        assert read(stored_images([place, mixed], unread=unread)).keys() == {place, f"{mixed}::0.jpg"}
        assert unread == [f"{mixed}::{name}" for name in ("a.HEIC", "b.heic", "c.dng")]

    @pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.parquet", "a.arrow"])
    @pytest.mark.parametrize(
        "content", [b"", b"no archive at all", b"PK\x05\x06" + b"\xff" * 18, b"PAR1\xff\xff\xff\x7fPAR1"]
    )
    def test_what_is_no_archive_is_one_image_with_an_error(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        place = str(tmp_path / name)
        [(image, reason)] = read(stored_images([place])).items()
        assert image == place and isinstance(reason, str)
        assert read(stored_images([place], skip={place})) == {}

    @pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
    def test_a_tar_that_is_cut_short_gives_what_lies_before(self, tmp_path, suffix):
        noise = np.random.default_rng(0)
        members = {name: noise.bytes(5000) for name in CONTENT}
        place = make_tar(tmp_path / f"a.{suffix}", members, "w:gz" if suffix == "tar.gz" else "w")
        with open(place, "r+b") as file:
            file.truncate(14_000)
        found = read(stored_images([place]))
        assert list(found) == [f"{place}::0 ü.jpg", f"{place}::1 ü.jpg", place]
        assert list(found.values())[:2] == list(members.values())[:2]
        assert "behind" in found[place]

    def test_a_damaged_header_in_a_tar_does_not_pass_for_its_end(self, tmp_path):
        place = make_tar(tmp_path / "a.tar", {name: b"x" * 512 for name in "a.jpg b.jpg c.jpg".split()})
        with open(place, "r+b") as file:
            file.seek(1024)
            file.write(b"\xff" * 100)
        found = read(stored_images([place]))
        assert list(found) == [f"{place}::a.jpg", place]
        assert "damaged" in found[place]

    def test_a_damaged_member_of_a_zip_is_its_own_error(self, tmp_path):
        place = make_zip(tmp_path / "a.zip", compression=zipfile.ZIP_STORED)
        data = open(place, "rb").read()
        with open(place, "wb") as file:
            file.write(data.replace(CONTENT["1 ü.jpg"], b"\xff" * 101))
        found = read(stored_images([place]))
        assert found.pop(f"{place}::1 ü.jpg") == "it is damaged in its archive; copy it again from where it came from"
        assert list(found.values()) == [data for name, data in CONTENT.items() if name != "1 ü.jpg"]

    @pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_member_that_python_would_unpack_without_a_bound_is_not_unpacked(self, compression, tmp_path):
        place = make_zip(tmp_path / "a.zip", {"a.jpg": b"1" * 1000}, compression=compression)
        found = read(stored_images([place]))
        assert found == {f"{place}::a.jpg": "it is packed in a way that is not read; pack it again with plain zip"}

    def test_an_encrypted_member_says_so(self, tmp_path):
        place = make_zip(tmp_path / "a.zip", {"a.jpg": b"1"})
        data = bytearray(open(place, "rb").read())
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        open(place, "wb").write(data)
        assert read(stored_images([place])) == {f"{place}::a.jpg": "it is encrypted in its archive"}


class TestBombs:
    @pytest.fixture(autouse=True)
    def smaller_limit(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_BYTES", 1_000_000)

    def memory_of(self, place):
        """Reasons of its images, and the most memory that reading them took."""
        tracemalloc.start()
        try:
            found = read(stored_images([place]))
            return list(found.values()), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("kind", ["zip", "tar.gz"])
    def test_a_member_that_says_it_is_large_is_not_unpacked(self, tmp_path, kind):
        members = {"bomb.jpg": bytes(30_000_000), "a.jpg": b"small"}
        make, options = (make_zip, {}) if kind == "zip" else (make_tar, {"mode": "w:gz"})
        reasons, peak = self.memory_of(make(tmp_path / f"a.{kind}", members, **options))
        assert "larger than the limit of 1,000,000 bytes" in reasons[0]
        assert reasons[1] == b"small"
        assert peak < 8_000_000

    def test_a_member_that_lies_about_its_size_is_read_to_the_limit_only(self, tmp_path):
        place = make_zip(tmp_path / "a.zip", {"bomb.jpg": bytes(30_000_000)})
        data = bytearray(open(place, "rb").read())
        for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            at = data.index(signature) + offset
            data[at : at + 4] = (1000).to_bytes(4, "little")
        open(place, "wb").write(data)
        [reason], peak = self.memory_of(place)
        assert "damaged in its archive" in reason and peak < 8_000_000

    def test_a_tar_whose_header_is_a_bomb_is_given_up(self, tmp_path):
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 50_000_000
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(header.tobuf() + bytes(header.size), 1))
        reasons, peak = self.memory_of(str(path))
        assert "damaged" in reasons[0] and peak < 8_000_000


class TestTables:
    def test_rows_are_named_by_their_number(self, tmp_path):
        place = make_parquet(tmp_path / "a.parquet")
        expected = {f"{place}::{row}": data for row, data in enumerate(CONTENT.values())}
        assert read(stored_images([place])) == expected
        assert list(read(stored_images([place], skip={f"{place}::0", f"{place}::1", f"{place}::3"}))) == [
            f"{place}::2",
            f"{place}::4",
        ]

    def test_only_the_column_of_images_and_only_what_is_wanted_is_read(self, tmp_path, monkeypatch):
        place = make_parquet(tmp_path / "a.parquet")
        iter_batches, asked = pq.ParquetFile.iter_batches, []

        def counted(self, *args, **options):
            asked.append((options["row_groups"], options["columns"]))
            return iter_batches(self, *args, **options)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
        read(stored_images([place], skip={f"{place}::2", f"{place}::3"}))
        assert asked == [([0], ["image.bytes"]), ([2], ["image.bytes"])]

    def test_a_column_of_plain_bytes_and_arrow_files_are_read_too(self, tmp_path):
        cells = list(CONTENT.values())
        pq.write_table(pa.table({"photo": pa.array(cells, pa.binary())}), tmp_path / "plain.parquet")
        found = read(images_in([str(tmp_path / "plain.parquet")], image_column="photo"))
        assert list(found.values()) == cells
        table = pa.table({"label": [0, 0, 0, 0, 0], "photo": pa.array(cells, pa.large_binary())})
        with pa.OSFile(str(tmp_path / "plain.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        found = read(images_in([str(tmp_path / "plain.arrow")], image_column="photo"))
        assert list(found.values()) == cells
        datasets = pytest.importorskip("datasets", reason="needs the train extra")
        jpeg = io.BytesIO()
        photograph(8, 8).save(jpeg, "JPEG")
        images = [{"bytes": jpeg.getvalue(), "path": None}] * 3
        features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
        datasets.Dataset.from_dict({"label": [1, 2, 3], "image": images}, features).save_to_disk(tmp_path / "set")
        found = read(images_in([str(tmp_path / "set")]))
        assert [name.rsplit("::")[1] for name in found] == ["0", "1", "2"]
        assert set(found.values()) == {jpeg.getvalue()}

    def test_rows_without_bytes_do_not_lead_anywhere(self, tmp_path):
        (tmp_path / "0.jpg").write_bytes(b"private")
        place = make_parquet(tmp_path / "a.parquet", [None, b"", b"data"])
        assert list(read(stored_images([place])).values()) == [
            "its row holds no image; a path alone is not followed",
            b"",
            b"data",
        ]

    @pytest.mark.parametrize(
        ("column", "reason"),
        [
            ("picture", "it has no column 'picture'; name one of label, image with --image-column"),
            ("label", "its column 'label' holds int64, not images"),
        ],
    )
    def test_a_column_that_holds_no_images_says_so(self, tmp_path, column, reason):
        place = make_parquet(tmp_path / "a.parquet")
        assert read(stored_images([place], image_column=column)) == {place: reason}

    def test_without_pyarrow_it_says_what_to_install(self, tmp_path, monkeypatch):
        place = make_parquet(tmp_path / "a.parquet")
        monkeypatch.setattr("modeling_metaqap.data.image_places.find_spec", lambda name: None)
        with pytest.raises(MetaQAPError, match=re.escape(missing_package("pyarrow"))):
            next(images_in([place]))
        assert read(stored_images([make_zip(tmp_path / "a.zip")])) == named(tmp_path / "a.zip")

    def test_a_damaged_row_group_leaves_the_others(self, tmp_path):
        noise = [np.random.default_rng(index).bytes(3000) for index in range(6)]
        place = make_parquet(tmp_path / "a.parquet", noise)
        column = pq.ParquetFile(place).metadata.row_group(1).column(1)
        data = bytearray(open(place, "rb").read())
        at = column.dictionary_page_offset or column.data_page_offset
        data[at : at + 40] = b"\xff" * 40
        open(place, "wb").write(data)
        found = read(stored_images([place]))
        assert [name.removeprefix(f"{place}::") for name in found] == ["0", "1", "2-3", "4", "5"]
        assert "these rows are damaged" in found[f"{place}::2-3"]


def test_limits_of_web_addresses_are_kept_and_are_the_error_of_one_image(tmp_path, served):
    (tmp_path / "a.jpg").write_bytes(b"small")
    (tmp_path / "b.jpg").write_bytes(bytes(2000))
    addresses = [f"{served}/{name}.jpg" for name in "abc"]
    found = read(stored_images(addresses, fetching=Fetching(max_bytes=1000, allow_private=True)))
    assert found == {
        addresses[0]: b"small",
        addresses[1]: f"{addresses[1]} holds more than 1,000 bytes",
        addresses[2]: f"{addresses[2]} answers 404 File not found",
    }
    assert all("private network, which may not be fetched" in error for error in read(images_in(addresses)).values())
    [error] = read(stored_images(addresses[:1], fetching=Fetching(timeout=0, allow_private=True))).values()
    assert "took longer than 0 seconds" in error


def test_few_members_of_an_archive_are_in_memory_at_a_time(tmp_path):
    place = make_tar(tmp_path / "a.tar", {f"{index}.jpg": bytes(1_000_000) for index in range(60)})
    tracemalloc.start()
    assert sum(len(image.read()) for image in stored_images([place])) == 60_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_files_of_this_machine_stay_paths(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert list(images_in([str(tmp_path)])) == [str(tmp_path / "a.jpg")]
    assert isinstance(next(stored_images(["https://example.org/a.jpg"])), StoredImage)
