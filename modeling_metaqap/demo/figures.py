"""Numbers -> HTML and SVG. Colours of text and lines are the page's own, so all of it follows the dark mode."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from ..inference.pictures import quality_colors, quality_map_image
from ..inference.records import ScoreRecord, percent
from ..inference.wording import distortion_title, grade, heading
from .assessment import Assessment, Comparison


def color(quality: float) -> str:
    """Colour of a quality; values outside [0, 1] get that of the nearest end."""
    return "#{:02x}{:02x}{:02x}".format(*quality_colors(np.array(quality)))


def message(sentence: str) -> str:
    """What went wrong, in one sentence."""
    return f'<div class="mq mq-message" role="alert">{escape(sentence)}</div>'


def hint(sentence: str) -> str:
    """What a part of the page will show once there is something to show."""
    return f'<div class="mq mq-hint">{escape(sentence)}</div>'


def gauge(record: ScoreRecord) -> str:
    """The quality as a number, a word and a half circle with its interval."""
    quality = record.quality or 0.0
    steps = 60
    track = "".join(
        f'<path d="{_arc(index / steps, (index + 1.3) / steps)}" stroke="{color((index + 0.5) / steps)}"/>'
        for index in range(steps)
    )
    interval, spoken = "", ""
    note = "not calibrated: no interval"
    if record.quality_low is not None and record.quality_high is not None:
        low, high = record.quality_low, record.quality_high
        interval = f'<path class="mq-band" d="{_arc(_clip(low), _clip(high), radius=74)}"/>'
        note = f"{record.interval_name} <b>{low:.2f}</b> to <b>{high:.2f}</b>"
        spoken = f", {record.interval_name} {low:.2f} to {high:.2f}"
    warning = f'<p class="mq-note">Careful: {escape(record.warning)}.</p>' if record.warning else ""
    x, y = _on_arc(_clip(quality))
    word = grade(quality)
    return f"""<div class="mq mq-gauge">
<svg viewBox="0 0 240 138" role="img" aria-label="Quality {quality:.2f}, {word}{spoken}">
<g fill="none" stroke-width="15">{track}</g><g fill="none">{interval}</g>
<circle class="mq-needle" cx="{x:.1f}" cy="{y:.1f}" r="10.5" fill="{color(quality)}"/>
<text class="mq-number" x="120" y="104" text-anchor="middle">{quality:.2f}</text>
<text class="mq-word" x="120" y="126" text-anchor="middle">{word}</text>
<text class="mq-end" x="24" y="136" text-anchor="middle">0</text>
<text class="mq-end" x="216" y="136" text-anchor="middle">1</text>
</svg><p>{note}</p>{warning}</div>"""


def _on_arc(share: float, radius: float = 96) -> tuple[float, float]:
    angle = math.pi * (1 - share)
    return 120 + radius * math.cos(angle), 120 - radius * math.sin(angle)


def _arc(start: float, end: float, radius: float = 96) -> str:
    (x1, y1), (x2, y2) = _on_arc(start, radius), _on_arc(min(1.0, end), radius)
    return f"M{x1:.1f},{y1:.1f}A{radius},{radius} 0 0 1 {x2:.1f},{y2:.1f}"


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))


def votes(record: ScoreRecord, names: Sequence[str]) -> str:
    """Each base learner's own score on the scale, and the fused one below."""
    rows = [(name, score, "") for name, score in zip(names, record.base_scores or [], strict=True)]
    rows.append(("together", record.quality or 0.0, " mq-total"))
    lines = "".join(
        f'<div class="mq-row{kind}"><span class="mq-name" title="{escape(name)}">{escape(name)}</span>'
        f"{_scale(score)}<span>{score:.2f}</span></div>"
        for name, score, kind in rows
    )
    return f'<div class="mq mq-card"><h3>Each learner\'s vote</h3>{lines}</div>'


def _scale(score: float, low: float | None = None, high: float | None = None) -> str:
    """A horizontal scale from 0 to 1 with a dot, and a band for the interval."""
    band = ""
    if low is not None and high is not None:
        left, right = 100 * _clip(low), 100 * _clip(high)
        band = f'<i class="mq-range" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
    return (
        f'<span class="mq-scale">{band}'
        f'<i class="mq-dot" style="left:{100 * _clip(score):.1f}%;background:{color(score)}"></i></span>'
    )


