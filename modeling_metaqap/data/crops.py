"""Random crops to train on."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..image_processing_metaqap import crop_layout


def random_crop(image: Image.Image, crop_size: int, rng: np.random.Generator) -> Tensor:
    """A random crop of the resized image, flipped half of the time: `(3, crop_size, crop_size)` uint8."""
    layout = crop_layout(image.height, image.width, crop_size=crop_size)
    height, width = layout.resized
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    if layout.padded != layout.resized:
        pads = [
            (before, padded - before - side)
            for before, padded, side in zip(layout.pad_before, layout.padded, layout.resized, strict=True)
        ]
        array = np.pad(array, (*pads, (0, 0)), mode="reflect")
    top = rng.integers(array.shape[0] - crop_size + 1)
    left = rng.integers(array.shape[1] - crop_size + 1)
    array = array[top : top + crop_size, left : left + crop_size]
    if rng.random() < 0.5:
        array = array[:, ::-1]
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


__all__ = ["random_crop"]
