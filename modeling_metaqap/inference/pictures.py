"""Why this score: the map of local quality in colours, and one picture with it beside the photograph."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.names import shown_name
from .records import ScoreRecord
from .thumbnails import make_thumbnail
from .wording import MAX_QUALITY, distortion_title, heading

# From bad to excellent. Red against blue-green, lightest in the middle, so that colour-blind people can tell them.
_PALETTE = np.array([(192, 57, 84), (226, 125, 86), (233, 196, 106), (96, 178, 158), (22, 122, 140)], dtype=np.float64)

_INK, _FAINT, _TRACK, _BAR = "#1c2230", "#667085", "#e6e8ec", "#4a5568"


def quality_colors(quality: np.ndarray) -> np.ndarray:
    """Colours of qualities `(...)` as uint8 `(..., 3)`; values outside [0, 1] get that of the nearest end."""
    stops = np.linspace(0, 1, len(_PALETTE))
    channels = [np.interp(quality, stops, channel) for channel in _PALETTE.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def hex_color(quality: float) -> str:
    """Color of a quality for a page, such as `"#c03954"`."""
    return "#{:02x}{:02x}{:02x}".format(*quality_colors(np.array(quality)))


def quality_map_image(quality_map: np.ndarray) -> Image.Image:
    """A map of local quality `(height, width)` in the colours of the scale from 0 to 1."""
    return Image.fromarray(quality_colors(quality_map))


def explanation_picture(
    photograph: Image.Image,
    record: ScoreRecord,
    labels: list[str],
    *,
    side: int = 420,
    opacity: float = 0.5,
    most: int = 3,
) -> Image.Image:
    """The photograph, its quality map laid over it, the score and the most likely distortions, side by side.

    Args:
        photograph: what the model saw, see `Scorer.read`.
        record: of the photograph, with its quality map.
        labels: names of the distortions, in the order of the record's probabilities.
        side: longer side of each of the two pictures in pixels.
        opacity: of the map over the photograph, in [0, 1].
        most: how many distortions to name; those that would be shown with 0 % are left out, and all of them where the
            quality is high: there they say little.

    Raises:
        ValueError: if the record has no score or no quality map.
    """
    if record.quality is None or record.quality_map is None:
        raise ValueError("The record has no quality map; ask for it with `Scorer.score(..., quality_map=True)`.")
    shown = make_thumbnail(photograph, side)
    heat = quality_map_image(record.share(record.quality_map)).resize(shown.size, Image.Resampling.BILINEAR)
    # Over a grey photograph, so that its own colours are not taken for the map's.
    overlay = Image.blend(shown.convert("L").convert("RGB"), heat, opacity)

    margin, gap, panel_width = 20, 16, 330
    height = max(shown.height, 250) + 2 * margin + 46
    panel = margin + 2 * (shown.width + gap)
    picture = Image.new("RGB", (panel + panel_width + margin, height), "white")
    picture.paste(shown, (margin, margin))
    picture.paste(overlay, (margin + shown.width + gap, margin))
    draw = ImageDraw.Draw(picture)
    caption, text, large = (ImageFont.load_default(size=size) for size in (14, 16, 40))

    below = margin + shown.height + 8
    draw.text(
        (margin, below), _shortened(draw, shown_name(record.path), caption, shown.width), fill=_FAINT, font=caption
    )
    legend = margin + shown.width + gap
    ramp = quality_map_image(np.linspace(0, 1, shown.width)[None, :].repeat(8, axis=0))
    picture.paste(ramp, (legend, below))
    draw.text((legend, below + 12), f"{record.scale[0]:g} bad", fill=_FAINT, font=caption)
    draw.text(
        (legend + shown.width, below + 12), f"excellent {record.scale[1]:g}", fill=_FAINT, font=caption, anchor="ra"
    )

    draw.text((panel, margin), f"{record.quality:.3f}", fill=_INK, font=large)
    line = margin + 54
    if record.quality_low is not None and record.quality_high is not None:
        interval = f"{record.interval_name} {record.quality_low:.2f} to {record.quality_high:.2f}"
        draw.text((panel, line), interval, fill=_FAINT, font=text)
        line += 22
    size = f"{record.width:,} x {record.height:,} pixels"
    draw.text((panel, line), size, fill=_FAINT, font=text)
    line += 38
    if record.distortion_probabilities is None:
        draw.text((panel, line), "This checkpoint does not name distortions.", fill=_FAINT, font=text)
        return picture
    if record.share(record.quality) >= MAX_QUALITY:
        return picture
    draw.text((panel, line), "Resembles", fill=_INK, font=text)
    line += 26
    likeliest = sorted(zip(record.distortion_probabilities, labels, strict=True), reverse=True)[:most]
    for probability, label in likeliest:
        if round(100 * probability) == 0:
            break
        draw.text((panel, line), heading(distortion_title(label)), fill=_INK, font=caption)
        draw.text((panel + panel_width, line), f"{probability:.0%}", fill=_INK, font=caption, anchor="ra")
        draw.rounded_rectangle((panel, line + 20, panel + panel_width, line + 26), 3, fill=_TRACK)
        end = panel + max(6, round(panel_width * probability))
        draw.rounded_rectangle((panel, line + 20, end, line + 26), 3, fill=_BAR)
        line += 38
    return picture


def _shortened(draw: ImageDraw.ImageDraw, path: str, font: Any, width: int) -> str:
    """The end of a path, as much of it as fits."""
    shown = path
    while len(shown) > 1 and draw.textlength(f"...{shown}" if shown != path else shown, font=font) > width:
        shown = shown[1:]
    return shown if shown == path else f"...{shown}"


__all__ = ["explanation_picture", "hex_color", "quality_colors", "quality_map_image"]
