"""Files that are either complete or as they were."""

import pytest
from PIL import Image

from modeling_metaqap.data.atomic import save_picture


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_a_picture_has_the_format_of_its_ending(tmp_path, name, kind):
    save_picture(Image.new("RGB", (40, 30), "red"), tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == (kind, (40, 30))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    old = tmp_path / "a.png"
    save_picture(Image.new("RGB", (40, 30), "red"), old)
    before = old.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_picture(Image.new("RGB", (400, 300), "blue"), old)
    assert old.read_bytes() == before
