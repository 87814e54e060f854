"""Full-reference metrics and their fusion into a pseudo opinion score."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from modeling_metaqap.data.distorted.pseudo_mos import (
    METRIC_SETS,
    METRICS,
    deviation,
    full_reference_scores,
    fuse,
    load_reference_population,
    pseudo_mos,
    quantiles_of,
    resolve_metrics,
)
from modeling_metaqap.data.distortions import DISTORTIONS, LEVELS, distort
from modeling_metaqap.errors import MetaQAPError

SIDE = 164  # the smallest multiple of four that every metric accepts


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None]


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Three photographs of SIDE x SIDE pixels that ship with scikit-image."""
    pictures = (data.astronaut(), data.coffee(), data.chelsea())
    return [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for p in pictures]


@pytest.fixture(scope="module")
def reference(photographs: list[np.ndarray]) -> torch.Tensor:
    return torch.cat([to_tensor(image) for image in photographs])


@pytest.fixture(scope="module")
def distorted(photographs: list[np.ndarray]) -> torch.Tensor:
    """A different distortion of each photograph."""
    names = ("gaussian_blur", "white_noise", "contrast_change")
    images = [distort(image, name, 3, 1) for image, name in zip(photographs, names, strict=True)]
    return torch.cat([to_tensor(image) for image in images])


@pytest.fixture(scope="module")
def scores(distorted: torch.Tensor, reference: torch.Tensor) -> dict[str, torch.Tensor]:
    return full_reference_scores(distorted, reference)


def test_an_image_equal_to_its_reference_scores_exactly_one(reference: torch.Tensor) -> None:
    values = full_reference_scores(reference, reference.clone())
    for name, metric in METRICS.items():
        assert (values[name] == metric.identity).all()
    assert (fuse(values) == 1).all()


def test_identical_and_distorted_images_may_stand_in_one_batch(
    distorted: torch.Tensor, reference: torch.Tensor, scores: dict[str, torch.Tensor]
) -> None:
    mixed = torch.cat([distorted[:1], reference[1:2]])
    fused = pseudo_mos(mixed, reference[:2], metrics="fast")
    assert fused[1] == 1
    assert torch.allclose(fused[0], fuse({name: scores[name] for name in METRIC_SETS["fast"]})[0], atol=1e-5)


def test_scores_lie_between_zero_and_one(scores: dict[str, torch.Tensor]) -> None:
    fused = fuse(scores)
    assert fused.shape == (3,) and fused.dtype == torch.float32
    assert ((fused > 0) & (fused < 1)).all()


