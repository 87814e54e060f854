"""Changes of brightness (KADID-10k numbers 16 to 18)."""

import numpy as np

from .base import FloatImage, distortion
from .colors import luma


def apply_tone_curve(image: FloatImage, toned_luma: FloatImage) -> FloatImage:
    """Give an image a new luma, shape (H, W, 1): half by scaling its colours, half by shifting them.

    Scaling alone keeps the saturation but clips bright colours, shifting alone washes them out; a photograph that was
    exposed differently lies between.
    """
    old_luma = luma(image)
    scaled = image * (toned_luma / np.maximum(old_luma, np.float32(1e-3)))
    shifted = image + (toned_luma - old_luma)
    return np.float32(0.5) * (np.clip(scaled, 0.0, 1.0) + np.clip(shifted, 0.0, 1.0))


@distortion(family="brightness", levels=(0.25, 0.5, 0.9, 1.5, 2.6), unit="exponent of the tone curve, less 1")
def brighten(image: FloatImage, amount: float, rng: np.random.Generator) -> FloatImage:
    """Raise the brightness non-linearly: the darkness 1 - Y is raised to the power 1 + amount."""
    return apply_tone_curve(image, 1 - (1 - luma(image)) ** np.float32(1 + amount))


@distortion(family="brightness", levels=(0.25, 0.5, 0.9, 1.5, 2.6), unit="exponent of the tone curve, less 1")
def darken(image: FloatImage, amount: float, rng: np.random.Generator) -> FloatImage:
    """Lower the brightness non-linearly: the luma Y is raised to the power 1 + amount."""
    return apply_tone_curve(image, luma(image) ** np.float32(1 + amount))


@distortion(
    family="brightness", levels=(0.05, 0.1, 0.16, 0.24, 0.35), unit="shift up or down, of a range of 1", signed=True
)
def mean_shift(image: FloatImage, shift: float, rng: np.random.Generator) -> FloatImage:
    """Add a constant to all values, or subtract it, and truncate to the original range."""
    return image + np.float32(shift if rng.random() < 0.5 else -shift)


__all__ = ["apply_tone_curve", "brighten", "darken", "mean_shift"]
