"""Random crops, for training and for distorted sets."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..crops_metaqap import SHORTEST_EDGE, crop_layout, prepare_crops


def random_crop(image: Image.Image, crop_size: int, rng: np.random.Generator, *, min_scale: float = 1.0) -> Tensor:
    """A random crop of the image as it is scored, mirrored half of the time: `(3, crop_size, crop_size)` uint8.

    Args:
        image: 8-bit RGB.
        crop_size: side of the crop in pixels.
        rng: draws the crop.
        min_scale: shrinks what is scored by a random factor from here to 1 first, in (0, 1].
    """
    edge = min(SHORTEST_EDGE, image.height, image.width)
    if min_scale < 1:
        edge = max(1, round(edge * rng.uniform(min_scale, 1.0)))
    layout = crop_layout(image.height, image.width, shortest_edge=edge, crop_size=crop_size)
    top, left = (int(rng.integers(side - crop_size + 1)) for side in layout.padded)
    [crop] = prepare_crops(image, layout, corners=[(top, left)])
    if rng.random() < 0.5:
        crop = crop[:, :, ::-1]
    return torch.from_numpy(crop.copy())


__all__ = ["random_crop"]
