"""Reads image files as upright RGB, large ones with little memory, and refuses what is too large."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, JpegImagePlugin

from ..crops_metaqap import CropLayout, crop_layout, shrink
from ..decoding_metaqap import (
    Photograph,
    UnreadableImage,
    errors_explained,
    is_first_of_several,
    open_image,
    read_opened,
    to_rgb,
    too_many_pixels,
    turns_sides,
    value_of_white,
)

# Photographs of more pixels are shrunk while they are read, whatever their format, down to four times what the model
# sees of them: one of 100 megapixels then needs its decoder's memory and little more.
_LARGE_PIXELS = 50_000_000
_LARGE_SHORTEST_EDGE = 2048
_one_large_image_at_a_time = threading.Lock()

#: An image at most about this many times longer than wide is scored.
MAX_CROPS = 48


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model sees of an image, and which images it does not see at all.

    Attributes:
        shortest_edge: an image is shrunk to this many pixels; None leaves it as it is.
        crop_size: side of its crops.
        resample: the filter, of Pillow.
        max_pixels: images of more are refused before they are decoded.
        max_crops: images that need more crops, long and narrow ones, are refused too.
    """

    shortest_edge: int | None = 512
    crop_size: int = 512
    resample: int = Image.Resampling.BICUBIC
    max_pixels: int | None = None
    max_crops: int | None = MAX_CROPS

    def layout(self, width: int, height: int) -> CropLayout:
        """Where the crops of an image of this size lie."""
        shortest_edge = min(width, height) if self.shortest_edge is None else self.shortest_edge
        return crop_layout(height, width, shortest_edge=shortest_edge, crop_size=self.crop_size)

    def refuse(self, width: int, height: int) -> str | None:
        """Why an image of this size is not to be decoded, or None."""
        if self.max_pixels is not None and width * height > self.max_pixels:
            return too_many_pixels(self.max_pixels)
        if self.max_crops is not None and len(self.layout(width, height).corners) > self.max_crops:
            return f"{width:,} x {height:,} pixels are too long and narrow"
        return None

    def shrink(self, photograph: Photograph) -> Photograph:
        """The photograph at the size that the model sees."""
        pixels = photograph.pixels
        return photograph._replace(pixels=shrink(pixels, self.layout(*pixels.size), resample=self.resample))


def read_as_seen(source: str | Path | IO[bytes], seen: Seen) -> Photograph:
    """Read an image file and shrink it to what the model sees.

    Raises:
        UnreadableImage: with the reason, if it is refused or cannot be read.
    """
    photograph = read_photograph(source, shortest_edge=seen.shortest_edge, refuse=seen.refuse)
    with errors_explained():
        return seen.shrink(photograph)


def read_photograph(
    source: str | Path | IO[bytes],
    *,
    shortest_edge: int | None = None,
    refuse: Callable[[int, int], str | None] = lambda width, height: None,
) -> Photograph:
    """An image file as 8-bit RGB, upright; very large ones are shrunk while they are read.

    Args:
        source: path of the file, or an open file.
        shortest_edge: that the photograph will be shrunk to, see `read_image`.
        refuse: told the width and height that the file claims, says why it is not to be decoded, or None.

    Raises:
        UnreadableImage: with the reason, if it is refused or cannot be read.
    """
    with errors_explained(), open_image(source) as opened:
        # The header is all that was read so far.
        if reason := refuse(opened.width, opened.height):
            raise UnreadableImage(reason)
        if opened.width * opened.height <= _LARGE_PIXELS:
            return read_opened(opened, shortest_edge=shortest_edge)
        with _one_large_image_at_a_time:
            factor = min(opened.size) // _LARGE_SHORTEST_EDGE
            if isinstance(opened, JpegImagePlugin.JpegImageFile) or factor < 2:
                return read_opened(opened, shortest_edge=shortest_edge)
            return _reduce_by_strips(opened, factor)


def _reduce_by_strips(image: Image.Image, factor: int) -> Photograph:
    """Averages over `factor` x `factor` pixels, without a second copy of all pixels."""
    is_first_frame = is_first_of_several(image)
    image.load()  # TIFF files are brought upright here and lose the tag
    size = image.size[::-1] if turns_sides(image) else image.size
    white = value_of_white(image)
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = 64 * factor
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        # Of the metadata a strip needs its colours' meaning; it is the whole that is turned upright.
        strip.info = {name: value for name, value in strip.info.items() if name in ("transparency", "icc_profile")}
        reduced.paste(to_rgb(strip, white=white).reduce(factor), (0, top // factor))
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation is not None:
        reduced.getexif()[ExifTags.Base.Orientation] = orientation
    return Photograph(to_rgb(reduced), *size, is_first_frame)


__all__ = ["MAX_CROPS", "Seen", "read_as_seen", "read_photograph"]
