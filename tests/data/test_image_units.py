"""Places of photographs are cut into units that processes share out."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap.data import image_units
from modeling_metaqap.data.image_units import ImageUnit, split_into_units
from modeling_metaqap.data.stored_images import span_ends, stored_images

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")


def png(value=0):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, "png")
    return file.getvalue()


def write_zip(path, count):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no image")
        for index in range(count):
            archive.writestr("same.png" if index < 2 else f"{index}.png", png(index))
    return str(path)


def write_parquet(path, groups):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for rows in groups:
            writer.write_table(pa.table({"image": [png()] * rows}, schema=schema))
    return str(path)


def names(units):
    return [[getattr(image, "name", image) for image in stored_images(one.places, span=one.span)] for one in units]


def test_single_photographs_are_batched_in_their_order():
    places = [f"{index}.jpg" for index in range(40)]
    units = split_into_units(places)
    assert [len(unit.places) for unit in units] == [16, 16, 8]
    assert [place for unit in units for place in unit.places] == places


@pytest.mark.parametrize(("count", "size"), [(3_200, 16), (100_000, 500), (10**6, 1000)])
def test_many_photographs_make_larger_units_up_to_a_limit(count, size):
    assert image_units._unit_size(count) == size


def test_the_key_of_a_unit_is_of_its_photographs_alone():
    units = split_into_units([f"{index}.jpg" for index in range(40)])
    later = split_into_units(
        [*(f"first {index}.jpg" for index in range(16)), *(f"{index}.jpg" for index in range(40))]
    )
    assert [unit.key for unit in later[1:]] == [unit.key for unit in units]
    spans = [ImageUnit(("a.zip",), span) for span in (None, range(0, 5), range(5, 9))]
    assert len({unit.key for unit in [*units, *spans]}) == 6
    assert ImageUnit(("\udcff.jpg",)).key != ImageUnit(("\udcfe.jpg",)).key  # names of any bytes


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_the_parts_of_an_archive_are_together_the_archive(tmp_path, kind):
    if kind == "zip":
        place = write_zip(tmp_path / "photos.zip", 40)
    else:
        place = write_parquet(tmp_path / "photos.parquet", [10, 10, 3, 10, 7])
    whole = names([ImageUnit((place,))])[0]
    units = split_into_units(["a.jpg", place, "b.jpg"])
    assert [units[0].places, units[-1].places] == [("a.jpg",), ("b.jpg",)]
    parts = names(units[1:-1])
    assert len(parts) > 1 and [name for part in parts for name in part] == whole
    assert len(set(whole)) == 40
    if kind == "parquet":
        assert [len(part) for part in parts] == [20, 20]  # row groups stay whole


def test_what_cannot_be_cut_is_a_unit_of_its_own(tmp_path, monkeypatch):
    small = write_zip(tmp_path / "small.zip", 5)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(b"damaged")
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"")
    places = [small, str(damaged), str(shard)]
    assert split_into_units(places) == [ImageUnit((place,)) for place in places]
    assert span_ends(str(damaged)) is None and span_ends(str(shard)) is None
    monkeypatch.setattr(image_units, "_MANY_ARCHIVES", 1)
    large = write_zip(tmp_path / "large.zip", 40)
    assert split_into_units([large, small]) == [ImageUnit((large,)), ImageUnit((small,))]


def test_what_is_wrong_with_a_table_has_a_name_of_its_own_in_each_part(tmp_path):
    place = write_parquet(tmp_path / "photos.parquet", [20, 20])
    units = split_into_units([place])
    found = [list(stored_images(unit.places, span=unit.span, image_column="picture")) for unit in units]
    assert [[image.name for image in images] for images in found] == [[f"{place}::0-19"], [f"{place}::20-39"]]
