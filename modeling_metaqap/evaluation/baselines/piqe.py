"""PIQE: how distorted a photograph is, from its blocks alone and without any training.

Source: Venkatanath N, Praneeth D, Maruthi Chandrasekhar Bh, Channappayya and Medasani, "Blind image quality evaluation
using perception based features", National Conference on Communications (NCC), 2015, whose constants these are. What
the paper leaves open is done as elsewhere in the field: luma is ITU-R BT.601 in [0, 255], and an image whose sides are
no multiple of 16 is completed by mirroring.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]

BLOCK = 16
# Variance of a block's normalised luma above which it counts as active, that is, as drawing the eye.
ACTIVITY_THRESHOLD = 0.1
# Length of the pieces of a block's edges, and the standard deviation below which a piece is unnaturally smooth.
EDGE_SEGMENT = 6
EDGE_THRESHOLD = 0.1
# Keeps the pooled score defined for an image without an active block, which gets the worst score.
C1 = 1.0


def piqe(image: npt.ArrayLike) -> float:
    """Perception based image quality evaluator.

    Args:
        image: (H, W, 3) RGB or (H, W) luma in [0, 255].

    Returns:
        Distortion, *lower is better*, mostly in [0, 100]; an image without any active block, such as a flat one, has
        100.

    Raises:
        ValueError: `image` has another shape.
    """
    blocks = _blocks(_normalised_luma(_luma(image)))
    variances = blocks.var(axis=(1, 2), ddof=1)
    active = variances > ACTIVITY_THRESHOLD
    blocks, variances = blocks[active], variances[active]
    # A block can be damaged in both ways and then counts 1.
    distortion = np.sum((1 - variances)[_has_smooth_edge(blocks)]) + np.sum(variances[_is_noisy(blocks, variances)])
    return float(100 * (distortion + C1) / (len(blocks) + C1))


def _luma(image: npt.ArrayLike) -> FloatArray:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = pixels @ np.array([0.299, 0.587, 0.114])
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(f"PIQE needs an image of the shape (H, W, 3) or (H, W), not {np.shape(image)}.")
    return np.asarray(np.round(pixels))


def _normalised_luma(luma: FloatArray) -> FloatArray:
    """Luma less its local mean, over its local deviation, in a Gaussian window of 7 x 7 pixels."""
    rows, columns = luma.shape
    luma = np.pad(luma, ((0, -rows % BLOCK), (0, -columns % BLOCK)), mode="symmetric")

    def smooth(values: FloatArray) -> FloatArray:
        return np.asarray(ndimage.gaussian_filter(values, sigma=7 / 6, radius=3, mode="nearest"))

    mean = smooth(luma)
    deviation = np.sqrt(np.abs(smooth(luma**2) - mean**2))
    return np.asarray((luma - mean) / (deviation + 1))


def _blocks(values: FloatArray) -> FloatArray:
    """(H, W) -> (n, 16, 16)"""
    rows, columns = values.shape
    blocks = values.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return blocks.swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)


def _has_smooth_edge(blocks: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether a piece of any of the four edges hardly varies, as at the borders of compressed blocks."""
    edges = np.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], axis=1)
    segments = np.lib.stride_tricks.sliding_window_view(edges, EDGE_SEGMENT, axis=2)
    return np.asarray((segments.std(axis=3, ddof=1) < EDGE_THRESHOLD).any(axis=(1, 2)))


def _is_noisy(blocks: FloatArray, variances: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether a block varies far more than the relation of its two middle columns to the others accounts for."""
    middle = slice(BLOCK // 2 - 1, BLOCK // 2 + 1)
    centre = blocks[:, :, middle].std(axis=(1, 2), ddof=1)
    surround = np.delete(blocks, middle, axis=2).std(axis=(1, 2), ddof=1)
    # An active block without a varying surround has its variation in the middle alone: an infinite relation.
    relation = np.divide(centre, surround, out=np.full_like(centre, np.inf), where=surround > 0)
    deviation = np.sqrt(variances)
    difference = np.ones_like(centre)
    finite = np.isfinite(relation)
    difference[finite] = np.abs(deviation - relation)[finite] / np.maximum(deviation, relation)[finite]
    return np.asarray(deviation > 2 * difference)


__all__ = ["piqe"]
