"""The 25 distortions: what they promise for any image, and what each does to one."""

import inspect
import warnings

import numpy as np
import pytest
from PIL import Image
from skimage import color, data

from modeling_metaqap.configuration_metaqap import KADID_DISTORTIONS
from modeling_metaqap.data import distortions
from modeling_metaqap.data.distortions import (
    DISTORTION_NAMES,
    DISTORTIONS,
    LEVELS,
    applicable_distortions,
    distort,
    get_distortion,
)
from modeling_metaqap.data.distortions.base import is_colorless, to_generator
from modeling_metaqap.data.distortions.blurs import convolve, disk_kernel, line_kernel
from modeling_metaqap.data.distortions.colors import lab_to_rgb
from modeling_metaqap.data.distortions.grid import distortion_grid
from modeling_metaqap.data.distortions.spatial import otsu_palette

every_distortion = pytest.mark.parametrize("name", DISTORTION_NAMES)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A colourful 128 x 160 photograph with texture, edges and flat parts: scikit-image's astronaut."""
    image = Image.fromarray(data.astronaut()).crop((0, 0, 400, 320))
    return np.asarray(image.resize((160, 128), Image.Resampling.LANCZOS))


def error(distorted: np.ndarray, original: np.ndarray) -> float:
    return float(np.sqrt(np.mean((distorted.astype(float) - original.astype(float)) ** 2)))


def test_the_order_is_that_of_the_distortion_head() -> None:
    assert list(DISTORTION_NAMES) == KADID_DISTORTIONS
    assert all(DISTORTIONS[name].name == name for name in DISTORTION_NAMES)


def test_families_have_kadid_10ks_sizes() -> None:
    families = [entry.family for entry in DISTORTIONS.values()]
    # Lin, Hosu and Saupe (2019), section III: 3 blurs, 5 colour, 2 compression, 5 noise, 3 brightness, 5 spatial,
    # 2 sharpness and contrast, numbered in this order.
    expected = {
        "blur": 3,
        "color": 5,
        "compression": 2,
        "noise": 5,
        "brightness": 3,
        "spatial": 5,
        "sharpness_contrast": 2,
    }
    assert families == [family for family, count in expected.items() for _ in range(count)]


@every_distortion
def test_levels_change_monotonically(name: str) -> None:
    entry = DISTORTIONS[name]
    steps = np.diff(entry.levels)
    assert len(entry.levels) == 5 and (np.all(steps > 0) or np.all(steps < 0))
    assert entry.unit
    assert inspect.getdoc(entry.operation)


@every_distortion
def test_error_grows_with_level(name: str, photograph: np.ndarray) -> None:
    errors = [error(distort(photograph, name, level, 0), photograph) for level in LEVELS]
    assert errors[0] > 0
    assert all(lower < higher for lower, higher in zip(errors, errors[1:], strict=False)), errors


@every_distortion
def test_same_seed_gives_the_same_image(name: str, photograph: np.ndarray) -> None:
    first = distort(photograph, name, 4, 7)
    assert np.array_equal(first, distort(photograph, name, 4, 7))
    assert np.array_equal(first, distort(photograph, name, 4, np.random.default_rng(7)))


def test_another_seed_gives_another_image_where_chance_plays_a_part(photograph: np.ndarray) -> None:
    small = np.ascontiguousarray(photograph[:32, :40])
    changing = {
        name
        for name in DISTORTION_NAMES
        if any(not np.array_equal(distort(small, name, 4, seed), distort(small, name, 4, 0)) for seed in range(1, 6))
    }
    assert changing == {
        "motion_blur",
        "color_shift",
        "white_noise",
        "white_noise_color_component",
        "impulse_noise",
        "multiplicative_noise",
        "denoise",
        "mean_shift",
        "jitter",
        "non_eccentricity_patch",
        "color_block",
        "contrast_change",
    }


