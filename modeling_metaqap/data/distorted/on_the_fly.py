"""A torch data set of distorted crops that writes nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...crops_metaqap import SHORTEST_EDGE
from ...decoding_metaqap import read_rgb
from ..crops import random_crop
from ..distortions import DISTORTION_NAMES, DISTORTIONS, applicable_distortions
from ..distortions.base import LEVELS


class DistortedImages(Dataset):
    """Random crops of pristine images, each with a random distortion at a random level.

    Item `index`, or `(epoch, index)` for other draws in each epoch, depends on the seed, the epoch and the index
    alone: not on workers, processes or resumption. An image is shrunk first where the image processor would shrink it.
    A crop without colour gets no distortion that only acts on colour, for it would come out pristine.

    Each item is a dictionary of

    - `pixel_values`, uint8 (3, `crop_size`, `crop_size`): the distorted crop,
    - `distortion`, int64 (): the position of its distortion in `DISTORTION_NAMES`,
    - `level`, int64 (): 1 to 5,
    - `reference`, uint8 (3, `crop_size`, `crop_size`): the pristine crop, with `return_reference=True`.

    Label a batch with `pseudo_mos(batch["pixel_values"] / 255, batch["reference"] / 255)`.

    Args:
        images: Pristine images: paths, Pillow images, or rows with an "image" (a `datasets.Dataset`).
        crop_size: Side of the crops in pixels, 32 or more.
        seed: Seed of all draws.
        return_reference: Whether items hold the pristine crop too.
        distortions: Names to draw from; all 25 by default.
        levels: Levels to draw from.

    Raises:
        ValueError: No image, an unknown distortion or level, or a crop too small.
    """

    def __init__(
        self,
        images: Sequence[Any],
        *,
        crop_size: int,
        seed: int,
        return_reference: bool = False,
        distortions: Sequence[str] = DISTORTION_NAMES,
        levels: Sequence[int] = LEVELS,
    ):
        if len(images) == 0:
            raise ValueError("There are no pristine images to distort.")
        if crop_size < 32:
            raise ValueError(f"crop_size must be 32 or more, got {crop_size}.")
        unknown = [name for name in distortions if name not in DISTORTIONS]
        if unknown or not distortions:
            raise ValueError(f"distortions must be names from DISTORTION_NAMES, got {unknown or 'none'}.")
        if not levels or not set(levels) <= set(LEVELS):
            raise ValueError(f"levels must be integers from 1 to 5, got {list(levels)}.")
        self.images = images
        self.crop_size = crop_size
        self.seed = seed
        self.return_reference = return_reference
        self.distortions = tuple(distortions)
        self.levels = tuple(levels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = item if isinstance(item, tuple) else (0, item)
        rng = np.random.default_rng([self.seed, epoch, index])
        crop = random_crop(self._image(index), self.crop_size, rng)
        reference = crop.numpy().transpose(1, 2, 0)
        applicable = applicable_distortions(reference)
        names = [name for name in self.distortions if name in applicable] or self.distortions
        name = names[rng.integers(len(names))]
        level = self.levels[rng.integers(len(self.levels))]
        distorted: NDArray[np.uint8] = DISTORTIONS[name](reference, level, rng)
        sample = {
            "pixel_values": torch.from_numpy(distorted.transpose(2, 0, 1).copy()),
            "distortion": torch.tensor(DISTORTION_NAMES.index(name)),
            "level": torch.tensor(level),
        }
        return sample | {"reference": crop} if self.return_reference else sample

    def _image(self, index: int) -> Image.Image:
        image = self.images[index]
        return read_rgb(image["image"] if isinstance(image, dict) else image, shortest_edge=SHORTEST_EDGE)


__all__ = ["DistortedImages"]
