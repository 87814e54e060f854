"""Methods to compare with, scored as checkpoints are."""

import math

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation.baselines.piqe import piqe
from modeling_metaqap.evaluation.baselines.scorer import BASELINES, BaselineScorer

NAMES = sorted(BASELINES)


@pytest.fixture(params=NAMES)
def scorer(request):
    if request.param == "brisque":
        pytest.importorskip("brisque", reason="needs the baselines extra")
    return BaselineScorer(request.param)


@pytest.fixture
def examples(request):
    return request.config.rootpath / "space" / "examples"


def test_higher_is_better(scorer, examples):
    names = ("coffee.jpg", "coffee_blurred.jpg", "coffee_crushed.jpg")
    clean, blurred, crushed = (record.quality for record in scorer.score(examples / name for name in names))
    assert clean > blurred + 20
    assert clean > crushed + 20


def test_quality_is_the_negative_distortion(examples):
    with Image.open(examples / "coffee.jpg") as image:
        [record] = BaselineScorer("piqe").score([image])
    assert record.quality == -piqe(image.convert("RGB"))
    assert (record.width, record.height) == image.size


def test_brisque_gives_the_scores_of_its_package(examples):
    pytest.importorskip("brisque", reason="needs the baselines extra")
    # The unchanged brisque 0.2.0 on this file, with NumPy 2.3.5: the newest series with which it runs as published.
    [record] = BaselineScorer("brisque").score([examples / "coffee.jpg"])
    assert record.quality == pytest.approx(-4.491326, abs=1e-3)


def test_an_image_that_cannot_be_scored_says_why(scorer, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    [broken] = scorer.score([tmp_path / "broken.jpg"])
    assert (broken.quality, broken.error) == (
        None,
        "not an image, or of a format that is not read; save it as JPEG or PNG",
    )
    [flat] = scorer.score([Image.new("RGB", (64, 64), "grey")])
    if scorer.baseline.title == "BRISQUE":
        assert "hardly varies" in flat.error
    else:
        assert flat.quality == -100


def test_parameters_and_versions_are_recorded(scorer):
    has_parameters = scorer.baseline.title != "PIQE"
    assert (scorer.parameters_sha256 is not None) == has_parameters
    assert all(math.isfinite(float(part)) for part in scorer.software_versions()["scipy"].split(".")[:2])


def test_an_unknown_baseline_is_one_sentence():
    with pytest.raises(MetaQAPError, match="no baseline 'psnr'; choose from brisque, piqe"):
        BaselineScorer("psnr")


def test_a_missing_package_is_named_with_all_that_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "brisque.brisque", None)
    with pytest.raises(
        MetaQAPError, match=r"BRISQUE cannot be used\. .* `pip install .*\[(baselines|opencv-python-headless)\]"
    ):
        BaselineScorer("brisque")


def test_pixels_are_read_as_for_a_checkpoint(scorer):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x0112] = 6
    plain, upright = scorer.score([image, turned])
    # Sums of pixels differ in the last bits with where the arrays lie in memory.
    assert upright.quality == pytest.approx(plain.quality, rel=1e-9)