@every_distortion
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "grey", "one channel", "Pillow", "Pillow grey"])
def test_type_shape_and_range_are_kept_and_the_input_is_not(name: str, kind: str, photograph: np.ndarray) -> None:
    small = np.ascontiguousarray(photograph[:48, :64])
    grey = small[:, :, 1]
    image = {
        "uint8": small,
        "float32": (small / 255).astype(np.float32),
        "float64": small / 255,
        "grey": grey,
        "one channel": grey[:, :, None],
        "Pillow": Image.fromarray(small),
        "Pillow grey": Image.fromarray(grey),
    }[kind]
    before = image.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distorted = distort(image, name, 5, 0)
    assert type(distorted) is type(image)
    if isinstance(image, Image.Image):
        assert (distorted.mode, distorted.size) == (image.mode, image.size)
        assert image.tobytes() == before.tobytes()
    else:
        assert (distorted.dtype, distorted.shape) == (image.dtype, image.shape)
        assert np.array_equal(image, before)
        assert distorted.min() >= 0
        assert distorted.max() <= (255 if image.dtype == np.uint8 else 1)
    if not (DISTORTIONS[name].needs_color and "grey" in kind + " grey" * (kind == "one channel")):
        assert not np.array_equal(np.asarray(distorted), np.asarray(image))


@every_distortion
def test_float_and_uint8_images_are_distorted_alike(name: str, photograph: np.ndarray) -> None:
    from_uint8 = distort(photograph, name, 3, 0)
    from_float = distort(photograph / 255, name, 3, 0)
    assert np.abs(from_float * 255 - from_uint8).max() <= 0.51


@every_distortion
@pytest.mark.parametrize("shape", [(32, 32), (33, 97, 3)])
def test_small_and_odd_sizes_work_at_every_level(name: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for level in LEVELS:
        assert distort(image, name, level, 0).shape == shape


@every_distortion
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_give_finite_pixels(name: str, value: int) -> None:
    image = np.full((32, 40, 3), value / 255, dtype=np.float32)
    for level in LEVELS:
        assert np.isfinite(distort(image, name, level, 0)).all()


def test_signed_distortions_go_both_ways_and_one_seed_goes_one_way(photograph: np.ndarray) -> None:
    assert [name for name in DISTORTION_NAMES if DISTORTIONS[name].signed] == ["mean_shift", "contrast_change"]
    for statistic, name in ((np.mean, "mean_shift"), (np.std, "contrast_change")):
        values = [[statistic(distort(photograph, name, level, seed)) for level in LEVELS] for seed in range(12)]
        signs = np.sign(np.array(values) - statistic(photograph))
        assert (signs == signs[:, :1]).all()
        assert set(signs[:, 0]) == {-1.0, 1.0}


def test_colour_distortions_leave_a_grey_image_and_are_not_applicable_to_it(photograph: np.ndarray) -> None:
    grey = np.repeat(photograph[:, :, :1], 3, axis=2)
    skipped = [name for name in DISTORTION_NAMES if name not in applicable_distortions(grey)]
    assert skipped == ["color_diffusion", "color_saturation_1", "color_saturation_2"]
    for name in skipped:
        assert np.abs(distort(grey, name, 5, 0).astype(int) - grey).max() <= 1
    assert applicable_distortions(photograph) == DISTORTION_NAMES
    assert is_colorless(grey) and not is_colorless(photograph)


# What each distortion does, on images where it can be said exactly.


def impulse(side: int = 65) -> np.ndarray:
    image = np.zeros((side, side), dtype=np.float64)
    image[side // 2, side // 2] = 1.0
    return image


@pytest.mark.parametrize("level", LEVELS)
def test_gaussian_blur_has_the_stated_standard_deviation(level: int) -> None:
    blurred = distort(impulse(), "gaussian_blur", level, 0)
    offsets = np.arange(65) - 32
    variance = (blurred.sum(axis=0) * offsets**2).sum() / blurred.sum()
    # Cut off at three standard deviations, and sampled at whole pixels.
    assert np.sqrt(variance) == pytest.approx(DISTORTIONS["gaussian_blur"].levels[level - 1], rel=0.05)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("level", [3, 4, 5])
def test_lens_blur_spreads_a_point_over_a_disk(level: int) -> None:
    blurred = distort(impulse(), "lens_blur", level, 0)
    radius = DISTORTIONS["lens_blur"].levels[level - 1]
    area = (blurred > blurred.max() / 2).sum()
    assert area == pytest.approx(np.pi * radius**2, rel=0.12)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)


def test_motion_blur_spreads_a_point_along_a_line_and_not_across() -> None:
    for seed in range(4):
        blurred = distort(impulse(), "motion_blur", 5, seed)
        y, x = np.nonzero(blurred > blurred.max() / 2)
        along, across = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([y, x]))))[::-1]
        assert along == pytest.approx(DISTORTIONS["motion_blur"].levels[-1] / np.sqrt(12), rel=0.15)
        assert across < 1
        assert blurred.sum() == pytest.approx(1, abs=1e-3)


