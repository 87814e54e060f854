import base64
import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iqa_fixtures import noise
from PIL import Image
from transformers import AutoImageProcessor

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.image_processing_metaqap import (
    crop_layout,
    load_image,
    merge_crops,
    prepare_crops,
    shrink,
    to_rgb,
)


@pytest.fixture(scope="module")
def pixels():
    """24 rows of 40 pixels of noise, uint8 RGB."""
    return np.random.default_rng(0).integers(256, size=(24, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small():
    """Works like the real one on images that are 16 times smaller."""
    return MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def decode(data):
    return Image.open(io.BytesIO(data))


def rgb(image):
    found = to_rgb(image)
    assert found.mode == "RGB"
    return np.asarray(found)


# Bringing images to RGB


# EXIF 2.32, tag 274 "Orientation": what has to be done to the stored rows and columns to see the scene upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),  # clockwise
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation, fmt, pixels):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(Image.fromarray(pixels), fmt, exif=exif, **options)
    expected = UPRIGHT[orientation](pixels)
    once = to_rgb(decode(data))
    np.testing.assert_array_equal(np.asarray(once), expected)
    np.testing.assert_array_equal(rgb(once), expected)


def tiff_exif(*entries):
    """EXIF data with the given 12-byte directory entries."""
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + b"".join(entries) + struct.pack("<L", 0)


ROTATE = struct.pack("<HHLHH", 274, 3, 1, 6, 0)


@pytest.mark.parametrize(
    "exif",
    [
        tiff_exif(struct.pack("<HHL4s", 256, 2, 4, b"abc\0"), ROTATE),  # a width that is a text
        tiff_exif(struct.pack("<HHLL", 271, 99, 1, 0), ROTATE),  # a type that does not exist
        tiff_exif(ROTATE, struct.pack("<HHLL", 34665, 4, 1, 99999)),  # a directory beyond the end
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_malformed_exif_data_does_not_stop_an_image(exif, pixels):
    data = encode(Image.fromarray(pixels), "JPEG", exif=exif)
    assert to_rgb(decode(data)).size == (24, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_orientation_that_does_not_exist_is_ignored(pixels):
    for value in (0, 9, 77):
        exif = Image.Exif()
        exif[274] = value
        np.testing.assert_array_equal(rgb(decode(encode(Image.fromarray(pixels), "PNG", exif=exif))), pixels)


def test_the_callers_image_is_left_as_it_is(pixels):
    exif = Image.Exif()
    exif[274] = 6
    image = decode(encode(Image.fromarray(pixels), "PNG", exif=exif))
    image.load()
    to_rgb(image)
    assert image.size == (40, 24) and image.getexif()[274] == 6
    plain = Image.fromarray(pixels)
    assert to_rgb(plain) is not plain


def test_transparency_is_laid_over_white(pixels):
    alpha = np.random.default_rng(1).integers(256, size=pixels.shape[:2], dtype=np.uint8)
    share = alpha[..., None] / 255
    expected = share * pixels + (1 - share) * 255
    for fmt in ("PNG", "TIFF"):
        data = encode(Image.fromarray(np.dstack([pixels, alpha])), fmt)
        np.testing.assert_allclose(rgb(decode(data)), expected, atol=1)
    grey = pixels[..., 0]
    found = rgb(decode(encode(Image.fromarray(np.dstack([grey, alpha])), "PNG")))
    np.testing.assert_allclose(found, np.repeat(share * grey[..., None] + (1 - share) * 255, 3, axis=2), atol=1)


def test_a_transparent_colour_of_a_palette_becomes_white(pixels):
    palette = Image.fromarray(pixels).quantize(8)
    for transparency in (3, bytes([255, 255, 255, 0])):
        found = rgb(decode(encode(palette, "PNG", transparency=transparency)))
        expected = np.asarray(palette.convert("RGB")).copy()
        expected[np.asarray(palette) == 3] = 255
        np.testing.assert_array_equal(found, expected)


def test_a_transparent_colour_without_palette_becomes_white(pixels):
    image = Image.fromarray(pixels)
    found = rgb(decode(encode(image, "PNG", transparency=image.getpixel((5, 7)))))
    assert found[7, 5].tolist() == [255, 255, 255]
    assert (found != pixels).any(axis=2).sum() == 1


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "JPEG2000"])
def test_16_bit_grey_is_scaled_to_8_bit(fmt):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = rgb(decode(encode(Image.fromarray(values), fmt)))
    # 65535 / 255 = 257 steps of 16 bit are one of 8 bit.
    np.testing.assert_array_equal(found, np.repeat(np.rint(values / 257)[..., None], 3, axis=2))
    assert found.min() == 0 and found.max() == 255


def test_32_bit_mode_of_a_16_bit_file_is_scaled_too():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.int32)
    assert rgb(Image.fromarray(values))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_cmyk_jpeg_keeps_its_colours():
    # Inks of 0 and 255 (none, all): white, cyan, magenta, yellow, black.
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]
    colours = [(255, 255, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)]
    for ink, colour in zip(inks, colours, strict=True):
        opened = decode(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
        assert opened.mode == "CMYK"
        np.testing.assert_allclose(rgb(opened), np.full((16, 16, 3), colour), atol=2)


def test_grey_and_black_and_white_become_three_equal_channels(pixels):
    grey = pixels[..., 0]
    np.testing.assert_array_equal(rgb(Image.fromarray(grey)), np.repeat(grey[..., None], 3, axis=2))
    bilevel = Image.fromarray(grey).point(lambda value: 255 * (value > 127), mode="1")
    np.testing.assert_array_equal(rgb(bilevel), np.repeat(255 * (grey[..., None] > 127), 3, axis=2))


@pytest.mark.parametrize("fmt", ["GIF", "MPO", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(fmt):
    red, blue = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")
    options = {"lossless": True} if fmt == "WEBP" else {}
    opened = decode(encode(red, fmt, save_all=True, append_images=[blue], **options))
    assert opened.n_frames == 2
    np.testing.assert_allclose(rgb(opened), np.full((24, 32, 3), (255, 0, 0)), atol=2)


def test_floating_point_images_are_refused():
    with pytest.raises(ValueError, match="convert it to 8 or 16 bit"):
        to_rgb(Image.new("F", (4, 4)))


# Kinds of input


def crops_of(processor, image, **options):
    return processor(image, return_tensors="pt", **options)["pixel_values"]


def test_files_objects_arrays_and_tensors_give_the_same_pixels(small, pixels, tmp_path):
    image = Image.fromarray(pixels)
    path = tmp_path / "image.png"
    image.save(path)
    chw = pixels.transpose(2, 0, 1)
    encoded = base64.b64encode(path.read_bytes()).decode()
    expected = crops_of(small, image)
    for other in (
        path,
        str(path),
        f"data:image/png;base64,{encoded}",
        encoded,
        pixels,
        chw,
        torch.from_numpy(pixels.copy()),
        torch.from_numpy(chw.copy()),
        pixels.astype(np.float32) / 255,
        torch.from_numpy(chw.copy()).double() / 255,
        pixels.astype(np.uint16) * 257,
    ):
        assert torch.equal(crops_of(small, other), expected), type(other)
    assert torch.equal(crops_of(small, [image, pixels, path]), expected.repeat(3, 1, 1, 1, 1))
    assert torch.equal(crops_of(small, np.stack([pixels, pixels])), expected.repeat(2, 1, 1, 1, 1))


def test_bfloat16_tensors_are_accepted(small, pixels):
    found = crops_of(small, (torch.from_numpy(pixels.copy()) / 255).bfloat16())
    torch.testing.assert_close(found, crops_of(small, pixels), rtol=0, atol=0.5 / 255 + 2**-8)


def test_arrays_of_one_channel_are_grey(small, pixels):
    grey = pixels[..., 0]
    expected = crops_of(small, Image.fromarray(grey))
    for other in (grey, grey[..., None], grey[None], torch.from_numpy(grey.copy()), [grey]):
        assert torch.equal(crops_of(small, other), expected)


def test_arrays_of_four_channels_are_transparent(small, pixels):
    alpha = np.full(pixels.shape[:2], 128, dtype=np.uint8)
    rgba = np.dstack([pixels, alpha])
    expected = crops_of(small, Image.fromarray(rgba))
    assert torch.equal(crops_of(small, rgba), expected)
    assert torch.equal(crops_of(small, rgba.transpose(2, 0, 1)), expected)
    assert not torch.equal(expected, crops_of(small, pixels))


@pytest.mark.parametrize("shape", [(1, 1), (4, 5), (1, 5), (5, 1), (5, 4), (2, 7)], ids=str)
def test_the_channels_of_tiny_arrays_are_found(small, pixels, shape):
    tiny = pixels[: shape[0], : shape[1]]
    expected = crops_of(small, Image.fromarray(tiny))
    assert torch.equal(crops_of(small, tiny), expected)
    assert torch.equal(crops_of(small, tiny.transpose(2, 0, 1)), expected)
    # An array of 3 x 3 x 3 tells nothing; the caller can.
    cube = pixels[:3, :3]
    assert torch.equal(
        crops_of(small, cube, input_data_format="channels_last"), crops_of(small, Image.fromarray(cube))
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "No images"),
        (np.zeros((8, 8, 3), dtype=np.int64), "uint8, uint16 or floating point"),
        (np.full((8, 8, 3), 255.0), r"must lie in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), r"must lie in \[0, 1\]"),
        (np.zeros((8, 8, 2), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "at least one pixel"),
        ([Image.new("L", (8, 8)), np.zeros((), dtype=np.uint8)], "two or three dimensions"),
        ([np.zeros((0, 8, 8, 3), dtype=np.uint8), np.array(["no image"])], "got str_"),
        ("nowhere.png", "'nowhere.png' is neither an existing image file nor a web address"),
    ],
)
def test_wrong_images_are_refused_with_the_reason(small, wrong, message):
    with pytest.raises(ValueError, match=message):
        small(wrong)


def test_channels_that_are_not_where_they_are_said_to_be_are_refused(small, pixels):
    assert small(pixels, input_data_format="channels_last")["pixel_values"].shape[1:] == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="1, 3 or 4 channels, first or last; got the shape .24, 40, 3."):
        small(pixels, input_data_format="channels_first")


def test_a_file_that_is_no_image_is_an_error(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("this is a text")
    with pytest.raises(ValueError, match="text.jpg cannot be read: not an image"):
        load_image(path)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.jpg")


def test_sizes_that_make_no_sense_are_refused(small, pixels):
    with pytest.raises(ValueError, match="shortest_edge"):
        small(pixels, size={"height": 16, "width": 16})
    with pytest.raises(ValueError, match="Crops are square"):
        small(pixels, crop_size={"height": 16, "width": 20})


# Layout of the crops


sides = st.integers(1, 6000)


@given(height=sides, width=sides, crop_size=st.sampled_from([64, 256, 512]), edge=st.sampled_from([256, 512, 700]))
@settings(max_examples=300, deadline=None)
def test_the_fewest_evenly_spaced_crops_cover_any_image(height, width, crop_size, edge):
    layout = crop_layout(height, width, shortest_edge=edge, crop_size=crop_size)
    shortest = min(layout.resized)
    # Never enlarged, and shrunk to the wanted edge with the same aspect ratio.
    assert shortest == min(edge, min(height, width))
    scale = shortest / min(height, width)
    assert layout.resized == pytest.approx((height * scale, width * scale), abs=0.5)
    for axis in range(2):
        resized, padded, before = layout.resized[axis], layout.padded[axis], layout.pad_before[axis]
        assert padded == max(resized, crop_size)
        assert 0 <= padded - resized - 2 * before <= 1
        starts = sorted({corner[axis] for corner in layout.corners})
        assert starts[0] == 0 and starts[-1] == padded - crop_size
        assert len(starts) == -(-padded // crop_size)
        gaps = np.diff(starts)
        if len(gaps):
            assert gaps.max() <= crop_size and gaps.max() - gaps.min() <= 1
    rows, columns = ({corner[axis] for corner in layout.corners} for axis in range(2))
    assert len(layout.corners) == len(set(layout.corners)) == len(rows) * len(columns)


@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((512, 512), [(0, 0)]),
        ((1024, 1024), [(0, 0)]),  # shrunk to 512 x 512
        ((512, 513), [(0, 0), (0, 1)]),
        ((768, 1024), [(0, 0), (0, 171)]),  # 512 x 683
        ((1024, 512), [(0, 0), (512, 0)]),
        ((512, 1100), [(0, 0), (0, 294), (0, 588)]),
        ((100, 100), [(0, 0)]),
    ],
)
def test_crops_of_common_sizes(size, corners):
    assert list(crop_layout(*size).corners) == corners


def test_the_default_output_has_the_promised_shapes():
    output = MetaQAPImageProcessor()([Image.new("RGB", (700, 600)), Image.new("RGB", (90, 60))], return_tensors="pt")
    assert output["pixel_values"].shape == (2, 2, 3, 512, 512)
    assert output["crop_weights"].tolist() == [[0.5, 0.5], [1, 0]]
    assert output["pixel_values"].dtype == output["crop_weights"].dtype == torch.float32


def test_crops_hold_the_pixels_of_their_place(small):
    image = np.random.default_rng(2).integers(256, size=(32, 75, 3), dtype=np.uint8)
    crops = (crops_of(small, image)[0] * 255).round().numpy().astype(np.uint8)
    # 75 = 32 + 43: three crops at 0, 21.5 -> 22 and 43.
    for crop, left in zip(crops, (0, 22, 43), strict=True):
        np.testing.assert_array_equal(crop.transpose(1, 2, 0), image[:, left : left + 32])


def test_pixel_values_are_8_bit_values_between_0_and_1(small):
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32).repeat(4, axis=0)
    values = crops_of(small, ramp)
    assert values.min() == 0 and values.max() == 1
    np.testing.assert_allclose(values[0, 0, 0, ::4].flatten().numpy(), np.arange(256) / 255, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [{"do_rescale": False}, {"rescale_factor": 1.0}, {"do_normalize": True}, {"do_center_crop": True}],
    ids=str,
)
def test_steps_that_would_change_what_the_model_sees_are_one_sentence(small, pixels, options):
    [name] = options
    with pytest.raises(ValueError, match=f"`{name}` must stay .*normalises them itself") as error:
        small(pixels.astype(np.float32) / 255, **options)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=name):
        MetaQAPImageProcessor(**options)(pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (20, 31), (31, 32), (32, 40)], ids=str)
