"""Random crops, for training and for distorted sets."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..image_processing_metaqap import crop_layout, prepare_crops


def random_crop(image: Image.Image, crop_size: int, rng: np.random.Generator) -> Tensor:
    """A random crop of the image as it is scored, mirrored half of the time: `(3, crop_size, crop_size)` uint8."""
    layout = crop_layout(image.height, image.width, crop_size=crop_size)
    top, left = (int(rng.integers(side - crop_size + 1)) for side in layout.padded)
    [crop] = prepare_crops(image, layout, corners=[(top, left)])
    if rng.random() < 0.5:
        crop = crop[:, :, ::-1]
    return torch.from_numpy(crop.copy())


__all__ = ["random_crop"]
