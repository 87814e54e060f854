"""PIQE without a reference implementation at hand: its definition on images whose blocks are known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from modeling_metaqap.evaluation.baselines.piqe import _blocks, _normalised_luma, piqe


@pytest.fixture
def photo(request):
    return Image.open(request.config.rootpath / "space" / "examples" / "coffee.jpg").convert("RGB")


def test_a_flat_image_has_no_active_block_and_the_worst_score():
    assert piqe(np.full((48, 64, 3), 90)) == 100


def test_distortions_make_the_score_of_a_photograph_worse(photo, tmp_path):
    photo.save(tmp_path / "crushed.jpg", quality=5)
    rng = np.random.default_rng(0)
    noisy = np.asarray(photo) + rng.normal(scale=25, size=(*photo.size[::-1], 3))
    clean = piqe(photo)
    assert clean < 40
    assert piqe(photo.filter(ImageFilter.GaussianBlur(4))) > 2 * clean
    assert piqe(Image.open(tmp_path / "crushed.jpg")) > 2 * clean
    assert piqe(noisy.clip(0, 255)) > 1.5 * clean


# Values of pypiqe 1.2 (a port of MATLAB's function) for the same files. It scales an image by its brightest pixel and
# takes one column of the surround for another, so the two agree to a point only.
@pytest.mark.parametrize(
    ("name", "expected"),
    [("coffee", 27.283), ("chelsea_crushed", 83.060), ("rocket", 40.084), ("rocket_crushed", 78.606)],
)
def test_it_agrees_with_a_port_of_matlabs(name, expected, request):
    path = request.config.rootpath / "space" / "examples" / f"{name}.jpg"
    assert piqe(Image.open(path).convert("RGB")) == pytest.approx(expected, abs=0.4)


def test_noise_alone_is_pooled_as_in_the_paper():
    # In white noise every block is active and noisy and no edge is smooth, so that a block's distortion is its
    # variance, and the score is their mean with C1 = 1 above and below the line.
    rng = np.random.default_rng(1)
    luma = rng.normal(128, 30, size=(64, 64)).clip(0, 255)
    blocks = _blocks(_normalised_luma(np.round(luma)))
    assert blocks.shape == (16, 16, 16)
    variances = [np.var(block, ddof=1) for block in blocks]
    assert piqe(luma) == pytest.approx(100 * (sum(variances) + 1) / 17)


def test_blocks_are_the_images_tiles_row_by_row():
    image = np.arange(32 * 48).reshape(32, 48)
    assert np.array_equal(_blocks(image)[4], image[16:32, 16:32])


def test_grey_images_score_as_their_luma_and_sides_need_not_be_multiples_of_16(photo):
    grey = np.asarray(photo.convert("L"))[:50, :70]
    assert piqe(grey) == pytest.approx(piqe(np.stack([grey] * 3, axis=2)))
    assert np.isfinite(piqe(grey[:5, :3]))


@pytest.mark.parametrize("shape", [(4,), (8, 8, 4), (0, 8)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\) or \(H, W\)"):
        piqe(np.zeros(shape))