def test_a_score_does_not_depend_on_the_other_images(
    distorted: torch.Tensor, reference: torch.Tensor, scores: dict[str, torch.Tensor]
) -> None:
    alone = full_reference_scores(distorted[1:2], reference[1:2])
    for name in METRICS:
        assert torch.allclose(alone[name], scores[name][1:2], rtol=1e-4, atol=1e-5), name
    assert torch.allclose(fuse(alone), fuse(scores)[1:2], atol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_calls_a_stronger_blur_worse(name: str, photographs: list[np.ndarray]) -> None:
    image = photographs[0]
    blurred = torch.cat([to_tensor(distort(image, "gaussian_blur", level, 0)) for level in (1, 3, 5)])
    values = full_reference_scores(blurred, to_tensor(image).expand(3, -1, -1, -1), metrics=[name])[name]
    away = deviation(name, values)
    assert 0 < away[0] < away[1] < away[2]
    falls = values[0] > values[2]
    assert bool(falls) == METRICS[name].higher_is_better


@pytest.mark.parametrize("name", ["color_saturation_2", "jpeg_compression", "non_eccentricity_patch", "high_sharpen"])
def test_the_fast_score_falls_with_the_level(name: str, photographs: list[np.ndarray]) -> None:
    image = photographs[1]
    levels = torch.cat([to_tensor(distort(image, name, level, 0)) for level in LEVELS])
    fused = pseudo_mos(levels, to_tensor(image).expand(5, -1, -1, -1), metrics="fast")
    assert (fused.diff() < 0).all()


def test_more_contrast_than_the_reference_is_worse_although_vif_exceeds_one(photographs: list[np.ndarray]) -> None:
    pixels = 0.3 + 0.4 * to_tensor(photographs[0])
    stretched = (0.5 + 1.8 * (pixels - 0.5)).clamp(0, 1)
    value = full_reference_scores(stretched, pixels, metrics=["vif_p"])
    assert value["vif_p"] > 1
    assert fuse(value) < 1


def test_psnr_is_ten_log_of_the_inverse_mean_square_error() -> None:
    reference = torch.full((1, 3, 32, 32), 0.5)
    value = full_reference_scores(reference + 0.1, reference, metrics="psnr")["psnr"]
    assert float(value) == pytest.approx(-10 * math.log10(0.01), abs=1e-4)  # by definition, for a range of 1


def test_grey_images_and_other_precisions_give_the_same_score(
    distorted: torch.Tensor, reference: torch.Tensor
) -> None:
    x, y = distorted[:1], reference[:1]
    expected = pseudo_mos(x, y, metrics="fast")
    assert torch.equal(pseudo_mos(x.double(), y.double(), metrics="fast"), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pseudo_mos(x, y, metrics="fast"), expected)
    grey_x, grey_y = x[:, :1], y[:, :1]
    as_rgb = pseudo_mos(grey_x.expand(-1, 3, -1, -1), grey_y.expand(-1, 3, -1, -1), metrics="fast")
    assert torch.equal(pseudo_mos(grey_x, grey_y, metrics="fast"), as_rgb)


def test_no_gradient_is_kept(distorted: torch.Tensor, reference: torch.Tensor) -> None:
    assert not pseudo_mos(distorted.clone().requires_grad_(), reference, metrics="psnr").requires_grad


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_reference_without_structure_still_gets_a_score(value: float) -> None:
    reference = torch.full((1, 3, SIDE, SIDE), value)
    noisy = (reference + 0.1 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    score = pseudo_mos(noisy, reference)
    assert torch.isfinite(score).all() and 0 < score < 1


# The fusion


def test_the_score_is_the_mean_rank_in_the_reference_population() -> None:
    population = np.linspace(0.0, 1.0, 1001)
    quantiles = {"ssim": quantiles_of(population), "gmsd": quantiles_of(2 * population)}
    fused = fuse({"ssim": torch.tensor([0.75, 1.0]), "gmsd": torch.tensor([1.2, 0.0])}, quantiles=quantiles)
    # SSIM 0.75 is 0.25 from identity: 75 % are farther. GMSD 1.2 of 2: 40 % are farther.
    assert fused.tolist() == pytest.approx([(0.75 + 0.40) / 2, 1.0], abs=1e-5)


def test_the_rank_falls_without_end_beyond_the_population() -> None:
    quantiles = {"gmsd": quantiles_of(np.linspace(0.0, 0.5, 200))}
    fused = fuse({"gmsd": torch.tensor([0.4, 0.49, 0.5, 0.6, 1.0, 10.0])}, quantiles=quantiles)
    assert (fused.diff() < 0).all() and fused[-1] > 0


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    quantiles = {name: quantiles_of(np.linspace(0.0, 1.0, 101)) for name in ("ssim", "gmsd")}
    with_nan = fuse({"ssim": torch.tensor([0.4]), "gmsd": torch.tensor([torch.nan])}, quantiles=quantiles)
    assert torch.equal(with_nan, fuse({"ssim": torch.tensor([0.4])}, quantiles=quantiles))


def test_quantiles_leave_nan_out_and_start_at_identity() -> None:
    quantiles = quantiles_of([np.nan, 0.2, 0.4, np.inf])
    assert quantiles[0] == 0
    assert quantiles[1:] == sorted(quantiles[1:]) and 0.2 <= quantiles[1] and quantiles[-1] <= 0.4


def test_nothing_to_fuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="no metrics"):
        fuse({})


# The reference population that ships


def test_the_reference_population_covers_every_metric_and_the_present_levels() -> None:
    population = load_reference_population()
    assert set(population["quantiles"]) == set(METRICS)
    for quantiles in population["quantiles"].values():
        assert len(quantiles) == 101 and quantiles[0] == 0
        assert (np.diff(quantiles) >= 0).all() and quantiles[-1] > 0
    # Whoever changes a level runs scripts/calibrate_pseudo_mos.py.
    assert population["population"]["levels"] == {name: list(entry.levels) for name, entry in DISTORTIONS.items()}


# A user's mistakes


def test_metric_sets_and_names_are_resolved() -> None:
    assert resolve_metrics() == tuple(METRICS) and len(METRICS) == 13
    assert set(resolve_metrics("fast")) < set(METRICS)
    assert resolve_metrics("ssim, psnr") == resolve_metrics(["ssim", "psnr"]) == ("ssim", "psnr")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [("lpips", '"lpips".*full, fast.*ssim'), ("ssim,ssim", "twice"), ([], "Choose"), ("", "Choose")],
)
def test_unknown_metrics_are_refused(metrics: str | list[str], message: str) -> None:
    with pytest.raises(MetaQAPError, match=message):
        resolve_metrics(metrics)


@pytest.mark.parametrize(
    ("distorted", "reference", "message"),
    [
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 65), "differ in shape"),
        (torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 64, 64), r"\(B, 3, H, W\)"),
        (torch.zeros(0, 3, 64, 64), torch.zeros(0, 3, 64, 64), r"\(B, 3, H, W\)"),
        (torch.full((1, 3, 64, 64), 1.1), torch.zeros(1, 3, 64, 64), r"\[0, 1\]"),
        (torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), torch.nan), r"\[0, 1\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "divide"),
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), "ms_ssim, iw_ssim need .*161 pixels"),
        (torch.zeros(1, 3, 64, 64, device="meta"), torch.zeros(1, 3, 64, 64), "different devices"),
    ],
)
def test_bad_images_are_refused(distorted: torch.Tensor, reference: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pseudo_mos(distorted, reference)
