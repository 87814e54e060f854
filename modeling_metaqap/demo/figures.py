"""Numbers -> HTML and SVG. Colours of text and lines are the page's own, so all of it follows the dark mode."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from ..decoding_metaqap import says_nothing
from ..fusion.adapted_card import can_be_drawn, on_average
from ..inference.pictures import hex_color as color
from ..inference.pictures import quality_map_image
from ..inference.records import ScoreRecord, percent
from ..inference.thumbnails import make_thumbnail
from ..inference.wording import cautions, distortion_title, grade, heading, learner_title, looks_like
from ..lineage import has_own_scale
from .assessment import Assessment, Comparison


def message(sentence: str) -> str:
    """What went wrong, in one sentence."""
    return f'<div class="mq mq-message" role="alert">{escape(sentence)}</div>'


def hint(sentence: str) -> str:
    """What a part of the page will show once there is something to show."""
    return f'<div class="mq mq-hint">{escape(sentence)}</div>'


def card(title: str, *paragraphs: str) -> str:
    """A title and paragraphs, which may hold markup."""
    return f'<div class="mq mq-card"><h2>{title}</h2>{"".join(f"<p>{text}</p>" for text in paragraphs)}</div>'


def header(links: Mapping[str, str]) -> str:
    """The head of the page, with addresses by their names."""
    anchors = "".join(f'<a href="{escape(address)}">{escape(name)}</a>' for name, address in links.items())
    return f"""<header class="mq mq-header"><div><h1>MetaQAP</h1><p>How good does a photograph look? Scores from 0 to 1
without another picture to compare it with, and how sure they are.</p></div>
<nav aria-label="About MetaQAP">{anchors}</nav></header>"""


def gauge(record: ScoreRecord) -> str:
    """The quality as a number, a word and a ruler with its interval."""
    quality = record.quality or 0.0
    spoken, note = "", "not calibrated: no interval"
    if record.quality_low is not None and record.quality_high is not None:
        low, high = record.quality_low, record.quality_high
        note = f"{record.interval_name} <b>{low:.2f}</b> to <b>{high:.2f}</b>"
        spoken = f", {record.interval_name} {low:.2f} to {high:.2f}"
    resembled = looks_like(record)
    look = f"<p>looks like <b>{escape(resembled)}</b></p>" if resembled else ""
    warning = "".join(f'<p class="mq-note">Careful: {escape(text)}.</p>' for text in cautions(record))
    word = "" if says_nothing(record.warning) else grade(quality)
    spoken = f", {word}{spoken}" if word else spoken
    return f"""<div class="mq mq-card mq-gauge">
<h2 class="mq-score"><span class="mq-number">{quality:.2f}</span> <span class="mq-word">{word}</span></h2>
<div class="mq-ruler" role="img" aria-label="Quality {quality:.2f}{spoken}">
{_scale(quality, record.quality_low, record.quality_high, colored=True)}
<span class="mq-ends"><span>0 bad</span><span>excellent 1</span></span></div>
<div><p>{note}</p>{look}{warning}</div></div>"""


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))


def votes(record: ScoreRecord, names: Sequence[str]) -> str:
    """Each base learner's own score on the scale, and the fused one below."""
    rows = [(learner_title(name), score, "") for name, score in zip(names, record.base_scores or [], strict=True)]
    rows.append(("together", record.quality or 0.0, " mq-total"))
    lines = "".join(
        f'<div class="mq-row{kind}"><span class="mq-name" title="{escape(name)}">{escape(name)}</span>'
        f"{_scale(score)}<span>{score:.2f}</span></div>"
        for name, score, kind in rows
    )
    return _folded("How each learner voted", lines)


def _folded(title: str, content: str) -> str:
    """A card that opens with a click."""
    return f'<details class="mq mq-card"><summary><h2>{title}</h2></summary>{content}</details>'