def distortion_bars(record: ScoreRecord, labels: Sequence[str], *, most: int = 5) -> str:
    """The likeliest distortions as bars, or a sentence if the checkpoint does not tell distortions apart."""
    headline = "<h3>Likely distortions</h3>"
    if not record.distortion_probabilities:
        return (
            f'<div class="mq mq-card">{headline}<p class="mq-note">This checkpoint was trained to rate photographs, '
            "not to name what is wrong with them.</p></div>"
        )
    likeliest = sorted(zip(record.distortion_probabilities, labels, strict=True), reverse=True)[:most]
    lines = "".join(
        f'<div class="mq-row"><span class="mq-name">{escape(heading(distortion_title(name)))}</span>'
        f'<span class="mq-bar"><i style="width:{100 * probability:.1f}%"></i></span>'
        f"<span>{probability:.0%}</span></div>"
        for probability, name in likeliest
    )
    note = (
        f'<p class="mq-note">Which of {len(labels)} synthetic distortions the photograph resembles most. '
        "Also a flawless one resembles some.</p>"
    )
    return f'<div class="mq mq-card">{headline}{lines}{note}</div>'


def quality_map_overlay(assessment: Assessment) -> str:
    """The photograph with its quality map over it, and a slider for how much of the map shows."""
    photograph, record = assessment.photograph.pixels, assessment.record
    assert record.quality_map is not None, "assess asks for the map"
    return f"""<div class="mq mq-map" style="--mix:.6">
<div class="mq-layers"><img src="{_data_uri(photograph)}" alt="The photograph {escape(record.path)}">
<img class="mq-heat" src="{_data_uri(quality_map_image(record.quality_map))}" alt="Its map of local quality"></div>
<label><span>photo</span>
<input type="range" min="0" max="100" value="60" aria-label="How much of the quality map shows"
oninput="this.closest('.mq-map').style.setProperty('--mix', this.value / 100)"><span>quality map</span></label>
<div class="mq-legend"><span>0 bad</span><i style="background:{_gradient()}"></i><span>excellent 1</span></div>
<p class="mq-note">{record.width:,} × {record.height:,} pixels. The score is the average of local quality.</p></div>"""


def _gradient() -> str:
    return "linear-gradient(90deg," + ",".join(color(stop) for stop in np.linspace(0, 1, 5)) + ")"


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def verdict(comparison: Comparison) -> str:
    """Which of two photographs is better and how sure that is."""
    left, right, probability = comparison.left, comparison.right, comparison.left_is_better
    rows = "".join(
        f'<div class="mq-row mq-wide"><span class="mq-name" title="{escape(record.path)}">{side}</span>'
        f"{_scale(record.quality or 0.0, record.quality_low, record.quality_high)}"
        f"<span>{record.quality or 0.0:.2f}</span></div>"
        for side, record in (("left", left), ("right", right))
    )
    if probability is None:
        better = "left" if (left.quality or 0.0) > (right.quality or 0.0) else "right"
        headline = f"The {better} photograph scores higher"
        split = '<p class="mq-note">This checkpoint is not calibrated, so it cannot say how sure that is.</p>'
    else:
        sure = max(probability, 1 - probability)
        better = "left" if probability >= 0.5 else "right"
        if sure < 0.6:
            headline = "Too close to call"
        else:
            headline = f"The {better} photograph is {'probably ' if sure < 0.9 else ''}better"
        share, rest = 100 * probability, 100 * (1 - probability)
        split = f"""<div class="mq-split" role="img" aria-label="Left better: {share:.0f} %, right: {rest:.0f} %">
<i style="width:{share:.1f}%" class="{"mq-winner" if better == "left" else ""}"></i>
<i style="width:{rest:.1f}%" class="{"mq-winner" if better == "right" else ""}"></i></div>
<div class="mq-ends"><span>left better: <b>{share:.0f} %</b></span>
<span>right better: <b>{rest:.0f} %</b></span></div>
<details><summary>How sure, and how we know</summary>
<p class="mq-note">Each score comes with an interval that holds the
raters' mean opinion for {percent(left.interval_coverage or 0)} of photographs. Taking the two errors as independent
and normal, the chance that raters would prefer one photograph follows from the difference of the scores. Two shots of
one scene share some of their errors: for them the figure is on the cautious side. It says nothing about which picture
is more beautiful.</p>
</details>"""
    shown = "Quality" if left.quality_low is None else f"Quality and {left.interval_name}"
    return f'<div class="mq mq-card"><h2>{headline}</h2>{split}<h3>{shown}</h3>{rows}</div>'