def test_small_images_are_padded_by_reflection(small, size):
    image = np.random.default_rng(3).integers(256, size=(*size, 3), dtype=np.uint8)
    crops = crops_of(small, Image.fromarray(image))
    pads = [((32 - side) // 2, 32 - side - (32 - side) // 2) if side < 32 else (0, 0) for side in size]
    padded = np.pad(image, (*pads, (0, 0)), mode="reflect")
    found = (crops[0, 0] * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(found, padded[:, :32])


def test_resizing_can_be_switched_off(small):
    image = Image.new("RGB", (64, 64))
    assert crops_of(small, image).shape[1] == 1
    assert crops_of(small, image, do_resize=False).shape[1] == 4


def test_images_of_different_sizes_get_the_same_crops_in_a_batch_as_alone(small):
    rng = np.random.default_rng(4)
    images = [rng.integers(256, size=(*size, 3), dtype=np.uint8) for size in [(32, 32), (50, 90), (10, 10), (33, 140)]]
    batch = small(images, return_tensors="pt")
    assert batch["pixel_values"].shape == (4, 5, 3, 32, 32)
    for image, crops, weights in zip(images, batch["pixel_values"], batch["crop_weights"], strict=True):
        alone = small(image, return_tensors="pt")
        count = alone["pixel_values"].shape[1]
        assert torch.equal(crops[:count], alone["pixel_values"][0])
        assert not crops[count:].any()
        assert weights.tolist() == pytest.approx([1 / count] * count + [0] * (5 - count))


# The one crop path


def test_without_padding_the_crops_of_all_images_come_one_after_the_other(small):
    images = [noise(40, 70, seed=1), noise(20, 20, seed=2), noise(32, 90, seed=3)]
    padded, packed = small(images, return_tensors="pt"), small(images, do_pad=False, return_tensors="pt")
    assert torch.equal(packed["crop_weights"], padded["crop_weights"])
    assert torch.equal(packed["pixel_values"], padded["pixel_values"][padded["crop_weights"] > 0])


def test_images_that_were_prepared_one_by_one_make_a_batch(small):
    images = [noise(40, 70, seed=1), noise(20, 20, seed=2)]
    items = [{name: values[0] for name, values in small(image).items()} for image in images]
    batch = small.collate([item | {"labels": 0.25 * index} for index, item in enumerate(items)])
    assert batch["labels"].tolist() == [0, 0.25]
    for name, values in small(images, return_tensors="pt").items():
        assert torch.equal(batch[name], values)
    for wrong in ({"pixel_values": items[0]["pixel_values"]}, dict(small(images[0]))):
        with pytest.raises(ValueError, match="without the dimension of the batch"):
            small.collate([wrong])


def test_prepared_crops_are_the_processors_in_bytes(small):
    rng = np.random.default_rng(7)
    for height, width in [(32, 32), (50, 90), (10, 40), (33, 140)]:
        image = Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))
        layout = small.layout(height, width)
        crops = prepare_crops(image, layout)
        assert crops.dtype == np.uint8
        np.testing.assert_array_equal(crops, (crops_of(small, image)[0] * 255).round().numpy())
        shrunk = shrink(image, layout)
        assert (shrunk.height, shrunk.width) == layout.resized
        # An image that was shrunk before is not shrunk again, whichever of the two layouts is used.
        assert shrink(shrunk, layout) is shrunk
        for same in (layout, small.layout(shrunk.height, shrunk.width)):
            np.testing.assert_array_equal(prepare_crops(shrunk, same), crops)


def test_other_crops_than_the_layouts_can_be_cut(small):
    image = np.random.default_rng(8).integers(256, size=(40, 64, 3), dtype=np.uint8)
    layout = crop_layout(40, 64, shortest_edge=40, crop_size=32)
    crops = prepare_crops(Image.fromarray(image), layout, corners=[(8, 3), (0, 32)])
    np.testing.assert_array_equal(crops[0].transpose(1, 2, 0), image[8:40, 3:35])
    np.testing.assert_array_equal(crops[1].transpose(1, 2, 0), image[:32, 32:])


def test_what_an_image_gets_is_the_weighted_mean_over_its_crops():
    values = torch.tensor([[[1.0, 10.0], [3.0, 30.0]], [[5.0, 50.0], [7.0, 70.0]]])
    assert merge_crops(values).tolist() == [[2, 20], [6, 60]]
    weights = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    assert merge_crops(values, weights).tolist() == [[1.5, 15], [5, 50]]
    assert merge_crops(values[..., 0], weights).tolist() == [1.5, 5]


# Resizing


def chelsea():
    return pytest.importorskip("skimage.data").chelsea()


def test_shrinking_is_pillows_antialiased_bicubic():
    photo = chelsea()
    processor = MetaQAPImageProcessor(size={"shortest_edge": 100}, crop_size=100)
    crops = (crops_of(processor, photo)[0] * 255).round().numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    resized = np.asarray(Image.fromarray(photo).resize((150, 100), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(crops[0], resized[:, :100])
    np.testing.assert_array_equal(crops[1], resized[:, 50:])


def test_fine_stripes_shrink_to_even_grey():
    # Without a filter they would come out as black, white or slow waves.
    stripes = np.zeros((96, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    inner = crops_of(processor, stripes)[0, 0, :, 4:-4, 4:-4]
    assert (inner - 0.5).abs().max() < 0.05


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    edge=st.integers(1, 60),
    crop_size=st.integers(1, 40),
    resample=st.sampled_from(list(Image.Resampling)),
    kind=st.sampled_from(["noise", "black and white"]),
)
def test_a_tensor_gets_the_crops_of_pillow_to_the_bit(height, width, edge, crop_size, resample, kind):
    pixels = np.asarray(noise(height, width, seed=height * 100 + width))
    # Filters swing over at hard edges, and the result has to be cut off in the same way.
    pixels = pixels if kind == "noise" else np.where(pixels > 127, 255, 0).astype(np.uint8)
    layout = crop_layout(height, width, shortest_edge=edge, crop_size=crop_size)
    expected = prepare_crops(Image.fromarray(pixels), layout, resample=resample)
    found = prepare_crops(torch.from_numpy(pixels.copy()).permute(2, 0, 1), layout, resample=resample)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("resample", list(Image.Resampling))
@pytest.mark.parametrize("edge", [17, 20])  # an odd part, and a third, of which pixels lie just where a filter ends
def test_each_filter_is_that_of_pillow_to_the_bit(resample, edge):
    image = noise(60, 90, seed=3)
    layout = crop_layout(60, 90, shortest_edge=edge, crop_size=32)
    found = shrink(torch.from_numpy(np.array(image)).permute(2, 0, 1), layout, resample=resample)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), shrink(image, layout, resample=resample))


@pytest.mark.parametrize("do_pad", [True, False])
def test_images_on_another_device_are_prepared_there(small, do_pad, tmp_path):
    noise(40, 70).save(tmp_path / "photo.png")
    tensor = torch.zeros(3, 40, 70, dtype=torch.uint8, device="meta")  # without memory: nothing can be fetched from it
    for images, options in (
        ([tensor, tensor.movedim(0, -1)], {}),
        ([str(tmp_path / "photo.png"), np.zeros((40, 70), np.uint8)], {"device": "meta"}),
    ):
        output = small(images, do_pad=do_pad, return_tensors="pt", **options)
        expected = small([noise(40, 70)] * 2, do_pad=do_pad, return_tensors="pt")
        assert {values.device.type for values in output.values()} == {"meta"}
        assert {name: values.shape for name, values in output.items()} == {
            name: values.shape for name, values in expected.items()
        }


@pytest.mark.parametrize("do_pad", [True, False])
def test_what_is_prepared_as_tensors_is_the_same_to_the_bit(small, do_pad):
    class OnAnyDevice(MetaQAPImageProcessor):
        def process_image(self, *args, **kwargs):
            return torch.from_numpy(np.array(super().process_image(*args, **kwargs))).permute(2, 0, 1)

    images = [noise(70, 40, seed=1), noise(20, 130, seed=2), noise(9, 32, seed=3)]
    tensors = OnAnyDevice(size=small.size, crop_size=small.crop_size)
    found = tensors(images, do_pad=do_pad, return_tensors="pt")
    for name, values in small(images, do_pad=do_pad, return_tensors="pt").items():
        assert torch.equal(found[name], values), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_crops_of_pillow_to_the_bit(small):
    images = [noise(70, 40, seed=1), noise(20, 130, seed=2)]
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1).cuda() for image in images]
    for found in (small(images, device="cuda", return_tensors="pt"), small(tensors, return_tensors="pt")):
        for name, values in small(images, return_tensors="pt").items():
            assert found[name].is_cuda and torch.equal(found[name].cpu(), values), name