def _scale(score: float, low: float | None = None, high: float | None = None, *, colored: bool = False) -> str:
    """A horizontal scale from 0 to 1 with a dot, and a band for the interval; in the colors of the map on request."""
    band = ""
    if low is not None and high is not None:
        left, right = 100 * _clip(low), 100 * _clip(high)
        band = f'<i class="mq-range" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
    look = f' mq-colors" style="background:{_gradient()}' if colored else ""
    return (
        f'<span class="mq-scale{look}">{band}'
        f'<i class="mq-dot" style="left:{100 * _clip(score):.1f}%;background:{color(score)}"></i></span>'
    )


def distortion_bars(record: ScoreRecord, labels: Sequence[str], *, most: int = 5) -> str:
    """The likeliest distortions as bars, or a sentence if the checkpoint does not tell distortions apart."""
    title = "What it resembles"
    if not record.distortion_probabilities:
        return _folded(
            title,
            '<p class="mq-note">This checkpoint was trained to rate photographs, not to name what is wrong with them.'
            "</p>",
        )
    likeliest = sorted(zip(record.distortion_probabilities, labels, strict=True), reverse=True)[:most]
    lines = "".join(
        f'<div class="mq-row"><span class="mq-name">{escape(heading(distortion_title(name)))}</span>'
        f'<span class="mq-bar"><i style="width:{100 * probability:.1f}%"></i></span>'
        f"<span>{percent(round(probability, 2))}</span></div>"
        for probability, name in likeliest
    )
    note = (
        f'<p class="mq-note">Which of {len(labels)} synthetic distortions the photograph resembles most. '
        "Also a flawless one resembles some.</p>"
    )
    return _folded(title, lines + note)


def quality_map_overlay(assessment: Assessment) -> str:
    """The photograph with its quality map over it, and a slider for how much of the map shows."""
    photograph, record = assessment.photograph.pixels, assessment.record
    assert record.quality_map is not None, "assess asks for the map"
    return f"""<div class="mq mq-card mq-map" style="--mix:.6">
<div class="mq-layers"><img src="{_data_uri(photograph)}" alt="The photograph {escape(record.path)}">
<img class="mq-heat" src="{_data_uri(quality_map_image(record.quality_map))}" alt="Its map of local quality">
<label><span>photo</span>
<input type="range" min="0" max="100" value="60" aria-label="How much of the quality map shows"
oninput="this.closest('.mq-map').style.setProperty('--mix', this.value / 100)"><span>map</span></label></div>
<p class="mq-note">{record.width:,} × {record.height:,} pixels. The score is the average of the map.</p></div>"""


def opening(scored: Sequence[tuple[str, str, Assessment]]) -> str:
    """Photographs beside each other with their scores, before anyone has chosen one.

    Args:
        scored: for each its name, its label such as "sharp", and what was found.
    """
    shown = "".join(_figure(name, label, assessment) for name, label, assessment in scored)
    note = "Two examples and their scores, from 0 (bad) to 1 (excellent)"
    if scored[0][2].record.quality_low is not None:
        note += f"; the band is the {scored[0][2].record.interval_name}"
    return (
        f'<div class="mq mq-card mq-opening"><h2 class="mq-note">{note}.</h2><div class="mq-pair">{shown}</div></div>'
    )


def _figure(name: str, label: str, assessment: Assessment) -> str:
    record = assessment.record
    quality = record.quality or 0.0
    picture = _data_uri(make_thumbnail(assessment.photograph.pixels, 480), quality=80)
    return f"""<figure><img src="{picture}" alt="{escape(name)}, {escape(label)}">
<figcaption><h3>{escape(heading(label or name))}</h3>
<p class="mq-score"><span class="mq-number">{quality:.2f}</span> <span class="mq-word">{grade(quality)}</span></p>
{_scale(quality, record.quality_low, record.quality_high, colored=True)}</figcaption></figure>"""


