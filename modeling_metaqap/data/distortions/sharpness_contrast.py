"""Changes of sharpness and contrast (KADID-10k numbers 24 and 25)."""

import numpy as np
from scipy import ndimage, special

from .base import FloatImage, distortion
from .brightness import apply_tone_curve
from .colors import luma


@distortion(family="sharpness_contrast", levels=(0.8, 1.6, 2.8, 5.0, 9.0), unit="amount of the unsharp mask")
def high_sharpen(image: FloatImage, amount: float, rng: np.random.Generator) -> FloatImage:
    """Sharpen too much: add the luma's difference from its own Gaussian blur, times the amount, to every channel."""
    grey = luma(image)
    return image + np.float32(amount) * (grey - ndimage.gaussian_filter(grey, 2.0, axes=(0, 1), truncate=3.0))


@distortion(
    family="sharpness_contrast", levels=(2.5, 4.0, 6.0, 9.0, 14.0), unit="gain of the sigmoid curve", signed=True
)
def contrast_change(image: FloatImage, gain: float, rng: np.random.Generator) -> FloatImage:
    """Bend the tone curve to a sigmoid for more contrast, or to its inverse for less; black and white stay."""
    ends = special.expit(np.float32(gain) * np.array([-0.5, 0.5], dtype=np.float32))
    grey = luma(image)
    if rng.random() < 0.5:
        toned = (special.expit(np.float32(gain) * (grey - np.float32(0.5))) - ends[0]) / (ends[1] - ends[0])
    else:
        toned = special.logit(ends[0] + grey * (ends[1] - ends[0])) / np.float32(gain) + np.float32(0.5)
    return apply_tone_curve(image, toned)


__all__ = ["contrast_change", "high_sharpen"]
