"""Records -> one HTML page to look through: thumbnails that sort and filter, a histogram, the worst and the best.

The page is complete by itself and asks nothing of any server; its Content-Security-Policy forbids it to. Only the
page's own script can run, since the policy names its digest: names of files stay text, whatever they hold.
"""

import base64
import hashlib
import io
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple

import jinja2
import numpy as np
from jinja2.environment import TemplateStream
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from .. import __version__
from ..data.atomic import replacing
from ..data.names import shown_name
from ..decoding_metaqap import says_nothing
from .choices import THUMBNAIL
from .pictures import hex_color, quality_colors
from .record_files import cannot_write
from .records import ScoreRecord, percent
from .wording import GRADES, MIN_FAMILIARITY, grade, heading, looks_like, unlike_the_known

_PAGE = Path(__file__).parent / "report_page"

# Longer side of the grid of local quality. It is smooth, and the page draws it smooth.
_MAP = 32

# Of WebP. The scale is Pillow's, from 0 to 100.
_QUALITY = 75

# Bars of the histogram, each .05 wide; the first and the last hold what lies beyond, too.
_BINS = 20

# Rows in one part of the page's data, so that a browser does not parse all of it in one piece.
_PART = 500


class ReportSummary(NamedTuple):
    """What a report holds.

    Attributes:
        photographs: how many rows.
        failed: how many of them have an error instead of a score.
        without_picture: how many have a score but no thumbnail.
        size: of the file in bytes.
    """

    photographs: int
    failed: int
    without_picture: int
    size: int


def write_html_report(
    records: Iterable[ScoreRecord],
    output: str | Path,
    *,
    title: str = "Photograph quality",
    about: Mapping[str, str] | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
) -> ReportSummary:
    """Write a self-contained HTML page about scored photographs.

    Records are taken one by one, so a generator such as `Scorer.score` needs little memory however many they are. The
    page shows the thumbnail and the quality map of those that have one: with both, a photograph takes about 12 kB of
    it. A kill leaves the file as it was.

    Args:
        records: as `scorer.score(photographs, quality_map=True, thumbnail=THUMBNAIL)` gives them, for one.
        output: the file, such as `report.html`; it is replaced.
        title: heading of the page.
        about: what the scores were made with, by name, such as `{"checkpoint": "my-metaqap"}`.
        scale: that scores are shown on, such as `(1, 5)`, whatever the scale of the records is.

    Raises:
        MetaQAPError: if the file cannot be written.

    Example:

    ```python
    >>> from modeling_metaqap import Scorer, images_in, write_html_report

    >>> records = Scorer().score(images_in(["photos"]), quality_map=True, thumbnail=256)
    >>> write_html_report(records, "report.html")
    ```
    """
    output = Path(output)
    collected = _Collected(scale)
    # Beside the output, whose disk has to hold as much anyway.
    try:
        rows = tempfile.TemporaryFile(dir=output.parent)
    except OSError as error:
        raise cannot_write(output, error) from error
    with rows:
        for record in records:
            row = collected.add(record)
            try:
                rows.write(row)
            except OSError as error:
                raise cannot_write(output, error) from error
        try:
            with replacing(output) as file:
                rows.seek(0)
                _page(collected, rows, title=title, about=about or {}).dump(file, encoding="utf-8")
                size = file.tell()
        except OSError as error:
            raise cannot_write(output, error) from error
    return ReportSummary(collected.count, collected.failed, collected.without_picture, size)