def level_curve(records: Sequence[ScoreRecord], level: int, *, name: str, parameter: str) -> str:
    """Quality at level 0 (the photograph as it is) to 5 of a distortion, with the interval as a band."""
    qualities = [record.quality or 0.0 for record in records]
    bounds = [value for record in records for value in (record.quality_low, record.quality_high) if value is not None]
    bottom, top = min(0.0, *qualities), max(1.0, *qualities)

    def x(index: float) -> float:
        return 44 + 62 * index

    def y(quality: float) -> float:
        return 190 - 170 * (min(top, max(bottom, quality)) - bottom) / (top - bottom)

    lines = "".join(
        f'<line class="mq-grid" x1="38" x2="360" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="mq-tick" x="32" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2g}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    band, note = "", "Quality at each level"
    if len(bounds) == 2 * len(records):
        upper = [f"{x(i):.1f},{y(record.quality_high or 0.0):.1f}" for i, record in enumerate(records)]
        lower = [f"{x(i):.1f},{y(record.quality_low or 0.0):.1f}" for i, record in enumerate(records)]
        band = f'<polygon class="mq-area" points="{" ".join(upper + lower[::-1])}"/>'
        note += f"; the band is the {records[0].interval_name}"
    path = " ".join(f"{x(i):.1f},{y(quality):.1f}" for i, quality in enumerate(qualities))
    dots = "".join(
        f'<circle class="mq-point{" mq-chosen" if i == level else ""}" cx="{x(i):.1f}" cy="{y(quality):.1f}" '
        f'r="{8 if i == level else 5}" fill="{color(quality)}"><title>{quality:.2f}</title></circle>'
        for i, quality in enumerate(qualities)
    )
    labels = "".join(
        f'<text class="mq-tick{" mq-now" if i == level else ""}" x="{x(i):.1f}" y="212" text-anchor="middle">'
        f"{i or 'as it is'}</text>"
        for i in range(len(records))
    )
    spoken = ", ".join(f"level {i}: {quality:.2f}" for i, quality in enumerate(qualities))
    signed = f"{qualities[level] - qualities[0]:+.2f}".replace("-", "−")
    headline = (
        f"{escape(name)}, level {level}: {qualities[level]:.2f} <small>({signed})</small>"
        if level
        else f"As it is: {qualities[0]:.2f}"
    )
    return f"""<div class="mq mq-card"><h2>{headline}</h2><p class="mq-note">{escape(parameter)}</p>
<svg class="mq-curve" viewBox="0 0 372 220" role="img" aria-label="Quality by level of distortion: {spoken}">
{lines}{band}<polyline class="mq-line" points="{path}"/>{dots}{labels}</svg>
<p class="mq-note">{note}.</p></div>"""


def batch_summary(records: Sequence[ScoreRecord], *, bins: int = 10) -> str:
    """Counts, median and a histogram of the qualities of many photographs."""
    qualities = np.array([record.quality for record in records if record.quality is not None])
    failed = len(records) - len(qualities)
    title = f"{len(qualities)} photograph{'' if len(qualities) == 1 else 's'} scored"
    if failed:
        title += f", {failed} could not be read"
    if not len(qualities):
        return f'<div class="mq mq-card"><h2>{title}</h2></div>'
    counts, _ = np.histogram(qualities.clip(0, 1), bins=bins, range=(0, 1))
    width, base, height = 34, 116, 92
    bars = "".join(
        f'<rect x="{16 + width * i + 2}" y="{base - height * count / counts.max():.1f}" width="{width - 4}" rx="3" '
        f'height="{height * count / counts.max():.1f}" fill="{color((i + 0.5) / bins)}"/>'
        f'<text class="mq-tick" x="{16 + width * (i + 0.5)}" y="{base - height * count / counts.max() - 5:.1f}" '
        f'text-anchor="middle">{count or ""}</text>'
        for i, count in enumerate(counts)
    )
    ticks = "".join(
        f'<text class="mq-tick" x="{16 + width * bins * tick}" y="{base + 17}" text-anchor="middle">{tick:.2g}</text>'
        for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    spoken = ", ".join(f"{i / bins:.1f} to {(i + 1) / bins:.1f}: {count}" for i, count in enumerate(counts) if count)
    return f"""<div class="mq mq-card"><h2>{title}</h2><p class="mq-note">median {np.median(qualities):.2f}, from
{qualities.min():.2f} to {qualities.max():.2f}</p>
<svg class="mq-curve" viewBox="0 -16 372 152" role="img" aria-label="Photographs by quality: {spoken}">
<line class="mq-grid" x1="16" x2="356" y1="{base}" y2="{base}"/>{bars}{ticks}</svg></div>"""


__all__ = [
    "batch_summary",
    "color",
    "distortion_bars",
    "gauge",
    "hint",
    "level_curve",
    "message",
    "quality_map_overlay",
    "verdict",
    "votes",
]
