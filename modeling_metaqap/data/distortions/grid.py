"""One picture of all distortions at all levels, to look at."""

import math
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

from . import DISTORTIONS
from .base import LEVELS, ImageT, to_float_image, to_pillow


def distortion_grid(
    image: ImageT, *, seed: int = 0, cell: int = 224, title: Callable[[str], str] = str
) -> Image.Image:
    """Draw the 25 distortions (rows, in KADID-10k's order) at the five levels (columns) of one photograph.

    The centre of the image, 2 x `cell` pixels high and wide at most, is distorted at its own size and then shown at
    half of it, so that a cell shows about what a viewer sees. The first column is the original. Above each row stands
    what it is, and below each cell its level with the level's parameter, in letters that can still be read where a
    page shows the picture at half its size.

    Args:
        image: What `distort` accepts.
        seed: Seed of every cell; one row differs in its level alone.
        cell: Longer side of a cell in pixels.
        title: What to call a distortion, by its name.

    Returns:
        A Pillow image in mode "RGB".

    Raises:
        TypeError, ValueError: As `distort` raises them.
    """
    photograph = _centre(to_pillow(to_float_image(image)), 2 * cell)
    shown = _shown(photograph, cell)
    margin, gap, between = 12, 6, 20
    size, small_size = max(14, round(0.116 * cell)), max(12, round(0.1 * cell))
    font, small = ImageFont.load_default(size=size), ImageFont.load_default(size=small_size)
    heading, caption = size + 12, small_size + 8
    column, row = shown.width + gap, heading + shown.height + caption + between
    labels = [
        (f"{number}  {title(entry.name)}", f"{entry.unit}{'; the seed picks the direction' if entry.signed else ''}")
        for number, entry in enumerate(DISTORTIONS.values(), start=1)
    ]
    apart = 2 * small_size
    text_width = max(font.getlength(label) + apart + small.getlength(about) for label, about in labels)
    width = 2 * margin + max(6 * column - gap, math.ceil(text_width))
    grid = Image.new("RGB", (width, margin + len(labels) * row), "white")
    draw = ImageDraw.Draw(grid)
    for number, (entry, (label, about)) in enumerate(zip(DISTORTIONS.values(), labels, strict=True)):
        top = margin + number * row
        draw.text((margin, top + size), label, fill="black", font=font, anchor="ls")
        draw.text((margin + font.getlength(label) + apart, top + size), about, fill="dimgray", font=small, anchor="ls")
        cells = [(shown, "original")] + [
            (_shown(entry(photograph, level, seed), cell), f"level {level}: {parameter:g}")
            for level, parameter in zip(LEVELS, entry.levels, strict=True)
        ]
        for position, (picture, below) in enumerate(cells):
            corner = margin + position * column, top + heading
            grid.paste(picture, corner)
            draw.text((corner[0], corner[1] + shown.height + 2), below, fill="dimgray", font=small)
    return grid


def _centre(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    return image.crop((left, top, min(width, left + side), min(height, top + side)))


def _shown(image: Image.Image, cell: int) -> Image.Image:
    shown = image.convert("RGB")
    shown.thumbnail((cell, cell), Image.Resampling.BOX)
    return shown


__all__ = ["distortion_grid"]