def test_shrinking_is_close_to_torchvisions():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photo = chelsea()
    processor = MetaQAPImageProcessor(size={"shortest_edge": 100}, crop_size=100)
    tensor = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    mode = functional.InterpolationMode.BICUBIC
    resized = functional.resize(tensor, [100, 150], interpolation=mode, antialias=True)
    difference = (crops_of(processor, photo)[0, 0] * 255 - resized[:, :, :100]).abs()
    # Stated tolerance: 2 of 255 levels anywhere, a tenth of a level on average.
    assert difference.max() <= 2 and difference.mean() < 0.1


# Quality maps of whole images


def maps(array):
    return SimpleNamespace(quality_map=torch.as_tensor(array, dtype=torch.float32))


def test_a_map_of_one_crop_covers_the_image(small):
    values = np.random.default_rng(5).random((1, 4, 4))
    (whole,) = small.post_process_quality_map(maps(values), [(32, 32)])
    assert whole.shape == (32, 32)
    assert whole.mean().item() == pytest.approx(values.mean(), abs=0.02)
    (larger,) = small.post_process_quality_map(maps(values), [(64, 64)])
    assert larger.shape == (64, 64)
    np.testing.assert_allclose(larger[::2, ::2].numpy(), whole.numpy(), atol=0.1)


