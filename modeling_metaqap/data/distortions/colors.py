"""Colour distortions (KADID-10k numbers 4 to 8)."""

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color

from .base import FloatImage, distortion, from_pillow, to_pillow


def luma(image: FloatImage) -> FloatImage:
    """Rec. 601 luma of a float image, shape (H, W, 1)."""
    if image.shape[2] == 1:
        return image
    return (image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[:, :, None]


@distortion(
    family="color",
    levels=(3.0, 6.0, 10.0, 16.0, 24.0),
    unit="standard deviation of the chroma blur in pixels",
    needs_color=True,
)
def color_diffusion(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Gaussian blur of the two colour channels in CIELAB; lightness stays sharp."""
    if image.shape[2] == 1:
        return image
    lab = color.rgb2lab(image)
    lab[:, :, 1:] = ndimage.gaussian_filter(lab[:, :, 1:], sigma, axes=(0, 1), truncate=3.0)
    return lab_to_rgb(lab)


@distortion(family="color", levels=(1.0, 2.5, 5.0, 9.0, 16.0), unit="shift of the green channel in pixels")
def color_shift(image: FloatImage, distance: float, rng: np.random.Generator) -> FloatImage:
    """Move the green channel in a random direction and blend it in where the original's gradient is strong.

    The blending mask is the gradient magnitude over its 90th percentile, at most 1. In a grey image the only channel
    moves.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    channel = min(1, image.shape[2] - 1)
    shift = (distance * np.sin(angle), distance * np.cos(angle))
    moved = ndimage.shift(image[:, :, channel], shift, order=1, mode="mirror")
    grey = luma(image)[:, :, 0]
    gradient = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1))
    # Normalised by its maximum, the mask would be weak everywhere in a photograph with a single hard edge.
    mask = np.minimum(gradient / max(float(np.percentile(gradient, 90)), 1e-6), np.float32(1))
    image[:, :, channel] += mask * (moved - image[:, :, channel])
    return image


@distortion(family="color", levels=(48.0, 28.0, 16.0, 9.0, 5.0), unit="number of colours")
def color_quantization(image: FloatImage, count: float, rng: np.random.Generator) -> FloatImage:
    """Reduce to an indexed image of few colours, of minimum variance, with Floyd-Steinberg dithering.

    The colours are those of median cut, moved by k-means to a (local) minimum of the variance.
    """
    picture = to_pillow(image).convert("RGB")
    # Choosing colours costs far more than using them, and needs no more than a sample of the pixels.
    step = max(1, round(min(picture.size) / 64))
    sample = Image.fromarray(np.asarray(picture)[step // 2 :: step, step // 2 :: step])
    palette = sample.quantize(int(count), method=Image.Quantize.MEDIANCUT, kmeans=1)
    indexed = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")
    return from_pillow(indexed if image.shape[2] == 3 else indexed.convert("L"))


@distortion(
    family="color", levels=(0.6, 0.4, 0.25, 0.12, 0.0), unit="factor on the saturation in HSV", needs_color=True
)
def color_saturation_1(image: FloatImage, factor: float, rng: np.random.Generator) -> FloatImage:
    """Multiply the saturation in HSV by a factor below 1, down to a grey image."""
    # With hue and value fixed, a channel's distance from the value V = max(R, G, B) is proportional to saturation.
    value = image.max(axis=2, keepdims=True)
    return value - np.float32(factor) * (value - image)


@distortion(
    family="color", levels=(1.4, 1.9, 2.6, 3.8, 6.0), unit="factor on the colour channels in CIELAB", needs_color=True
)
def color_saturation_2(image: FloatImage, factor: float, rng: np.random.Generator) -> FloatImage:
    """Multiply the two colour channels in CIELAB by a factor above 1, up to garish colours."""
    if image.shape[2] == 1:
        return image
    lab = color.rgb2lab(image)
    lab[:, :, 1:] *= factor
    return lab_to_rgb(lab)


def lab_to_rgb(lab: FloatImage) -> FloatImage:
    """CIELAB (D65) to sRGB, colours outside the gamut clipped.

    scikit-image's function does the same, but warns about each image that leaves the gamut; here many do.
    """
    lightness = (lab[:, :, 0] + np.float32(16)) / np.float32(116)
    xyz = np.stack(
        [lightness + lab[:, :, 1] / np.float32(500), lightness, lightness - lab[:, :, 2] / np.float32(200)], 2
    )
    knee = np.float32(6 / 29)
    xyz = np.where(xyz > knee, xyz**3, 3 * knee**2 * (xyz - np.float32(4 / 29)))
    linear = np.clip(xyz @ _WHITE_XYZ_TO_LINEAR_RGB, 0.0, 1.0)
    return np.where(
        linear > 0.0031308, np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055), 12.92 * linear
    )


_WHITE_XYZ_TO_LINEAR_RGB: FloatImage = (
    color.xyz_tristimulus_values(illuminant="D65", observer="2")[:, None]
    * np.linalg.inv(color.colorconv.xyz_from_rgb).T
).astype(np.float32)

__all__ = [
    "color_diffusion",
    "color_quantization",
    "color_saturation_1",
    "color_saturation_2",
    "color_shift",
    "luma",
]
