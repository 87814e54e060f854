"""Reads image files as upright RGB, large ones with little memory, and says why one cannot be read."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from ..errors import MetaQAPError
from ..image_processing_metaqap import to_rgb

#: What Pillow raises for files that are no images, broken ones and decompression bombs; see `explain_error`.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)

# Photographs of more pixels are shrunk while they are read, down to four times what the model sees of them: one of 100
# megapixels then needs its decoder's memory and little more.
_LARGE_PIXELS = 50_000_000
_LARGE_SHORTEST_EDGE = 2048
_one_large_image_at_a_time = threading.Lock()


class Photograph(NamedTuple):
    """An image that was read.

    Attributes:
        pixels: 8-bit RGB, upright, and perhaps shrunk.
        width, height: of the original in pixels, upright.
    """

    pixels: Image.Image
    width: int
    height: int


def silence_size_warning() -> None:
    """Stop Pillow's warning of images with more pixels than `Image.MAX_IMAGE_PIXELS`, for the rest of this process.

    Photographs of large cameras have more, and Pillow refuses those of twice as many anyhow. It is for programs to
    call, once when they start; functions of this package leave the filters of warnings alone, since Python keeps one
    list of filters for all threads and whoever puts it back undoes what others did meanwhile.
    """
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_rgb(image: str | Path | Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, upright (see `to_rgb`)."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    with Image.open(image) as opened:
        return to_rgb(opened)


def read_photograph(
    path: str | Path, *, refuse: Callable[[int, int], str | None] = lambda width, height: None
) -> Photograph:
    """An image file as 8-bit RGB, upright; very large ones are shrunk while they are read.

    Args:
        path: of the file.
        refuse: told the width and height that the file claims, says why it is not to be decoded, or None.

    Raises:
        MetaQAPError: with the reason, if it is refused.
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: see `UNREADABLE`.
    """
    with Image.open(path) as opened:
        # The header is all that was read so far.
        if reason := refuse(opened.width, opened.height):
            raise MetaQAPError(reason)
        factor = min(opened.size) // _LARGE_SHORTEST_EDGE
        if opened.width * opened.height <= _LARGE_PIXELS or factor < 2:
            rgb = to_rgb(opened)
            return Photograph(rgb, rgb.width, rgb.height)
        with _one_large_image_at_a_time:
            rgb, (width, height) = _decode_large(opened, factor)
            return Photograph(rgb, width, height)


def _decode_large(opened: Image.Image, factor: int) -> tuple[Image.Image, tuple[int, int]]:
    """Both sides divided by about `factor` in passing, without a second copy of all pixels."""
    original = opened.size
    if isinstance(opened, JpegImagePlugin.JpegImageFile):
        # The decoder leaves out the finest detail: a half, a quarter or an eighth of each side.
        opened.draft(None, (original[0] // factor, original[1] // factor))
        before, rgb = opened.size, to_rgb(opened)
    else:
        opened.load()
        original = opened.size  # TIFF files are brought upright while they are loaded
        before, rgb = _reduce_by_strips(opened, factor)
    return rgb, original if rgb.size == before else original[::-1]


def _reduce_by_strips(image: Image.Image, factor: int) -> tuple[tuple[int, int], Image.Image]:
    """Averages over `factor` x `factor` pixels: their size before the EXIF orientation, and the upright RGB image."""
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = 64 * factor
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        # Of the metadata a strip needs its transparent colour; it is the whole that is turned upright.
        strip.info = {name: value for name, value in strip.info.items() if name == "transparency"}
        reduced.paste(to_rgb(strip).reduce(factor), (0, top // factor))
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation is not None:
        reduced.getexif()[ExifTags.Base.Orientation] = orientation
    return reduced.size, to_rgb(reduced)


def too_many_pixels(limit: int) -> str:
    """The reason to refuse an image, in a few words."""
    return f"it has more pixels than the limit of {limit:,}"


def explain_error(error: Exception) -> str:
    """Why an image could not be read, in a few words without a name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, Image.DecompressionBombError):
        return too_many_pixels(2 * (Image.MAX_IMAGE_PIXELS or 0))
    if isinstance(error, Image.DecompressionBombWarning):  # where the program makes errors of warnings
        return too_many_pixels(Image.MAX_IMAGE_PIXELS or 0)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__


__all__ = [
    "Photograph",
    "UNREADABLE",
    "explain_error",
    "read_photograph",
    "read_rgb",
    "silence_size_warning",
    "too_many_pixels",
]