def test_overlapping_crops_fade_into_one_another(small):
    constant = np.stack([np.zeros((4, 4)), np.ones((4, 4))])[None]
    (whole,) = small.post_process_quality_map(maps(constant), [(32, 48)])
    # Crops lie at 0..31 and 16..47.
    fade = (np.arange(16) + 0.5) / 16
    expected = np.concatenate([np.zeros(16), fade, np.ones(16)])[None].repeat(32, axis=0)
    np.testing.assert_allclose(whole.numpy(), expected, atol=1e-6)


def test_the_padding_of_small_images_is_cut_off(small):
    ramp = np.linspace(0, 1, 32)[None, None].repeat(32, axis=1)
    (whole,) = small.post_process_quality_map(maps(ramp), [(20, 10)])
    assert whole.shape == (20, 10)
    np.testing.assert_allclose(whole.numpy(), ramp[0, 6:26, 11:21], atol=1e-6)


def test_every_image_of_a_batch_gets_a_map_of_its_own_size(small, make_model):
    model = make_model()
    rng = np.random.default_rng(6)
    sizes = [(32, 32), (50, 90), (10, 12), (33, 140)]
    images = [rng.integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]
    with torch.no_grad():
        output = model(**small(images, return_tensors="pt"), output_quality_map=True)
        found = small.post_process_quality_map(output, sizes)
        alone = model(**small(images[3], return_tensors="pt"), output_quality_map=True)
    assert [tuple(whole.shape) for whole in found] == sizes
    assert all(torch.isfinite(whole).all() for whole in found)
    torch.testing.assert_close(found[3], small.post_process_quality_map(alone, sizes[3:])[0], rtol=0, atol=1e-4)


