import numpy as np
import torch
from iqa_fixtures import noise
from PIL import Image

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.data.crops import random_crop


def windows(array, size):
    return np.lib.stride_tricks.sliding_window_view(array, (size, size), axis=(0, 1))


def test_a_random_crop_is_a_window_of_the_image_or_of_its_mirror_image():
    image = noise(40, 60)
    pixels = np.asarray(image)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        crop = random_crop(image, 32, rng)
        assert crop.shape == (3, 32, 32) and crop.dtype == torch.uint8
        matches = {
            (mirrored, int(top), int(left))
            for mirrored, source in ((False, crop.numpy()), (True, crop.numpy()[..., ::-1]))
            for top, left in np.argwhere((windows(pixels, 32) == source).all(axis=(2, 3, 4)))
        }
        assert len(matches) == 1
        seen |= matches
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {top for _, top, _ in seen} >= {0, 8} and len({left for _, _, left in seen}) > 15


def test_an_image_is_shrunk_a_little_at_random_before_it_is_cut():
    # Crops of a ramp: their range says how much of the image they show.
    column = np.linspace(0, 255, 400).round().astype(np.uint8)
    ramp = Image.fromarray(np.tile(column[:, None], (1, 400))).convert("RGB")
    rng = np.random.default_rng(0)
    spans = [int(np.ptp(random_crop(ramp, 200, rng, min_scale=0.5).numpy().astype(int))) for _ in range(40)]
    # 200 of 400 rows are half of the ramp; of an image half as large they are all of it.
    assert 125 <= min(spans) < 145 and 235 < max(spans) <= 255
    generators = [np.random.default_rng(1), np.random.default_rng(1)]
    same = random_crop(ramp, 64, generators[0]), random_crop(ramp, 64, generators[1], min_scale=1.0)
    assert torch.equal(*same), "without it nothing more is drawn, so that old runs can be repeated"


def test_training_sees_an_image_at_the_resolution_of_scoring():
    image = noise(700, 600)
    scored = (MetaQAPImageProcessor()(image, return_tensors="pt")["pixel_values"][0, 0] * 255).round().byte()
    # The shrunk image is 597 x 512 and its first crop the upper 512 rows.
    pixels = scored.permute(1, 2, 0).numpy()
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(4):
        crop = random_crop(image, 64, rng).numpy()
        for source in (crop, crop[..., ::-1]):
            corner = (windows(pixels, 64)[:, :, :, 0, 0] == source[:, 0, 0]).all(axis=2)
            found += any(
                (pixels[y : y + 64, x : x + 64] == source.transpose(1, 2, 0)).all() for y, x in np.argwhere(corner)
            )
    assert found >= 2


def test_an_image_smaller_than_the_training_crop_is_padded_like_for_scoring():
    image = noise(20, 25)
    crop = random_crop(image, 32, np.random.default_rng(0)).numpy()
    padded = np.pad(np.asarray(image), ((6, 6), (3, 4), (0, 0)), mode="reflect").transpose(2, 0, 1)
    assert any(np.array_equal(crop, expected) for expected in (padded, padded[..., ::-1]))