def example_strip(choices: Sequence[Sequence[tuple[str, str, str]]]) -> str:
    """Buttons with small pictures; the attribute `data-example` of each says which one it is.

    Args:
        choices: for each button the `thumbnail`, title and label of its photographs.
    """
    buttons = []
    for number, photographs in enumerate(choices):
        pictures = "".join(picture for picture, _, _ in photographs)
        name = " and ".join(title for _, title, _ in photographs)
        label = " | ".join(label or title for _, title, label in photographs)
        buttons.append(
            f'<li><button type="button" data-example="{number}" aria-label="Example: {escape(name)}">'
            f"<span>{pictures}</span>{escape(label)}</button></li>"
        )
    return f'<div class="mq mq-examples"><h2>Examples</h2><ul>{"".join(buttons)}</ul></div>'


def thumbnail(image: Image.Image, *, side: int) -> str:
    """A small picture beside its name, so it needs none of its own; its longest side in pixels."""
    return f'<img class="mq-thumbnail" src="{_data_uri(make_thumbnail(image, side), quality=70)}" alt="">'


def adaptation(record: Mapping[str, Any], left_out: Mapping[str, str], *, most: int = 5) -> str:
    """What ratings brought: a sentence, the figures before and after, and the learning curve.

    Args:
        record: of an `Adaptation`.
        left_out: of each photograph that cannot be read, its name and the reason.
        most: photographs of these that are named.
    """
    rows = "".join(
        f'<tr><th scope="row">{name.upper()}</th>'
        + "".join(f"<td>{_with_bounds(record['figures'][when][name])}</td>" for when in ("before", "after"))
        + "</tr>"
        for name in ("plcc", "srocc", "rmse")
    )
    # Comparisons have no scale, and ratings from 0 to 1 that of the scores.
    scale = " --raters-scale" if has_own_scale(record["mos_range"]) else ""
    return f"""<div class="mq mq-card mq-adapted"><h2>{escape(record["conclusion"])}</h2>{_left_out(left_out, most)}
<table><thead><tr><th scope="col">{record["n"]:,} ratings</th><th scope="col">before</th>
<th scope="col">after</th></tr></thead><tbody>{rows}</tbody></table>
<p class="mq-note">Each rating was predicted by a fit on the others; in brackets 95 % intervals. PLCC and SROCC are
better the higher, RMSE the lower. The interval of a new score is
±&nbsp;{record["interval_radius"]:.2f}{on_average(record)}.</p>
{_learning_curve(record["learning_curve"])}
<p class="mq-note">The zip archive holds a checkpoint like any other, with its code, a card and these figures. Unpack
it, and <code>metaqap score photographs --checkpoint my-metaqap{scale}</code> scores with it.</p></div>"""


def _left_out(reasons: Mapping[str, str], most: int) -> str:
    if not reasons:
        return ""
    named = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in islice(reasons.items(), most))
    rest = f"<li>and {len(reasons) - most:,} more</li>" if len(reasons) > most else ""
    photographs = (
        "A photograph that cannot be read was"
        if len(reasons) == 1
        else (f"{len(reasons):,} photographs that cannot be read were")
    )
    return f"<div><p>{photographs} left out:</p><ul>{named}{rest}</ul></div>"


def _with_bounds(figure: Mapping[str, float]) -> str:
    bounds = f" <small>[{figure['low']:.3f}, {figure['high']:.3f}]</small>" if "low" in figure else ""
    return f"{figure['value']:.3f}{bounds}"