def test_convolution_equals_a_direct_sum() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.random((40, 45, 1), dtype=np.float32), line_kernel(6, 0.4)
    assert kernel.sum() == pytest.approx(1) and disk_kernel(3.3).sum() == pytest.approx(1)
    half = kernel.shape[0] // 2
    padded = np.pad(image[:, :, 0], half, mode="symmetric")
    direct = np.zeros((40, 45))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            direct += kernel[i, j] * padded[2 * half - i : 2 * half - i + 40, 2 * half - j : 2 * half - j + 45]
    assert np.allclose(convolve(image, kernel)[:, :, 0], direct, atol=1e-5)


def test_lab_to_rgb_inverts_scikit_images_conversion(photograph: np.ndarray) -> None:
    floats = (photograph / 255).astype(np.float32)
    assert np.allclose(lab_to_rgb(color.rgb2lab(floats)), floats, atol=2e-3)


def test_color_diffusion_keeps_lightness_and_smooths_colour(photograph: np.ndarray) -> None:
    lab, diffused = (color.rgb2lab(image) for image in (photograph, distort(photograph, "color_diffusion", 3, 0)))
    assert np.abs(diffused[:, :, 0] - lab[:, :, 0]).mean() < 1
    roughness = [np.abs(np.diff(image[:, :, 1:], axis=1)).mean() for image in (diffused, lab)]
    assert roughness[0] < roughness[1] / 3


def test_color_shift_moves_green_at_edges_only(photograph: np.ndarray) -> None:
    shifted = distort(photograph, "color_shift", 5, 0)
    assert np.array_equal(shifted[:, :, [0, 2]], photograph[:, :, [0, 2]])
    edge = np.zeros((64, 64, 3), dtype=np.uint8)
    edge[:, 32:] = 200
    changed = np.nonzero((distort(edge, "color_shift", 5, 3) != edge).any(axis=(0, 2)))[0]
    assert len(changed) and changed.min() >= 30 and changed.max() <= 33


@pytest.mark.parametrize("level", LEVELS)
def test_color_quantization_leaves_few_colours(level: int, photograph: np.ndarray) -> None:
    colours = np.unique(distort(photograph, "color_quantization", level, 0).reshape(-1, 3), axis=0)
    stated = DISTORTIONS["color_quantization"].levels[level - 1]
    assert 0.5 * stated <= len(colours) <= stated


def test_saturation_1_scales_saturation_and_keeps_hue_and_value(photograph: np.ndarray) -> None:
    image = photograph / 255
    hsv, faded = color.rgb2hsv(image), color.rgb2hsv(distort(image, "color_saturation_1", 2, 0))
    assert np.allclose(faded[:, :, 1], 0.4 * hsv[:, :, 1], atol=1e-4)
    assert np.allclose(faded[:, :, 2], hsv[:, :, 2], atol=1e-4)
    grey = distort(photograph, "color_saturation_1", 5, 0)
    assert (grey.max(axis=2) == grey.min(axis=2)).all()


