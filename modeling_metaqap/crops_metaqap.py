"""Where the crops of an image lie, how they are cut, and how what they get becomes one result.

`crop_layout` says where the crops of an image lie, `prepare_crops` makes them, and `merge_crops` makes one result of
what they get. Everything that reads or scores images goes through these three. An image is Pillow's, or a tensor of
bytes on any device; the crops are the same to the bit. PyTorch is imported for tensors only, so that processes that
only read images start fast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

#: Pixels that the shortest edge of an image is shrunk to, where nothing else is said.
SHORTEST_EDGE = 512

#: Pixels that a crop's side, and the shortest edge that images are shrunk to, can have at most.
LONGEST_SIDE = 8192


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


def crop_layout(height: int, width: int, *, shortest_edge: int = SHORTEST_EDGE, crop_size: int = 512) -> CropLayout:
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


@overload
def shrink(image: Image.Image, layout: CropLayout, *, resample: int = ...) -> Image.Image: ...
@overload
def shrink(image: "Tensor", layout: CropLayout, *, resample: int = ...) -> "Tensor": ...
def shrink(
    image: "Image.Image | Tensor", layout: CropLayout, *, resample: int = Image.Resampling.BICUBIC
) -> "Image.Image | Tensor":
    """An image at the size that its layout wants; the image itself if it has that size already.

    Args:
        image: 8-bit RGB, of Pillow or a tensor `(3, H, W)` of bytes.
        layout: of this image, or of the one that it was shrunk from.
        resample: a filter of Pillow, which antialiases.
    """
    if isinstance(image, Image.Image):
        size = layout.resized[::-1]
        return image if image.size == size else image.resize(size, Image.Resampling(resample))
    for axis in (2, 1):  # first the columns, as Pillow does
        if image.shape[axis] != layout.resized[axis - 1]:
            image = _resize_axis(image, axis, layout.resized[axis - 1], Image.Resampling(resample))
    return image


@overload
def prepare_crops(
    image: Image.Image,
    layout: CropLayout,
    *,
    corners: Sequence[tuple[int, int]] | None = ...,
    resample: int = ...,
) -> NDArray[np.uint8]: ...
@overload
def prepare_crops(
    image: "Tensor", layout: CropLayout, *, corners: Sequence[tuple[int, int]] | None = ..., resample: int = ...
) -> "Tensor": ...
def prepare_crops(
    image: "Image.Image | Tensor",
    layout: CropLayout,
    *,
    corners: Sequence[tuple[int, int]] | None = None,
    resample: int = Image.Resampling.BICUBIC,
) -> "NDArray[np.uint8] | Tensor":
    """Shrink an image, pad it by reflection and cut its crops.

    Args:
        image: 8-bit RGB, of Pillow or a tensor `(3, H, W)` of bytes.
        layout: of this image, or of the one that it was shrunk from.
        corners: of other crops than the layout's, in the padded image.
        resample: see `shrink`.

    Returns:
        `(N, 3, crop_size, crop_size)`, RGB bytes: an array, or for a tensor a tensor on its device.
    """
    pads = [
        (before, padded - before - side)
        for before, padded, side in zip(layout.pad_before, layout.padded, layout.resized, strict=True)
    ]
    side = layout.crop_size
    corners = layout.corners if corners is None else corners
    if isinstance(image, Image.Image):
        array = np.asarray(shrink(image, layout, resample=resample))
        if layout.padded != layout.resized:
            array = np.pad(array, (*pads, (0, 0)), mode="reflect")
        crops = np.stack([array[top : top + side, left : left + side] for top, left in corners])
        return crops.transpose(0, 3, 1, 2)
    import torch

    pixels = shrink(image, layout, resample=resample)
    for axis, (pad, length) in enumerate(zip(pads, layout.resized, strict=True), start=1):
        if any(pad):
            places = torch.from_numpy(np.pad(np.arange(length), pad, mode="reflect"))
            pixels = pixels.index_select(axis, places.to(pixels.device))
    return torch.stack([pixels[:, top : top + side, left : left + side] for top, left in corners])


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    def sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x * math.pi
        return np.where(x == 0, 1, np.sin(x) / np.where(x == 0, 1, x))

    x = np.abs(x)
    return np.where(x < 3, sinc(x) * sinc(x / 3), 0)


def _hamming(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    turn = np.where(x == 0, 1, x * math.pi)
    # Pillow keeps these two numbers in 32 bits.
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * np.cos(turn)
    return np.where(x == 0, 1, np.where(x < 1, np.sin(turn) / turn * window, 0))


# What Pillow's filters weight a pixel at a distance with, and how far they reach, in pixels of the smaller image.
_FILTERS = {
    Image.Resampling.BOX: (lambda x: np.where((x > -0.5) & (x <= 0.5), 1, 0), 0.5),
    Image.Resampling.BILINEAR: (lambda x: np.where(np.abs(x) < 1, 1 - np.abs(x), 0), 1.0),
    Image.Resampling.HAMMING: (_hamming, 1.0),
    Image.Resampling.BICUBIC: (_cubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}

# Pillow adds up bytes times weights in whole numbers; so many of their bits stand behind the point.
_PRECISION_BITS = 32 - 8 - 2


def _resize_axis(image: "Tensor", axis: int, length: int, resample: Image.Resampling) -> "Tensor":
    """Resize a tensor of bytes `(3, H, W)` along one axis as Pillow does, to the bit.

    Source: Pillow's `src/libImaging/Resample.c` and, for the nearest pixel, `Geometry.c`.
    """
    import torch

    old = image.shape[axis]
    scale = old / length
    if resample == Image.Resampling.NEAREST:
        places = np.cumsum([0.5 * scale, *[scale] * (length - 1)]).astype(np.int64)
        return image.index_select(axis, torch.from_numpy(places).to(image.device))
    filter_weight, reach = _FILTERS[resample]
    stretch = max(1.0, scale)
    centers = (np.arange(length) + 0.5) * scale
    first = np.maximum(0, (centers - reach * stretch + 0.5).astype(np.int64))
    last = np.minimum(old, (centers + reach * stretch + 0.5).astype(np.int64))
    places = first[:, None] + np.arange((last - first).max())
    weights = filter_weight((places - centers[:, None] + 0.5) * (1.0 / stretch)) * (places < last[:, None])
    # Added up one after the other, as in C.
    weights = weights / np.cumsum(weights, axis=1)[:, -1:] * (1 << _PRECISION_BITS)
    weights = np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32)
    shape = [1, 1, 1]
    shape[axis] = length
    total: Any = 1 << (_PRECISION_BITS - 1)
    taps = [
        torch.from_numpy(np.ascontiguousarray(array.T)).to(image.device)
        for array in (np.minimum(places, old - 1), weights)
    ]
    for place, weight in zip(*taps, strict=True):
        total = total + image.index_select(axis, place).int() * weight.view(shape)
    return (total >> _PRECISION_BITS).clamp(0, 255).byte()


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


__all__ = ["LONGEST_SIDE", "SHORTEST_EDGE", "CropLayout", "crop_layout", "merge_crops", "prepare_crops", "shrink"]
