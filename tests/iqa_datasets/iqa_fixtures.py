"""Tiny images for folders in the layouts of the real data sets."""

import zlib
from pathlib import Path

import numpy as np
import PIL.Image


def write_image(path: Path, *, size: tuple[int, int] = (24, 16), **save_options: object) -> Path:
    """Writes noise that depends on the file's name, so that images can be told apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    pixels = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, **save_options)
    return path