def test_saturation_2_raises_chroma_and_keeps_lightness() -> None:
    muted = color.lab2rgb(np.dstack([np.full((32, 32), 50.0), np.full((32, 32), 8.0), np.full((32, 32), -6.0)]))
    lab = color.rgb2lab(distort(muted, "color_saturation_2", 3, 0))
    factor = DISTORTIONS["color_saturation_2"].levels[2]
    assert np.allclose(lab, [50, 8 * factor, -6 * factor], atol=0.3)


def test_jpeg_leaves_eight_pixel_blocks(photograph: np.ndarray) -> None:
    grey = distort(photograph, "jpeg_compression", 5, 0).astype(float).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    at_borders = steps[7::8].mean()
    assert at_borders > 2 * np.delete(steps, np.arange(7, len(steps), 8)).mean()


def test_jpeg2000_blurs_without_blocks(photograph: np.ndarray) -> None:
    grey = distort(photograph, "jpeg2000_compression", 5, 0).astype(float).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    assert steps.mean() < 0.7 * np.abs(np.diff(photograph.astype(float).mean(axis=2), axis=1)).mean()
    assert steps[7::8].mean() < 1.5 * steps.mean()


def grey_field(value: float = 0.5) -> np.ndarray:
    return np.full((128, 128, 3), value)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_white_noise_has_the_stated_strength_in_each_channel(level: int) -> None:
    noise = distort(grey_field(), "white_noise", level, 0) - grey_field()
    stated = DISTORTIONS["white_noise"].levels[level - 1]
    assert np.allclose(noise.std(axis=(0, 1)), stated, rtol=0.05)
    assert abs(np.corrcoef(noise.reshape(-1, 3).T)[0, 1]) < 0.05


