"""Spatial distortions (KADID-10k numbers 19 to 23).

Patches and blocks are sized relative to the image's shorter side, so that a small image is distorted as a large one
is; offsets of single pixels are in pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .base import FloatImage, distortion


@distortion(family="spatial", levels=(0.35, 0.7, 1.1, 1.7, 2.8), unit="standard deviation of the offsets in pixels")
def jitter(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Scatter the pixels: fetch each from a random place nearby, by cubic interpolation."""
    height, width = image.shape[:2]
    offsets = rng.standard_normal((height, width, 2), dtype=np.float32) * np.float32(sigma)
    places = offsets + np.mgrid[:width, :height].astype(np.float32).T
    # torch's sampler takes (x, y) in [-1, 1] from centre to centre; scipy's does the same six times as slowly.
    grid = torch.from_numpy(places * np.array([2 / (width - 1), 2 / (height - 1)], dtype=np.float32) - np.float32(1))
    scattered = functional.grid_sample(
        torch.from_numpy(image.transpose(2, 0, 1))[None],
        grid[None],
        mode="bicubic",
        padding_mode="reflection",
        align_corners=True,
    )
    return scattered[0].numpy().transpose(1, 2, 0)


@distortion(family="spatial", levels=(20.0, 45.0, 90.0, 180.0, 360.0), unit="number of patches")
def non_eccentricity_patch(image: FloatImage, count: float, rng: np.random.Generator) -> FloatImage:
    """Copy small square patches to places nearby, where they do not belong.

    A patch's side is 1/24 of the image's shorter side, and so is its offset in each direction at most.
    """
    height, width = image.shape[:2]
    side = max(3, round(min(height, width) / 24))
    original = image.copy()
    # Half of the offsets would be too small to see if they were drawn from the whole range.
    for _ in range(int(count)):
        y, x = rng.integers(0, (height - side, width - side), endpoint=True)
        dy, dx = rng.integers(side // 2, side, size=2, endpoint=True) * rng.choice((-1, 1), size=2)
        source_y, source_x = np.clip(y + dy, 0, height - side), np.clip(x + dx, 0, width - side)
        image[y : y + side, x : x + side] = original[source_y : source_y + side, source_x : source_x + side]
    return image


@distortion(family="spatial", levels=(2.0, 3.0, 4.0, 6.0, 9.0), unit="side of the new pixels in old ones")
def pixelate(image: FloatImage, factor: float, rng: np.random.Generator) -> FloatImage:
    """Shrink and enlarge again, both by nearest-neighbour interpolation."""
    rows, columns = (
        np.minimum(np.arange(size) // int(factor) * int(factor) + int(factor) // 2, size - 1)
        for size in image.shape[:2]
    )
    return image[rows[:, None], columns[None, :]]


@distortion(family="spatial", levels=(16.0, 11.0, 8.0, 6.0, 4.0), unit="number of values per channel")
def quantization(image: FloatImage, count: float, rng: np.random.Generator) -> FloatImage:
    """Quantise the values of all channels alike, at thresholds by Otsu's method for several classes."""
    indices = np.rint(image * 255).astype(np.uint8)
    histogram = np.bincount(indices.ravel(), minlength=256)
    return otsu_palette(histogram, int(count))[indices]


def otsu_palette(histogram: NDArray[np.integer], classes: int) -> NDArray[np.float32]:
    """The mean value, in [0, 1], of the class that each of 256 grey values falls into.

    The classes minimise the variance within them, which is Otsu's criterion for several thresholds (Liao, Chen and
    Chung, 2001), found exactly by dynamic programming: the best cut of the values below t into k classes extends the
    best cut of the values below some s < t into k - 1 classes.

    Args:
        histogram: Counts of the values 0 to 255.
        classes: Number of classes, from 1 to 256.
    """
    values = np.arange(256) / 255
    mass = np.concatenate([[0.0], np.cumsum(histogram)])
    first = np.concatenate([[0.0], np.cumsum(histogram * values)])
    second = np.concatenate([[0.0], np.cumsum(histogram * values**2)])
    # within[s, t]: the squared deviation of the values s <= v < t from their mean
    weight = np.maximum(mass[None, :] - mass[:, None], 1e-12)
    within = (second[None, :] - second[:, None]) - (first[None, :] - first[:, None]) ** 2 / weight
    within[np.tril_indices(257, -1)] = np.inf
    cost = within[0]
    cuts = []
    for _ in range(classes - 1):
        candidates = cost[:, None] + within
        cuts.append(candidates.argmin(axis=0))
        cost = candidates.min(axis=0)
    palette = np.empty(256, dtype=np.float32)
    end = 256
    for cut in [*reversed(cuts), np.zeros(257, dtype=np.intp)]:
        start = int(cut[end])
        palette[start:end] = (first[end] - first[start]) / max(mass[end] - mass[start], 1e-12)
        end = start
    return palette


@distortion(family="spatial", levels=(3.0, 6.0, 11.0, 20.0, 38.0), unit="number of blocks")
def color_block(image: FloatImage, count: float, rng: np.random.Generator) -> FloatImage:
    """Cover random places with square blocks of one random colour each, 1/16 of the shorter side wide."""
    height, width, channels = image.shape
    side = max(2, round(min(height, width) / 16))
    for _ in range(int(count)):
        y, x = rng.integers(0, (height - side, width - side), endpoint=True)
        image[y : y + side, x : x + side] = rng.random(channels, dtype=np.float32)
    return image


__all__ = ["color_block", "jitter", "non_eccentricity_patch", "otsu_palette", "pixelate", "quantization"]
