"""What every distortion shares: its record in the registry, the check of its input, and the pixel formats it keeps."""

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: The distortion levels of KADID-10k, from barely visible (1) to very annoying (5).
LEVELS = (1, 2, 3, 4, 5)

#: Shortest side, in pixels, that every distortion accepts.
MIN_SIDE = 32

#: An image inside this package: float32, shape (H, W, C), C = 1 or 3 (sRGB), range [0, 1].
FloatImage = NDArray[np.float32]

Operation = Callable[[FloatImage, float, np.random.Generator], FloatImage]

ImageT = TypeVar("ImageT", NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64], Image.Image)


@dataclass(frozen=True)
class Distortion:
    """One synthetic distortion at five levels, callable as `distortion(image, level, rng)`.

    Attributes:
        name: Canonical snake_case name.
        family: The KADID-10k family: blur, color, compression, noise, brightness, spatial or sharpness_contrast.
        levels: The parameter at levels 1 to 5; `unit` says what it counts.
        unit: Unit or meaning of the parameter.
        signed: Whether the distortion acts in two opposite directions. The seed picks the direction and the level
            its strength, so one seed gives one direction at all five levels.
        needs_color: Whether an image without colour comes out unchanged.
        operation: What is done to a float image in [0, 1]; its result is clipped to [0, 1] afterwards.
    """

    name: str
    family: str
    levels: tuple[float, float, float, float, float]
    unit: str
    signed: bool
    needs_color: bool
    operation: Operation

    def __call__(self, image: ImageT, level: int, rng: np.random.Generator | int) -> ImageT:
        """Distort one image.

        Args:
            image: uint8 array in [0, 255] or floating array in [0, 1], of shape (H, W), (H, W, 1) or (H, W, 3) in
                sRGB; or a Pillow image in mode "RGB" or "L". Each side has 32 pixels or more.
            level: 1 (barely visible) to 5 (very annoying).
            rng: A seed, or a generator that the call advances. The same seed gives the same image.

        Returns:
            A new image of the same type, dtype, shape and range.

        Raises:
            TypeError: `image`, `level` or `rng` is of a kind not named above.
            ValueError: The image's shape or range, or the level, is not one named above.
        """
        if isinstance(level, bool) or not isinstance(level, numbers.Integral):
            raise TypeError(f"level must be an integer from 1 to 5, got {level!r}.")
        if level not in LEVELS:
            raise ValueError(f"level must be an integer from 1 to 5, got {level}.")
        pixels = to_float_image(image)
        distorted = self.operation(pixels, self.levels[int(level) - 1], to_generator(rng))
        return _like(np.clip(distorted, 0.0, 1.0), image)


def distortion(
    *,
    family: str,
    levels: tuple[float, float, float, float, float],
    unit: str,
    signed: bool = False,
    needs_color: bool = False,
) -> Callable[[Operation], Distortion]:
    """Decorator that turns an operation on float images into a [`Distortion`] of the same name."""

    def wrap(operation: Operation) -> Distortion:
        return Distortion(
            name=operation.__name__,
            family=family,
            levels=levels,
            unit=unit,
            signed=signed,
            needs_color=needs_color,
            operation=operation,
        )

    return wrap


def to_generator(rng: np.random.Generator | int) -> np.random.Generator:
    """Return `rng` itself, or a new generator seeded with it. Randomness without a seed is refused."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"The seed must not be negative, got {rng}.")
        return np.random.default_rng(int(rng))
    raise TypeError(f"rng must be an integer seed or a numpy.random.Generator, got {type(rng).__name__}.")


def to_float_image(image: NDArray[np.generic] | Image.Image) -> FloatImage:
    """Check an image and return its pixels as a new float32 array of shape (H, W, C) in [0, 1].

    Raises:
        TypeError: Not an array or Pillow image, or pixels that are neither uint8 nor floating.
        ValueError: Another Pillow mode, another shape, a side under 32 pixels, or floats outside [0, 1].
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("RGB", "L"):
            raise ValueError(f'The Pillow image has mode "{image.mode}": pass image.convert("RGB") instead.')
        pixels: NDArray[np.generic] = np.asarray(image)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        raise TypeError(f"image must be a numpy array or a Pillow image, got {type(image).__name__}.")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise ValueError(f"image must have shape (H, W), (H, W, 1) or (H, W, 3), got {pixels.shape}.")
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ValueError(f"image must have at least {MIN_SIDE} pixels on each side, got {pixels.shape[:2]}.")
    if pixels.dtype == np.uint8:
        floats = pixels.astype(np.float32)
        floats /= 255
    elif np.issubdtype(pixels.dtype, np.floating):
        floats = pixels.astype(np.float32)
        if not (floats.min() >= 0 and floats.max() <= 1):  # written so that NaN fails too
            raise ValueError("A floating image must hold values in [0, 1]; divide by 255 if it holds [0, 255].")
    else:
        raise TypeError(f"image must be uint8 or floating, got dtype {pixels.dtype}.")
    return floats[:, :, None] if floats.ndim == 2 else floats


def to_uint8(image: FloatImage) -> NDArray[np.uint8]:
    """Round a float image in [0, 1] to the nearest of 256 values."""
    return np.rint(image * np.float32(255)).astype(np.uint8)


def to_pillow(image: FloatImage) -> Image.Image:
    """Return a float image as a Pillow image of mode "RGB", or "L" for one channel."""
    pixels = to_uint8(image)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def from_pillow(image: Image.Image) -> FloatImage:
    """Return a Pillow image of mode "RGB" or "L" as a float image of shape (H, W, 3) or (H, W, 1)."""
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def is_colorless(image: NDArray[np.generic] | Image.Image, *, tolerance: float = 0.02) -> bool:
    """Whether an image shows (almost) no colour, so that a colour distortion would leave it as it is.

    Args:
        image: What `Distortion` accepts.
        tolerance: Greatest mean spread between a pixel's largest and smallest channel, in [0, 1].
    """
    pixels = to_float_image(image)
    return float(np.mean(pixels.max(axis=2) - pixels.min(axis=2))) <= tolerance


def _like(pixels: FloatImage, image: ImageT) -> ImageT:
    if isinstance(image, Image.Image):
        return to_pillow(pixels)
    shaped = pixels.reshape(image.shape)
    result: Any = to_uint8(shaped) if image.dtype == np.uint8 else shaped.astype(image.dtype)
    return result


__all__ = [
    "LEVELS",
    "MIN_SIDE",
    "Distortion",
    "FloatImage",
    "distortion",
    "from_pillow",
    "is_colorless",
    "to_float_image",
    "to_generator",
    "to_pillow",
    "to_uint8",
]
