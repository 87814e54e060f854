"""Noise, and what a denoiser leaves of it (KADID-10k numbers 11 to 15)."""

import numpy as np
from scipy import fft

from .base import FloatImage, distortion


@distortion(family="noise", levels=(0.025, 0.045, 0.075, 0.12, 0.19), unit="standard deviation, of a range of 1")
def white_noise(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Add Gaussian white noise, independent in each RGB channel."""
    return image + gaussian_noise(image, sigma, rng)


@distortion(family="noise", levels=(0.02, 0.035, 0.06, 0.1, 0.16), unit="standard deviation, of a range of 1")
def white_noise_color_component(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Add Gaussian white noise to luma and chroma of the YCbCr image; in RGB it looks blotchy with colour."""
    noise = gaussian_noise(image, sigma, rng)
    # The transform is linear, so noise added in YCbCr is the noise's own YCbCr to RGB added in RGB.
    return image + (noise @ _YCBCR_TO_RGB.T if image.shape[2] == 3 else noise)


@distortion(family="noise", levels=(0.003, 0.01, 0.03, 0.08, 0.2), unit="share of the values that are replaced")
def impulse_noise(image: FloatImage, share: float, rng: np.random.Generator) -> FloatImage:
    """Replace values at random by black or white (salt and pepper), independently in each RGB channel."""
    draw = rng.random(image.shape, dtype=np.float32)
    image[draw < share / 2] = 0.0
    image[draw > 1 - share / 2] = 1.0
    return image


@distortion(family="noise", levels=(0.06, 0.11, 0.18, 0.3, 0.5), unit="standard deviation, relative to the value")
def multiplicative_noise(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Speckle: add Gaussian noise in proportion to each value, so that dark parts stay clean."""
    return image + image * gaussian_noise(image, sigma, rng)


@distortion(family="noise", levels=(0.03, 0.06, 0.1, 0.16, 0.26), unit="standard deviation of the noise removed")
def denoise(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Add Gaussian white noise and remove it again, channel by channel, leaving smeared texture and false edges.

    KADID-10k denoises with DnCNN, whose weights are not ours to ship; here the denoiser is a sliding-window DCT with
    hard thresholding (Yu and Sapiro, "DCT image denoising: a simple and effective image denoising algorithm",
    IPOL 2011).
    """
    noisy = np.clip(image + gaussian_noise(image, sigma, rng), 0.0, 1.0)
    return np.stack([_dct_denoise(noisy[:, :, c], sigma) for c in range(image.shape[2])], axis=2)


def gaussian_noise(image: FloatImage, sigma: float, rng: np.random.Generator) -> FloatImage:
    """Gaussian noise of the image's shape."""
    return rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)


def _dct_denoise(channel: FloatImage, sigma: float, *, side: int = 8, step: int = 4) -> FloatImage:
    """Denoise one (H, W) channel: threshold the DCT of overlapping windows at 3 sigma and average the windows."""
    height, width = channel.shape
    padding = [(side - step, side - step + -size % step) for size in (height, width)]
    padded = np.pad(channel, padding, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))[::step, ::step]
    spectrum = fft.dctn(windows, axes=(2, 3), norm="ortho")
    mean = spectrum[:, :, 0, 0].copy()
    spectrum[np.abs(spectrum) < 3.0 * sigma] = 0.0
    spectrum[:, :, 0, 0] = mean
    windows = fft.idctn(spectrum, axes=(2, 3), norm="ortho", overwrite_x=True)
    # Each pixel lies in (side / step)^2 windows. Cut the windows into step x step tiles and add the tiles up.
    tiles_per_side = side // step
    rows, columns = windows.shape[:2]
    total = np.zeros((rows + tiles_per_side - 1, columns + tiles_per_side - 1, step, step), dtype=np.float32)
    for i in range(tiles_per_side):
        for j in range(tiles_per_side):
            tile = windows[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
            total[i : i + rows, j : j + columns] += tile
    total /= tiles_per_side**2
    average = total.transpose(0, 2, 1, 3).reshape(padded.shape)
    (top, _), (left, _) = padding
    return average[top : top + height, left : left + width]


_YCBCR_TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], dtype=np.float32)

__all__ = [
    "denoise",
    "gaussian_noise",
    "impulse_noise",
    "multiplicative_noise",
    "white_noise",
    "white_noise_color_component",
]
