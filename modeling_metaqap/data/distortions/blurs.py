"""Blurs: Gaussian, lens and motion blur (KADID-10k numbers 1 to 3)."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from .base import FloatImage, distortion


def convolve(image: FloatImage, kernel: NDArray[np.float32]) -> FloatImage:
    """Convolve every channel with an odd-sided kernel, the image mirrored at its borders.

    The Fourier transform makes the cost independent of the kernel's size.
    """
    vertical, horizontal = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((vertical, vertical), (horizontal, horizontal), (0, 0)), mode="symmetric")
    shape = tuple(fft.next_fast_len(side, real=True) for side in padded.shape[:2])
    spectrum = fft.rfft2(padded, shape, axes=(0, 1)) * fft.rfft2(kernel, shape)[:, :, None]
    blurred = fft.irfft2(spectrum, shape, axes=(0, 1))
    # A linear convolution's full result starts one kernel radius early, and the padding adds another.
    height, width = image.shape[:2]
    return blurred[2 * vertical : 2 * vertical + height, 2 * horizontal : 2 * horizontal + width]


def disk_kernel(radius: float) -> NDArray[np.float32]:
    """A disk of the given radius in pixels, softened at its edge so that the radius may be fractional; sums to 1."""
    half = int(np.ceil(radius))
    offsets = np.arange(-half, half + 1)
    distance = np.hypot(offsets[:, None], offsets[None, :])
    kernel = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return (kernel / kernel.sum()).astype(np.float32)


def line_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """A centred line of `length` pixels at `angle` radians, one pixel wide and softened at its edge; sums to 1."""
    half = int(np.ceil(length / 2))
    offsets = np.arange(-half, half + 1)
    y, x = offsets[:, None], offsets[None, :]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(y * np.cos(angle) - x * np.sin(angle))
    kernel = np.clip(length / 2 + 0.5 - along, 0.0, 1.0) * np.clip(1.0 - across, 0.0, 1.0)
    return (kernel / kernel.sum()).astype(np.float32)


@distortion(family="blur", levels=(0.7, 1.2, 2.0, 3.2, 5.0), unit="standard deviation in pixels")
def gaussian_blur(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Filter with a Gaussian kernel."""
    return ndimage.gaussian_filter(image, sigma, axes=(0, 1), truncate=3.0)


@distortion(family="blur", levels=(1.2, 2.2, 3.6, 5.5, 8.5), unit="radius in pixels")
def lens_blur(image: FloatImage, radius: float, rng: np.random.Generator) -> FloatImage:
    """Filter with a circular kernel, as a lens out of focus does."""
    return convolve(image, disk_kernel(radius))


@distortion(family="blur", levels=(3.0, 6.0, 10.0, 16.0, 26.0), unit="length of the motion in pixels")
def motion_blur(image: FloatImage, length: float, rng: np.random.Generator) -> FloatImage:
    """Filter with a line kernel in a random direction."""
    return convolve(image, line_kernel(length, rng.uniform(0.0, np.pi)))


__all__ = ["convolve", "disk_kernel", "gaussian_blur", "lens_blur", "line_kernel", "motion_blur"]
