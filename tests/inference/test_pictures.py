"""Pictures that explain a score."""

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap.inference.pictures import explanation_picture, quality_colors, quality_map_image
from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.wording import MAX_QUALITY

LABELS = ["gaussian_blur", "jpeg_compression", "mean_shift"]


def record(**fields):
    quality_map = np.linspace(0, 1, 64, dtype=np.float32)[None, :].repeat(48, axis=0)
    known = {"path": "p.jpg", "quality": 0.5, "width": 64, "height": 48, "quality_map": quality_map}
    return ScoreRecord(**(known | fields))


def test_bad_is_red_and_excellent_is_not():
    bad, excellent = quality_colors(np.array([0.0, 1.0])).astype(int)
    assert bad[0] > bad[1] and bad[0] > bad[2]
    assert excellent[0] < excellent[1] and excellent[0] < excellent[2]
    np.testing.assert_array_equal(quality_colors(np.array([-3.0, 4.0])), [bad, excellent])


def test_a_map_has_one_colour_a_value():
    image = np.asarray(quality_map_image(np.array([[0.2, 0.8], [0.8, 0.2]])))
    assert image.shape == (2, 2, 3)
    np.testing.assert_array_equal(image[0, 0], image[1, 1])
    assert (image[0, 0] != image[0, 1]).any()


def test_the_map_lies_over_the_photograph_from_bad_to_excellent():
    photograph = Image.new("RGB", (64, 48), (128, 128, 128))
    picture = np.asarray(explanation_picture(photograph, record(), LABELS)).astype(int)
    np.testing.assert_array_equal(picture[40, 40], [128, 128, 128])
    left, right = picture[40, 20 + 64 + 16 + 4], picture[40, 20 + 64 + 16 + 60]
    assert left[0] > left[2] and right[0] < right[2]


def test_the_most_likely_distortion_is_named_first_and_has_the_longest_bar():
    photograph = Image.new("RGB", (64, 48))
    probabilities = [[0.1, 0.85, 0.05], [0.85, 0.1, 0.05], None]
    pictures = [
        explanation_picture(photograph, record(distortion_probabilities=p), LABELS if p else []) for p in probabilities
    ]
    arrays = [np.asarray(picture).astype(int) for picture in pictures]
    assert len({picture.size for picture in pictures}) == 1
    assert all((a != b).any() for a, b in zip(arrays, arrays[1:], strict=False))
    dark = (np.abs(arrays[0] - [74, 85, 104]).sum(axis=2) < 3).sum(axis=1)
    bars = dark[dark > 5]
    assert bars[0] > 3 * bars[-1]


def test_a_picture_on_another_scale_has_the_same_colours_and_other_numbers():
    photograph = Image.new("RGB", (200, 100), (128, 128, 128))
    plain, scaled = record(), record()
    scaled.put_on_scale((1.0, 5.0))
    assert scaled.quality == 3
    one, other = (np.asarray(explanation_picture(photograph, each, LABELS)) for each in (plain, scaled))
    np.testing.assert_array_equal(one[:120, :436], other[:120, :436])
    assert (one != other).any()


def test_a_distortion_that_would_have_an_empty_bar_is_left_out():
    def bars(*probabilities):
        picture = explanation_picture(
            Image.new("RGB", (64, 48)), record(distortion_probabilities=probabilities), LABELS
        )
        # Between the names and the percentages there is nothing but white and bars, filled or not.
        is_bar = (np.asarray(picture)[100:, -150] != 255).any(axis=1)
        return np.count_nonzero(np.diff(is_bar.astype(int)) == 1)

    assert bars(0.5, 0.4, 0.1) == 3
    assert bars(0.9, 0.006, 0.094) == 3
    assert bars(0.9, 0.004, 0.096) == 2


def test_a_good_photograph_resembles_nothing():
    photograph = Image.new("RGB", (64, 48))
    good, plain = (
        np.asarray(
            explanation_picture(photograph, record(quality=quality, distortion_probabilities=[0.9, 0.1, 0.0]), LABELS)
        )
        for quality in (MAX_QUALITY, MAX_QUALITY - 0.01)
    )
    assert (good[130:, -340:] == 255).all() and not (plain[130:, -340:] == 255).all()


def test_the_photograph_can_be_seen_below_its_map():
    photograph = Image.new("RGB", (64, 48), "white")
    photograph.paste("black", (0, 24, 64, 48))
    picture = np.asarray(explanation_picture(photograph, record(), LABELS).convert("L")).astype(int)
    upper, lower = picture[30, 20 + 64 + 16 + 32], picture[60, 20 + 64 + 16 + 32]
    assert upper - lower >= 120  # half of the contrast of 255


def test_a_record_without_a_map_cannot_be_explained():
    with pytest.raises(ValueError, match="no quality map"):
        explanation_picture(Image.new("RGB", (64, 48)), record(quality_map=None), LABELS)
