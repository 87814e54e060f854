"""Small pictures of photographs."""

import pytest
from PIL import Image

from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.thumbnails import make_thumbnail, with_thumbnails


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 50), (20, 10)), ((50, 100), (10, 20)), ((12, 6), (12, 6)), ((900, 2), (20, 1))]
)
def test_the_longer_side_is_as_asked_and_small_pictures_keep_theirs(size, expected):
    image = Image.new("RGB", size, "red")
    assert make_thumbnail(image, 20).size == expected
    assert image.size == size


def test_records_keep_their_order_and_get_the_photographs_that_are_still_theirs(tmp_path):
    for number in range(70):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").unlink()
    (tmp_path / "4.png").write_bytes(b"broken")
    Image.new("RGB", (20, 40)).save(tmp_path / "5.png")  # another photograph of the same name
    names = [f"{number}.png" for number in range(70)]
    records = [ScoreRecord(path=name, quality=0.5, width=40, height=20) for name in names]
    records[6] = ScoreRecord(path=str(tmp_path / "6.png"), quality=0.5, width=40, height=20)
    records[7] = ScoreRecord(path="7.png", error="it was broken")
    done = list(with_thumbnails(records, side=10, folder=tmp_path))
    assert done == records
    assert [number for number, record in enumerate(done) if record.thumbnail is None] == [3, 4, 5, 7]
    for number, record in enumerate(done):
        if record.thumbnail is not None:
            assert record.thumbnail.size == (10, 5) and record.thumbnail.getpixel((0, 0)) == (number, 0, 0)