def test_sizes_of_other_images_are_refused(small):
    with pytest.raises(ValueError, match="maps of 1 images but 2 target sizes"):
        small.post_process_quality_map(maps(np.zeros((1, 4, 4))), [(32, 32), (32, 32)])
    with pytest.raises(ValueError, match="up to 2 crops, but there are 1 quality maps"):
        small.post_process_quality_map(maps(np.zeros((1, 4, 4))), [(32, 48)])
    with pytest.raises(ValueError, match="up to 1 crops, but there are 4 quality maps.*the processor was called"):
        small.post_process_quality_map(maps(np.zeros((1, 4, 4, 4))), [(64, 64)])


@pytest.mark.parametrize(
    "options", [{"do_resize": False}, {"crop_size": 16}, {"size": {"shortest_edge": 48}, "crop_size": 24}], ids=str
)
def test_a_quality_map_follows_the_settings_of_the_call(small, options):
    image = np.random.default_rng(9).integers(256, size=(64, 96, 3), dtype=np.uint8)
    crops = crops_of(small, image, **options)
    # A map that is the image's own brightness shows where each crop was put.
    brightness = SimpleNamespace(quality_map=crops.mean(dim=2))
    (whole,) = small.post_process_quality_map(brightness, [(64, 96)], **options)
    assert whole.shape == (64, 96)
    layout = small.layout(64, 96, **options)
    shrunk = np.asarray(shrink(Image.fromarray(image), layout)).mean(axis=2) / 255
    expected = torch.nn.functional.interpolate(
        torch.tensor(shrunk)[None, None].float(), size=(64, 96), mode="bilinear"
    )
    torch.testing.assert_close(whole, expected[0, 0], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="settings that the processor was called with"):
        small.post_process_quality_map(brightness, [(64, 96)])


# Saving


def test_it_survives_saving(small, pixels, tmp_path):
    small.save_pretrained(tmp_path)
    for loaded in (MetaQAPImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MetaQAPImageProcessor
        assert loaded.to_dict() == small.to_dict()
        assert torch.equal(crops_of(loaded, pixels), crops_of(small, pixels))
    assert {path.name for path in tmp_path.glob("*.py")} == {
        "crops_metaqap.py",
        "decoding_metaqap.py",
        "fetching_metaqap.py",
        "image_processing_metaqap.py",
    }


@pytest.mark.parametrize("shape", [(3, 40, 3), (1, 40, 3), (4, 40, 3), (40, 3, 3), (3, 40), (3, 3)])
def test_an_array_of_few_rows_has_its_channels_last_and_a_tensor_first(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    processor = MetaQAPImageProcessor()
    rgb = pixels[..., None] if pixels.ndim == 2 else pixels
    expected = processor(Image.fromarray(rgb[..., 0] if rgb.shape[-1] == 1 else rgb), return_tensors="pt").pixel_values
    first = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    for image in (pixels, torch.from_numpy(first.copy())):
        assert torch.equal(processor(image, return_tensors="pt").pixel_values, expected)
