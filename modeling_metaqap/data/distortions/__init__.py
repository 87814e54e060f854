"""The 25 distortions of KADID-10k at five levels each, and a torch data set that applies them on the fly.

Re-implemented from the descriptions in Lin, Hosu and Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA
Database" (QoMEX 2019), on scipy, scikit-image and Pillow's codecs. The level parameters are this project's own: they
were chosen by eye and by full-reference metrics on 512 x 512 photographs so that level 1 is just visible, level 5 very
annoying and each level clearly worse than the one before.

>>> from modeling_metaqap.data.distortions import DISTORTIONS, distort
>>> blurred = distort(photograph, "gaussian_blur", 3, 0)
>>> DISTORTIONS["gaussian_blur"].levels, DISTORTIONS["gaussian_blur"].unit
((0.7, 1.2, 2.0, 3.2, 5.0), 'standard deviation in pixels')
"""

import difflib

import numpy as np

from .base import LEVELS, MIN_SIDE, Distortion, ImageT, is_colorless
from .blurs import gaussian_blur, lens_blur, motion_blur
from .brightness import brighten, darken, mean_shift
from .colors import color_diffusion, color_quantization, color_saturation_1, color_saturation_2, color_shift
from .compression import jpeg2000_compression, jpeg_compression
from .noise import denoise, impulse_noise, multiplicative_noise, white_noise, white_noise_color_component
from .sharpness_contrast import contrast_change, high_sharpen
from .spatial import color_block, jitter, non_eccentricity_patch, pixelate, quantization

#: The 25 distortions by name. KADID-10k's order is the order of the distortion head's classes and must never change.
DISTORTIONS: dict[str, Distortion] = {
    entry.name: entry
    for entry in (
        gaussian_blur,
        lens_blur,
        motion_blur,
        color_diffusion,
        color_shift,
        color_quantization,
        color_saturation_1,
        color_saturation_2,
        jpeg2000_compression,
        jpeg_compression,
        white_noise,
        white_noise_color_component,
        impulse_noise,
        multiplicative_noise,
        denoise,
        brighten,
        darken,
        mean_shift,
        jitter,
        non_eccentricity_patch,
        pixelate,
        quantization,
        color_block,
        high_sharpen,
        contrast_change,
    )
}

#: The 25 names in KADID-10k's order; a name's position is its class index.
DISTORTION_NAMES: tuple[str, ...] = tuple(DISTORTIONS)


def get_distortion(name: str) -> Distortion:
    """Return a distortion by name.

    Raises:
        ValueError: There is no such distortion; the message names the closest ones.
    """
    if name not in DISTORTIONS:
        close = difflib.get_close_matches(name, DISTORTION_NAMES, n=3) or DISTORTION_NAMES
        raise ValueError(f'There is no distortion "{name}". Did you mean one of: {", ".join(close)}?')
    return DISTORTIONS[name]


def distort(image: ImageT, name: str, level: int, rng: np.random.Generator | int) -> ImageT:
    """Distort one image.

    Args:
        image: uint8 array in [0, 255] or floating array in [0, 1], of shape (H, W), (H, W, 1) or (H, W, 3) in sRGB; or
            a Pillow image in mode "RGB" or "L". Each side has 32 pixels or more.
        name: One of `DISTORTION_NAMES`.
        level: 1 (barely visible) to 5 (very annoying).
        rng: A seed, or a generator that the call advances. The same seed gives the same image.

    Returns:
        A new image of the same type, dtype, shape and range.

    Raises:
        TypeError: `image`, `level` or `rng` is of a kind not named above.
        ValueError: No such distortion, or the image's shape or range or the level is not one named above.
    """
    return get_distortion(name)(image, level, rng)


def applicable_distortions(image: ImageT) -> tuple[str, ...]:
    """The names, in KADID-10k's order, of the distortions that change this image: all, or those for a grey one."""
    colorless = is_colorless(image)
    return tuple(name for name, entry in DISTORTIONS.items() if not (colorless and entry.needs_color))


__all__ = [
    "DISTORTIONS",
    "DISTORTION_NAMES",
    "LEVELS",
    "MIN_SIDE",
    "Distortion",
    "applicable_distortions",
    "distort",
    "get_distortion",
]
