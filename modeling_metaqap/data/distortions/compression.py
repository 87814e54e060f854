"""Compression artefacts by Pillow's own codecs (KADID-10k numbers 9 and 10)."""

import io

import numpy as np
from PIL import Image

from .base import FloatImage, distortion, from_pillow, to_pillow


@distortion(family="compression", levels=(20.0, 40.0, 75.0, 140.0, 260.0), unit="compression ratio")
def jpeg2000_compression(image: FloatImage, ratio: float, rng: np.random.Generator) -> FloatImage:
    """Encode as JPEG 2000 at a compression ratio (lossy wavelet and colour transform), and decode."""
    buffer = io.BytesIO()
    to_pillow(image).save(
        buffer,
        format="JPEG2000",
        irreversible=True,
        mct=int(image.shape[2] == 3),
        quality_mode="rates",
        quality_layers=[ratio],
    )
    return from_pillow(Image.open(buffer))


@distortion(family="compression", levels=(40.0, 24.0, 14.0, 8.0, 4.0), unit="JPEG quality, 1 to 100")
def jpeg_compression(image: FloatImage, quality: float, rng: np.random.Generator) -> FloatImage:
    """Encode as baseline JPEG at a quality, and decode."""
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, format="JPEG", quality=int(quality))
    return from_pillow(Image.open(buffer))


__all__ = ["jpeg2000_compression", "jpeg_compression"]