class _Collected:
    """What the head of the page says about all records."""

    def __init__(self, scale: tuple[float, float]) -> None:
        self.scale = scale
        self.count = self.failed = self.warned = self.strangers = self.without_picture = 0
        self.qualities: list[float] = []
        self.interval_name = "interval"
        self.has_maps = self.has_intervals = False

    def add(self, record: ScoreRecord) -> bytes:
        """The row of a record as JSON that can stand in a script element, with a line break."""
        self.count += 1
        name = shown_name(record.path)
        folder, separator, file = _split(name)
        row: dict[str, Any] = {"folder": folder, "separator": separator, "file": file}
        row |= {"width": record.width, "height": record.height}
        if record.warning is not None:
            self.warned += 1
            row["warning"] = record.warning
        if record.quality is None:
            self.failed += 1
            row["error"] = record.error or "it has no score"
        else:
            quality = float(record.share(record.quality))
            row |= {"quality": quality, "shown": f"{self.on_scale(quality):.2f}", "color": hex_color(quality)}
            if not says_nothing(record.warning):
                self.qualities.append(quality)
                row |= {"grade": self.grade_of(quality), "bin": self._bin(quality)}
            if record.quality_low is not None and record.quality_high is not None:
                self.interval_name, self.has_intervals = record.interval_name, True
                row |= {"low": record.share(record.quality_low), "high": record.share(record.quality_high)}
            if unlike := unlike_the_known(record):
                self.strangers += 1
                row["unlike"] = heading(unlike)
            if likeness := looks_like(record):
                row["distortion"] = likeness
                row["probability"] = record.distortion_probability
            if record.thumbnail is None:
                self.without_picture += 1
            if record.quality_map is not None:
                self.has_maps = True
                row["map"] = _map(record.share(record.quality_map))
        if record.thumbnail is not None:
            row["picture"] = [_encoded(record.thumbnail), *record.thumbnail.size]
        return f"{htmlsafe_json_dumps(row, separators=(',', ':'))}\n".encode()

    def on_scale(self, quality: float) -> float:
        """A quality in [0, 1] as a score that people see."""
        low, high = self.scale
        return low + (high - low) * quality

    def grade_of(self, quality: float) -> str:
        """The word for it, by the score as people see it."""
        return grade(self.on_scale(quality), scale=self.scale)

    def _bin(self, quality: float) -> int:
        """The bar of a quality, by the score as people see it, with two decimals."""
        low, high = self.scale
        share = (round(self.on_scale(quality), 2) - low) / (high - low)
        return min(_BINS - 1, max(0, math.floor(share * _BINS + 1e-9)))

    def histogram(self) -> list[dict[str, Any]]:
        """The bars: from and to which score, how many photographs, and a color."""
        counts = Counter(map(self._bin, self.qualities))
        return [
            {
                "low": self.on_scale(number / _BINS),
                "high": self.on_scale((number + 1) / _BINS),
                "count": counts[number],
                "color": hex_color((number + 0.5) / _BINS),
            }
            for number in range(_BINS)
        ]

    def grades(self) -> list[dict[str, Any]]:
        """Each word from bad to excellent, with a color and how many photographs have it."""
        counts = Counter(map(self.grade_of, self.qualities))
        return [
            {"word": word, "count": counts[word], "color": hex_color((number + 0.5) / len(GRADES))}
            for number, word in enumerate(GRADES)
        ]


def _page(collected: _Collected, rows: IO[bytes], *, title: str, about: Mapping[str, str]) -> TemplateStream:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    qualities = collected.qualities
    middle = median(qualities) if qualities else None
    histogram = collected.histogram()
    highest = max(bar["count"] for bar in histogram)
    # The colors of local quality from 0 to 1, three bytes each.
    colors = base64.b64encode(quality_colors(np.linspace(0, 1, 256)).tobytes()).decode()
    return environment.get_template("page.html").stream(
        title=shown_name(title),
        about={name: shown_name(value) for name, value in about.items()},
        version=__version__,
        day=date.today().isoformat(),
        style=style,
        style_digest=_digest(style),
        script=script,
        script_digest=_digest(script),
        count=collected.count,
        failed=collected.failed,
        warned=collected.warned,
        strangers=collected.strangers,
        familiar=percent(1 - MIN_FAMILIARITY),
        median=None if middle is None else collected.on_scale(middle),
        median_grade=None if middle is None else collected.grade_of(middle),
        limits=[f"{limit:g}" for limit in collected.scale],
        ticks=[f"{collected.on_scale(fifth / 5):.4g}" for fifth in range(6)],
        step=f"{collected.on_scale(1 / _BINS) - collected.scale[0]:g}",
        histogram=histogram,
        highest=highest,
        grades=collected.grades(),
        has_maps=collected.has_maps,
        has_intervals=collected.has_intervals,
        scale=[hex_color(stop) for stop in np.linspace(0, 1, 5)],
        # Of the histogram, whose height is 100, each photograph takes a unit.
        settings={
            "colors": colors,
            "interval": collected.interval_name,
            "scale": collected.scale,
            "bins": _BINS,
            "unit": 100 / max(1, highest),
        },
        parts=_parts(rows),
    )


def _parts(rows: IO[bytes]) -> Iterator[str]:
    while part := list(islice(rows, _PART)):
        yield ",".join(row.decode() for row in part)


def _split(name: str) -> tuple[str, str, str]:
    """Folder, separator and file of a name; an archive and a table are folders of what they hold."""
    parts = (name.rpartition(separator) for separator in {"/", os.sep, "::"})
    return min(parts, key=lambda part: len(part[2]))


def _map(quality_map: np.ndarray) -> list[Any]:
    """A grid of local quality, row by row, a byte for each value, as Base64; and its width and height."""
    whole = Image.fromarray(np.clip(quality_map, 0, 1).astype(np.float32))
    factor = _MAP / max(whole.size)
    width, height = (max(1, round(side * factor)) for side in whole.size)
    grid = np.asarray(whole.resize((width, height), Image.Resampling.BOX))
    return [base64.b64encode(np.rint(grid * 255).astype(np.uint8).tobytes()).decode(), width, height]


def _encoded(thumbnail: Image.Image) -> str:
    buffer = io.BytesIO()
    thumbnail.save(buffer, "WEBP", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _digest(text: str) -> str:
    """How a Content-Security-Policy names a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


__all__ = ["THUMBNAIL", "ReportSummary", "write_html_report"]
