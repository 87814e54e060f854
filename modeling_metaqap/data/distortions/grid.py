"""One picture of all distortions at all levels, to look at."""

from PIL import Image, ImageDraw, ImageFont

from . import DISTORTIONS
from .base import LEVELS, ImageT, to_float_image, to_pillow


def distortion_grid(image: ImageT, *, seed: int = 0, cell: int = 224) -> Image.Image:
    """Draw the 25 distortions (rows, in KADID-10k's order) at the five levels (columns) of one photograph.

    The centre of the image, 2 x `cell` pixels high and wide at most, is distorted at its own size and then shown at
    half of it, so that a cell shows about what a viewer sees. The first column is the original.

    Args:
        image: What `distort` accepts.
        seed: Seed of every cell; one row differs in its level alone.
        cell: Longer side of a cell in pixels.

    Returns:
        A Pillow image in mode "RGB", labelled with names, families, levels and level parameters.

    Raises:
        TypeError, ValueError: As `distort` raises them.
    """
    photograph = _centre(to_pillow(to_float_image(image)), 2 * cell)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    label_width, gap, caption = 290, 6, 20
    shown = _shown(photograph, cell)
    column, row = shown.width + gap, max(shown.height + caption, 90) + gap
    grid = Image.new("RGB", (label_width + 6 * column, 34 + len(DISTORTIONS) * row), "white")
    draw = ImageDraw.Draw(grid)
    for position, heading in enumerate(["original", *(f"level {level}" for level in LEVELS)]):
        draw.text((label_width + position * column, 6), heading, fill="black", font=font)
    for number, entry in enumerate(DISTORTIONS.values()):
        top = 34 + number * row
        draw.text((8, top), f"{number + 1}  {entry.name}", fill="black", font=font)
        draw.text((8, top + 26), f"{entry.family}", fill="dimgray", font=small)
        draw.text((8, top + 46), entry.unit, fill="dimgray", font=small)
        if entry.signed:
            draw.text((8, top + 66), "signed: the seed picks the direction", fill="dimgray", font=small)
        grid.paste(shown, (label_width, top))
        for level, parameter in zip(LEVELS, entry.levels, strict=True):
            left = label_width + level * column
            grid.paste(_shown(entry(photograph, level, seed), cell), (left, top))
            draw.text((left, top + shown.height + 2), f"{parameter:g}", fill="dimgray", font=small)
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
