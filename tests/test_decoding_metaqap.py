"""Odd files: each one is read, or refused with a reason that a person can act on."""

import ctypes
import io
import logging
import subprocess
import sys

import numpy as np
import pytest
from corpus import SCORE, _in_format, cases, photograph, wide_gamut_profile
from PIL import Image

from modeling_metaqap.crops_metaqap import crop_layout
from modeling_metaqap.data.silencing import silence_decoders
from modeling_metaqap.decoding_metaqap import (
    PHOTO_FORMATS,
    UnreadableImage,
    _serves,
    errors_explained,
    open_image,
    read_image,
    read_rgb,
)
from modeling_metaqap.inference.decoding import read_photograph

CASES = [case for case in cases(changed=2) if case.group not in ("far too narrow",)]


def output_of(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("group", sorted({case.group for case in CASES}))
def test_each_odd_file_is_read_or_refused_with_the_expected_reason(group, tmp_path):
    (tmp_path / "whole.jpg").write_bytes(_in_format(photograph(), "jpg"))
    for index, case in enumerate(case for case in CASES if case.group == group):
        path = tmp_path / f"{index}.jpg" if group != "links" else tmp_path / case.name.decode()
        case.write(path)
        try:
            pixels = read_photograph(path).pixels
        except UnreadableImage as error:
            reason = str(error)
            assert case.outcome != SCORE, f"{case.name!r}: {reason}"
            assert (case.outcome or "") in reason, case.name
            assert reason[0].islower() and not reason.endswith(".") and "\n" not in reason
        else:
            assert case.outcome in (SCORE, None), case.name
            assert pixels.mode == "RGB"


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, IndexError, AssertionError, OverflowError, MemoryError, KeyError]
)
def test_whatever_a_decoder_raises_is_a_reason_and_not_its_own_words(error, monkeypatch, tmp_path):
    photograph().save(tmp_path / "a.png")

    def load(self):
        raise error("decoder error -2 of 0x7f")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(UnreadableImage) as raised:
        read_rgb(tmp_path / "a.png")
    assert "decoder" not in str(raised.value)


def test_ctrl_c_is_no_error_of_an_image():
    with pytest.raises(KeyboardInterrupt), errors_explained():
        raise KeyboardInterrupt


