"""Scores of a data set: an image that cannot be decoded is named."""

import io

import pytest
from corpus import photograph
from PIL import EpsImagePlugin

datasets = pytest.importorskip("datasets", reason="needs the train extra")

from modeling_metaqap.errors import MetaQAPError  # noqa: E402
from modeling_metaqap.evaluation.baselines.scorer import BaselineScorer  # noqa: E402
from modeling_metaqap.inference.predicting import predict  # noqa: E402


def damaged_avif() -> bytes:
    """One byte changed where the pixels begin: Pillow raises RuntimeError."""
    data = io.BytesIO()
    photograph().save(data, "AVIF")
    pixels = bytearray(data.getvalue())
    pixels[pixels.index(b"mdat") + 8] ^= 0xFF
    return bytes(pixels)


def eps() -> bytes:
    data = io.BytesIO()
    photograph().save(data, "EPS")
    return data.getvalue()


@pytest.mark.parametrize(("content", "reason"), [(damaged_avif(), "it is damaged"), (eps(), "a PostScript document")])
def test_an_image_that_cannot_be_decoded_is_named_with_the_reason(content, reason, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", refuse)
    good = io.BytesIO()
    photograph(200, 160).save(good, "PNG")
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    rows = {"image": [{"bytes": good.getvalue()}, {"bytes": content}], "image_id": ["good.png", "odd.jpg"]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(MetaQAPError, match=f"The image odd.jpg cannot be scored: .*{reason}"):
        predict(BaselineScorer("piqe"), dataset)