def _learning_curve(curve: Sequence[Mapping[str, float]]) -> str:
    """SROCC by the number of ratings, with one deviation to both sides; the first point is for none."""
    points = [point for point in curve if math.isfinite(point["srocc"])]
    if len(points) < 2 or points[0]["n"]:
        return ""
    can_draw = can_be_drawn(points)
    without, *points = points
    if not can_draw:
        return f"""<h3>Would more ratings help?</h3>
<p class="mq-note">There are too few of them to draw a curve. A fit on {points[0]["n"]:,} ratings predicts the others
with an SROCC of {points[0]["srocc"]:.2f}; without any it is {without["srocc"]:.2f}.</p>"""
    ends = [without["srocc"]] + [point["srocc"] + side * point["srocc_sd"] for point in points for side in (-1, 1)]
    top = min(1.0, math.ceil(10 * max(ends)) / 10)
    bottom = min(math.floor(10 * min(ends)) / 10, top - 0.2)
    step = 0.1 if top - bottom < 0.55 else 0.2

    def x(index: int) -> float:
        return 62 + 276 * index / (len(points) - 1)

    def y(srocc: float) -> float:
        return 180 - 160 * (min(top, max(bottom, srocc)) - bottom) / (top - bottom)

    ticks = [bottom + step * number for number in range(math.floor((top - bottom) / step + 1.001))]
    lines = "".join(
        f'<line class="mq-grid" x1="38" x2="362" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="mq-tick" x="32" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>'
        for tick in ticks
    )
    spreads = "".join(
        f'<line class="mq-spread" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{y(point["srocc"] - point["srocc_sd"]):.1f}" '
        f'y2="{y(point["srocc"] + point["srocc_sd"]):.1f}"/>'
        for i, point in enumerate(points)
    )
    path = " ".join(f"{x(i):.1f},{y(point['srocc']):.1f}" for i, point in enumerate(points))
    dots = "".join(
        f'<circle class="mq-point mq-after" cx="{x(i):.1f}" cy="{y(point["srocc"]):.1f}" r="5">'
        f"<title>{point['n']:,} ratings: {point['srocc']:.3f}</title></circle>"
        for i, point in enumerate(points)
    )
    every = math.ceil(len(points) / 8)  # numbers do not run into each other
    labels = "".join(
        f'<text class="mq-tick" x="{x(i):.1f}" y="200" text-anchor="middle">{point["n"]:,}</text>'
        for i, point in enumerate(points)
        if (len(points) - 1 - i) % every == 0
    )
    spoken = ", ".join(f"{point['srocc']:.2f} with {point['n']:,}" for point in points)
    return f"""<h3>Would more ratings help?</h3>
<svg class="mq-curve" viewBox="0 0 372 224" role="img"
aria-label="SROCC by number of ratings: {without["srocc"]:.2f} without any, {spoken}">{lines}
<line class="mq-before" x1="38" x2="362" y1="{y(without["srocc"]):.1f}" y2="{y(without["srocc"]):.1f}"/>{spreads}
<polyline class="mq-line" points="{path}"/>{dots}{labels}
<text class="mq-tick" x="200" y="219" text-anchor="middle">number of ratings</text></svg>
<p class="mq-note">SROCC on a fifth of the ratings that was left out, by the number of the others that were used, ± 1
deviation; the dashed line is without any. If the curve still rises at its end, more ratings will help.</p>"""


def _gradient() -> str:
    return "linear-gradient(90deg," + ",".join(color(stop) for stop in np.linspace(0, 1, 5)) + ")"


def _data_uri(image: Image.Image, *, quality: int = 90) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
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
    careful = "".join(
        f'<p class="mq-note">Careful with the {side} one: {escape(text)}.</p>'
        for side, record in (("left", left), ("right", right))
        for text in cautions(record)
    )
    if any(says_nothing(record.warning) for record in (left, right)):
        headline, split = "There is too little to judge", ""
    return f'<div class="mq mq-card"><h2>{headline}</h2>{split}{careful}<h3>{shown}</h3>{rows}</div>'


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
    "adaptation",
    "batch_summary",
    "card",
    "color",
    "distortion_bars",
    "example_strip",
    "gauge",
    "header",
    "hint",
    "level_curve",
    "message",
    "opening",
    "quality_map_overlay",
    "thumbnail",
    "verdict",
    "votes",
]
