"""Programs that read many files keep what libtiff prints of damaged ones off the terminal."""

import ctypes

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modeling_metaqap.data.silencing import silence_decoders
from modeling_metaqap.decoding_metaqap import UnreadableImage, read_rgb


@pytest.fixture
def damaged(tmp_path):
    """A TIFF file that libtiff finds fault with."""
    (tmp_path / "photographs").mkdir()
    file = tmp_path / "photographs" / "a.tif"
    picture = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    ImageDraw.Draw(picture).ellipse((8, 8, 50, 40), fill="orange")
    picture.save(file, compression="tiff_lzw")
    data = bytearray(file.read_bytes())
    data[20:60] = b"\xff" * 40
    file.write_bytes(data)
    return file


@pytest.fixture
def said():
    """What libtiff has said since the test began."""
    words = []

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    def listen(module, text, arguments):
        words.append(text)

    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(listen)  # in place of the handler that prints
    yield words
    silence_decoders()


def test_libtiff_speaks_unless_it_is_told_not_to(damaged, said):
    with pytest.raises(UnreadableImage):
        read_rgb(damaged)
    assert said


def test_distorting_says_nothing_but_its_own_sentence(damaged, said, tmp_path, monkeypatch, capfd):
    pytest.importorskip("piq")
    from modeling_metaqap.cli.distort_set import PROGRAM

    Image.effect_noise((96, 96), 60).convert("RGB").save(damaged.with_name("b.png"))
    options = ["--pristine_dir", str(damaged.parent), "--output_dir", str(tmp_path / "distorted"), "--per_image", "1"]
    PROGRAM.main([*options, "--metrics", "psnr"])
    assert said == []
    assert "Skipped a.tif: it is damaged" in capfd.readouterr().err


def test_training_says_nothing_either(damaged, said, monkeypatch):
    pytest.importorskip("accelerate")
    import modeling_metaqap.training.loop as loop
    from modeling_metaqap.training.__main__ import train_and_report

    def read(recipe, settings):
        with pytest.raises(UnreadableImage):
            read_rgb(damaged)

    monkeypatch.setattr(loop, "train", read)
    train_and_report(None, None)
    assert said == []