def test_formats_of_no_photographs_are_not_opened_whatever_the_name(tmp_path):
    """EPS among them, for which Pillow would start Ghostscript."""
    path = tmp_path / "photo.jpg"
    photograph().save(path, "EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"
    with pytest.raises(UnreadableImage, match="PostScript"):
        open_image(path)
    assert not set(PHOTO_FORMATS) & {"EPS", "WMF", "MPEG", "FITS", "HDF5", "GRIB"}


def test_what_becomes_of_a_file_does_not_depend_on_what_was_opened_before():
    """Pillow loads plug-ins as files need them; ours are all there from the start."""
    code = "from modeling_metaqap.decoding_metaqap import PHOTO_FORMATS as formats; from PIL import Image; "
    assert output_of(code + "print(set(formats) - set(Image.OPEN))") == "set()"


def test_reading_images_does_not_load_pytorch():
    code = "import sys, modeling_metaqap.decoding_metaqap, modeling_metaqap.crops_metaqap; "
    assert output_of(code + "print('torch' in sys.modules)") == "False"


def test_12_bits_in_16_are_scaled_if_the_file_says_so(tmp_path):
    case = next(case for case in CASES if case.name == b"12 in 16 said.tif")
    case.write(tmp_path / "a.tif")
    expected = np.asarray(photograph().convert("L")).astype(float) * 16 * 255 / 4095
    np.testing.assert_allclose(np.asarray(read_rgb(tmp_path / "a.tif"))[..., 0], expected, atol=1)


def test_colours_of_a_wide_gamut_are_converted_to_srgb():
    """Reference: Adobe RGB (1998) pure green lies outside sRGB, and grey stays grey (both have the white D65)."""
    colours = Image.new("RGB", (3, 1))
    colours.putdata([(0, 255, 0), (128, 128, 128), (200, 60, 60)])
    data = io.BytesIO()
    colours.save(data, "PNG", icc_profile=wide_gamut_profile())
    green, grey, red = np.asarray(read_rgb(data))[0].astype(int)
    assert green.tolist() == pytest.approx([0, 255, 1], abs=3)
    assert np.abs(grey - 127).max() <= 3
    assert red[0] > 222 and red[1] < 60, "sRGB needs a larger value for the same red"


def test_a_profile_of_srgb_changes_nothing():
    from PIL import ImageCms

    plain = photograph()
    data = io.BytesIO()
    plain.save(data, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    np.testing.assert_array_equal(np.asarray(read_rgb(data)), np.asarray(plain))


def test_programs_can_keep_libtiffs_own_words_off_standard_error(tmp_path):
    """Such as "ZIPDecode: Decoding error at scanline 0": the file's error says it in other words."""
    photograph().save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[20:60] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(data)
    said = []

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    def listen(module, words, arguments):
        said.append(words)

    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(listen)  # in place of the handler that prints
    for words in (1, 0):
        with pytest.raises(UnreadableImage, match="it is damaged"):
            read_rgb(tmp_path / "a.tif")
        assert bool(said) == bool(words)
        said.clear()
        silence_decoders()
    # Where no logging is set up, Python prints what is logged to nobody.
    assert any(isinstance(one, logging.NullHandler) for one in logging.getLogger("PIL").handlers)


def test_the_large_ones_of_16_bits_are_scaled_as_a_whole(tmp_path, monkeypatch):
    """A dark strip does not tell what white is."""
    pixels = np.zeros((1200, 1300), dtype=np.uint16)
    pixels[:400], pixels[400:] = 2000, 65535
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    monkeypatch.setattr("modeling_metaqap.inference.decoding._LARGE_PIXELS", 1_000_000)
    monkeypatch.setattr("modeling_metaqap.inference.decoding._LARGE_SHORTEST_EDGE", 600)
    shrunk = np.asarray(read_photograph(tmp_path / "a.tif").pixels)
    assert shrunk.shape[0] == 600 and shrunk[0, 0, 0] == 8 and shrunk[-1, 0, 0] == 255


class TestLargeJpegs:
    """The decoder of a JPEG file may leave out detail, as long as twice the pixels stay that the model will see."""

    @pytest.fixture(scope="class")
    def picture(self):
        # Of another colour in every corner, so that a turned or wrongly coloured one is another picture.
        noise = np.random.default_rng(1).integers(40, 220, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize((602, 401), Image.Resampling.BICUBIC)

    @pytest.mark.parametrize("kind", ["plain", "turned", "progressive", "grey", "CMYK", "wide gamut", "MPO"])
    def test_it_looks_the_same_and_keeps_its_size_and_colours(self, picture, kind):
        options = {"format": "JPEG", "quality": 95}
        if kind == "turned":
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6
        elif kind == "progressive":
            options["progressive"] = True
        elif kind == "wide gamut":
            options["icc_profile"] = wide_gamut_profile()
        elif kind == "MPO":
            options |= {"format": "MPO", "save_all": True, "append_images": [picture.resize((90, 60))]}
        picture = picture.convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
        data = io.BytesIO()
        picture.save(data, **options)
        whole, drafted = read_image(data), read_image(data, shortest_edge=100)
        assert whole.pixels.size == (whole.width, whole.height) == ((401, 602) if kind == "turned" else (602, 401))
        assert drafted[1:] == whole[1:]
        assert drafted.pixels.size == ((201, 301) if kind == "turned" else (301, 201))
        assert drafted.pixels.mode == "RGB" and not drafted.pixels.info
        expected = whole.pixels.resize(drafted.pixels.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(drafted.pixels).astype(float) - np.asarray(expected)).mean() < 2

    @pytest.mark.parametrize(
        ("size", "suffix", "shortest_edge", "expected"),
        [
            ((260, 240), "JPEG", 60, (130, 120)),
            ((260, 238), "JPEG", 60, (260, 238)),
            ((1040, 960), "JPEG", 60, (130, 120)),
            ((1040, 960), "JPEG", None, (1040, 960)),
            ((1040, 960), "PNG", 60, (1040, 960)),
        ],
    )
    def test_only_as_far_as_twice_the_pixels_stay_that_are_seen(self, size, suffix, shortest_edge, expected):
        data = io.BytesIO()
        Image.new("RGB", size).save(data, suffix)
        assert read_image(data, shortest_edge=shortest_edge).pixels.size == expected

    def test_the_crops_lie_where_they_lie_in_all_pixels(self):
        drafted = 0
        for width, height in np.random.default_rng(0).integers(1024, 9000, (3000, 2)).tolist():
            for factor in (2, 4, 8):
                if _serves((width, height), factor, 512):
                    reduced = [-(-side // factor) for side in (height, width)]
                    assert crop_layout(*reduced) == crop_layout(height, width)
                    drafted += 1
        assert drafted > 2000


def test_a_heic_photograph_is_read_upright_where_its_package_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the heif extra")
    expected = photograph()
    turned, orientation = expected.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    orientation[0x0112] = 6
    pillow_heif.from_pillow(turned).save(tmp_path / "photo.heic", quality=100, exif=orientation.tobytes())
    heic = read_photograph(tmp_path / "photo.heic")
    assert (heic.width, heic.height, heic.is_first_frame) == (*expected.size, False)
    assert np.abs(np.asarray(heic.pixels, dtype=float) - np.asarray(expected.convert("RGB"))).mean() < 10


def test_without_its_package_a_heic_photograph_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from modeling_metaqap.decoding_metaqap import UnreadableImage, open_image\n"
        f"try: open_image({str(tmp_path / 'photo.heic')!r})\n"
        "except UnreadableImage as error: print(error)"
    )
    assert output_of(code) == (
        "it is a HEIC photograph, which only pillow-heif reads; install that, or save it as JPEG or PNG"
    )