def test_noise_in_the_colour_components_is_white_in_ycbcr() -> None:
    noise = distort(grey_field(), "white_noise_color_component", 2, 0) - grey_field()
    # Rec. 601: Y = 0.299 R + 0.587 G + 0.114 B, Cb = 0.564 (B - Y), Cr = 0.713 (R - Y)
    y = noise @ [0.299, 0.587, 0.114]
    ycbcr = np.stack([y, 0.564 * (noise[..., 2] - y), 0.713 * (noise[..., 0] - y)]).reshape(3, -1)
    assert np.allclose(ycbcr.std(axis=1), DISTORTIONS["white_noise_color_component"].levels[1], rtol=0.05)
    assert np.abs(np.corrcoef(ycbcr) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize("level", [3, 5])
def test_impulse_noise_replaces_the_stated_share_by_black_and_white(level: int) -> None:
    values = distort(grey_field(), "impulse_noise", level, 0)
    share = DISTORTIONS["impulse_noise"].levels[level - 1]
    assert np.mean(values == 0) == pytest.approx(share / 2, rel=0.15)
    assert np.mean(values == 1) == pytest.approx(share / 2, rel=0.15)
    assert np.mean(values == 0.5) == pytest.approx(1 - share, rel=0.01)


def test_multiplicative_noise_grows_with_the_value() -> None:
    dark, bright = (distort(grey_field(value), "multiplicative_noise", 1, 0).std() for value in (0.1, 0.6))
    assert bright == pytest.approx(6 * dark, rel=0.01)
    assert bright == pytest.approx(0.6 * DISTORTIONS["multiplicative_noise"].levels[0], rel=0.05)


def test_denoise_removes_most_noise_and_the_fine_texture() -> None:
    sigma = DISTORTIONS["denoise"].levels[2]
    denoised = distort(grey_field(), "denoise", 3, 0)
    assert denoised.std() < sigma / 4 and denoised.mean() == pytest.approx(0.5, abs=0.01)
    texture = grey_field() + 0.05 * np.sign(np.random.default_rng(0).standard_normal((128, 128, 1)))
    assert distort(texture, "denoise", 4, 0).std() < 0.04


def test_brightness_goes_where_the_name_says_and_keeps_black_and_white(photograph: np.ndarray) -> None:
    assert distort(photograph, "brighten", 3, 0).mean() > photograph.mean() + 20
    assert distort(photograph, "darken", 3, 0).mean() < photograph.mean() - 20
    ends = np.zeros((32, 32, 3), dtype=np.uint8)
    ends[:, 16:] = 255
    for name in ("brighten", "darken", "contrast_change"):
        assert np.array_equal(distort(ends, name, 4, 0), ends)


def test_mean_shift_adds_one_constant() -> None:
    ramp = np.tile(np.linspace(0.4, 0.6, 64), (64, 1))
    shifts = distort(ramp, "mean_shift", 5, 0) - ramp
    assert np.allclose(np.abs(shifts), DISTORTIONS["mean_shift"].levels[-1], atol=1e-6)


def test_jitter_moves_pixels_by_the_stated_distance() -> None:
    ramp = np.tile(np.linspace(0, 1, 256), (256, 1))
    for level in (2, 5):
        moved = (distort(ramp, "jitter", level, 0) - ramp)[20:-20, 20:-20] * 255
        assert moved.std() == pytest.approx(DISTORTIONS["jitter"].levels[level - 1], rel=0.05)
        assert abs(moved.mean()) < 0.05


def test_patches_come_from_nearby() -> None:
    rows = np.tile((np.arange(192) / 192)[:, None], (1, 192))
    change = np.abs(distort(rows, "non_eccentricity_patch", 3, 0) - rows) * 192
    assert 0.05 < np.mean(change > 0.5) < 0.6
    assert change.max() <= 8.5  # a 24th of the side


@pytest.mark.parametrize("level", LEVELS)
def test_pixelate_makes_square_blocks_of_the_stated_side(level: int, photograph: np.ndarray) -> None:
    side = int(DISTORTIONS["pixelate"].levels[level - 1])
    blocks = distort(photograph, "pixelate", level, 0)[: 4 * side, : 6 * side].reshape(4, side, 6, side, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("level", LEVELS)
def test_quantization_leaves_the_stated_number_of_values(level: int, photograph: np.ndarray) -> None:
    values = np.unique(distort(photograph, "quantization", level, 0))
    assert len(values) == DISTORTIONS["quantization"].levels[level - 1]


def test_otsu_with_two_classes_is_scikit_images() -> None:
    from skimage.filters import threshold_multiotsu, threshold_otsu

    grey = data.camera()
    histogram = np.bincount(grey.ravel(), minlength=256)
    cut = int(np.argmax(np.diff(otsu_palette(histogram, 2)) > 0))
    assert cut == threshold_otsu(grey)
    cuts = np.nonzero(np.diff(otsu_palette(histogram, 3)) > 0)[0]
    assert list(cuts) == list(threshold_multiotsu(grey, 3))


def test_color_blocks_are_of_one_colour_and_as_many_as_stated() -> None:
    changed = distort(grey_field(), "color_block", 1, 2) != grey_field()
    assert changed.any(axis=2).sum() == 3 * 8 * 8  # three blocks of 128 / 16 pixels


def test_high_sharpen_overshoots_at_an_edge() -> None:
    edge = np.full((64, 64), 0.4)
    edge[:, 32:] = 0.6
    for level in (1, 2):
        sharp = distort(edge, "high_sharpen", level, 0)
        amount = DISTORTIONS["high_sharpen"].levels[level - 1]
        # Next to a step of height h, a Gaussian of 2 pixels is about 0.4 h away from the step.
        assert sharp.max() - 0.6 == pytest.approx(0.4 * 0.2 * amount, rel=0.1)
        assert 0.4 - sharp.min() == pytest.approx(0.4 * 0.2 * amount, rel=0.1)


def test_contrast_change_keeps_middle_grey_and_order() -> None:
    ramp = np.tile(np.linspace(0, 1, 101), (64, 1))
    for seed in range(6):
        curve = distort(ramp, "contrast_change", 3, seed)[0]
        assert curve[50] == pytest.approx(0.5, abs=1e-3)
        assert (np.diff(curve) > -1e-6).all()


# A user's mistakes


@pytest.mark.parametrize(
    ("image", "problem", "message"),
    [
        (np.zeros((31, 64, 3), np.uint8), ValueError, "at least 32 pixels"),
        (np.zeros((64, 64, 4), np.uint8), ValueError, r"\(H, W, 3\), got \(64, 64, 4\)"),
        (np.zeros((2, 64, 64, 3), np.uint8), ValueError, "shape"),
        (np.zeros((64, 64), np.int32), TypeError, "int32"),
        (np.full((64, 64), 128.0), ValueError, r"divide by 255"),
        (np.full((64, 64), np.nan), ValueError, r"\[0, 1\]"),
        (Image.new("RGBA", (64, 64)), ValueError, r'convert\("RGB"\)'),
        ("photo.jpg", TypeError, "str"),
    ],
)
def test_bad_images_are_refused_with_a_clear_error(image: object, problem: type[Exception], message: str) -> None:
    with pytest.raises(problem, match=message):
        distort(image, "white_noise", 1, 0)  # type: ignore[type-var]


@pytest.mark.parametrize("level", [0, 6, 2.0, True, "3"])
def test_bad_levels_are_refused(level: object, photograph: np.ndarray) -> None:
    with pytest.raises((TypeError, ValueError), match="integer from 1 to 5"):
        distort(photograph, "white_noise", level, 0)  # type: ignore[arg-type]


def test_a_misspelt_name_gets_a_suggestion(photograph: np.ndarray) -> None:
    with pytest.raises(ValueError, match="gaussian_blur"):
        distort(photograph, "gausian_blur", 1, 0)
    with pytest.raises(ValueError, match="gaussian_blur.*contrast_change"):
        get_distortion("?")


@pytest.mark.parametrize("seed", [None, -1, 1.5, True])
def test_randomness_needs_a_seed(seed: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"seed"):
        to_generator(seed)  # type: ignore[arg-type]


def test_the_grid_shows_every_distortion_at_every_level(photograph: np.ndarray) -> None:
    cell = 40
    grid = distortion_grid(photograph, seed=1, cell=cell)
    assert grid.mode == "RGB"
    pixels = np.asarray(grid)
    # A line of text above each row and one below, then a space.
    left, heading, row, column = 12, 26, 26 + cell + 20 + 20, cell + 6
    top = 12 + heading
    original = pixels[top : top + cell, left : left + cell]
    for number, name in enumerate(DISTORTION_NAMES):
        cells = [
            pixels[top + number * row :, left + position * column :][:cell, :cell].astype(int) for position in range(6)
        ]
        assert np.array_equal(cells[0], original)
        assert np.abs(cells[5] - original).mean() > 0.5, name
        above = pixels[top + number * row - heading : top + number * row]
        below = [
            pixels[top + number * row + cell :][:20, left + position * column :][:, :cell] for position in range(6)
        ]
        assert all((text < 128).any() for text in (above, *below)), "no label"


def test_the_letters_of_the_grid_are_large_enough_for_half_its_size(photograph: np.ndarray) -> None:
    named: list[str] = []
    grid = distortion_grid(photograph, cell=224, title=lambda name: named.append(name) or f"name of {name}")
    assert named == list(DISTORTION_NAMES)
    assert grid.width <= 1480  # at the 740 pixels of a page, half of it
    dark = (np.asarray(grid.convert("L")) < 128).any(axis=1)
    first = np.flatnonzero(dark)[0]
    assert dark[first : first + 17].all()  # capitals of 8 pixels at half the size


def test_public_names_exist() -> None:
    assert all(hasattr(distortions, name) for name in distortions.__all__)
