"""Where the crops of an image lie, how they are cut, and how what they get becomes one result.

`crop_layout` says where the crops of an image lie, `prepare_crops` makes them, and `merge_crops` makes one result of
what they get. Everything that reads or scores images goes through these three. Nothing here imports PyTorch, so that
processes that only read images start fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CropLayout:
    """Where the crops of one image lie.

    Attributes:
        resized: Height and width that the image is shrunk to.
        pad_before: Rows above and columns to the left that are added to a small image.
        padded: Height and width after that.
        crop_size: Side of the square crops.
        corners: Row and column of each crop's upper left pixel in the padded image.
    """

    resized: tuple[int, int]
    pad_before: tuple[int, int]
    padded: tuple[int, int]
    crop_size: int
    corners: tuple[tuple[int, int], ...]


def crop_layout(height: int, width: int, *, shortest_edge: int = 512, crop_size: int = 512) -> CropLayout:
    """Where the crops of an image of `height` x `width` pixels lie.

    The shortest edge is shrunk to `shortest_edge` if it is longer and never enlarged; sides below `crop_size` are
    padded equally on both ends; crops are the fewest that cover the image, evenly spaced.

    Raises:
        ValueError: for an image without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"An image needs at least one pixel, got {height} x {width}.")
    factor = min(1.0, shortest_edge / min(height, width))
    resized = (max(1, round(height * factor)), max(1, round(width * factor)))
    padded = (max(resized[0], crop_size), max(resized[1], crop_size))
    pad_before = ((padded[0] - resized[0]) // 2, (padded[1] - resized[1]) // 2)
    starts = []
    for side in padded:
        count = -(-side // crop_size)
        starts.append([round(step * (side - crop_size) / max(1, count - 1)) for step in range(count)])
    corners = tuple((top, left) for top in starts[0] for left in starts[1])
    return CropLayout(resized, pad_before, padded, crop_size, corners)


def shrink(image: Image.Image, layout: CropLayout, *, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """An image at the size that its layout wants; the image itself if it has that size already.

    Args:
        image: 8-bit RGB.
        layout: of this image, or of the one that it was shrunk from.
        resample: a filter of Pillow, which antialiases.
    """
    size = layout.resized[::-1]
    return image if image.size == size else image.resize(size, Image.Resampling(resample))


def prepare_crops(
    image: Image.Image,
    layout: CropLayout,
    *,
    corners: Sequence[tuple[int, int]] | None = None,
    resample: int = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """Shrink an image, pad it by reflection and cut its crops.

    Args:
        image: 8-bit RGB.
        layout: of this image, or of the one that it was shrunk from.
        corners: of other crops than the layout's, in the padded image.
        resample: see `shrink`.

    Returns:
        `(N, 3, crop_size, crop_size)`, RGB bytes.
    """
    pixels = np.asarray(shrink(image, layout, resample=resample))
    if layout.padded != layout.resized:
        pads = [
            (before, padded - before - side)
            for before, padded, side in zip(layout.pad_before, layout.padded, layout.resized, strict=True)
        ]
        pixels = np.pad(pixels, (*pads, (0, 0)), mode="reflect")
    side = layout.crop_size
    corners = layout.corners if corners is None else corners
    crops = np.stack([pixels[top : top + side, left : left + side] for top, left in corners])
    return crops.transpose(0, 3, 1, 2)


def merge_crops(values: "Tensor", weights: "Tensor | None" = None) -> "Tensor":
    """What an image gets: the weighted mean of what its crops get.

    Args:
        values: `(B, N, ...)`, for N crops of each of B images.
        weights: `(B, N)`, >= 0, with at least one above 0 for each image; default equal weights.

    Returns:
        `(B, ...)`.
    """
    if weights is None:
        return values.mean(dim=1)
    shares = weights / weights.sum(dim=1, keepdim=True)
    return (values * shares.reshape(*shares.shape, *[1] * (values.ndim - 2))).sum(dim=1)


__all__ = ["CropLayout", "crop_layout", "merge_crops", "prepare_crops", "shrink"]
