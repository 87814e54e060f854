"""The HTML report: what stands in the page, and that nothing in it can do harm."""

import base64
import gc
import hashlib
import json
import math
import weakref
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference.html_report import write_html_report
from modeling_metaqap.inference.records import ScoreRecord

HOSTILE = [
    "</script><script>alert(1)</script>.jpg",
    "<!--<script>.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "\"onload='alert(1)' &lt;.jpg",
    "${alert(1)}{{ 7 * 7 }}{% raise %}.jpg",
    "\u2028line\u2029.jpg",
    "caf\udce9\x1b[31m.jpg",
]


def record(path, quality=0.5, **fields):
    known = {"quality_low": quality - 0.1, "quality_high": quality + 0.1, "interval_coverage": 0.9}
    known |= {"distortion": "jpeg_compression", "distortion_probability": 0.95, "width": 64, "height": 48}
    return ScoreRecord(path=path, quality=quality, **(known | fields))


class Page(HTMLParser):
    """The elements of a page, with their attributes and the text of scripts and styles."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements, self.texts = [], []
        self.feed(self.html)
        data = [text for tag, of, text in self.texts if tag == "script" and of.get("class") == "rows"]
        self.rows = [row for part in data for row in json.loads(part)]
        [self.settings] = [text for tag, of, text in self.texts if of.get("id") == "settings"]
        [self.script] = [text for tag, of, text in self.texts if tag == "script" and "type" not in of]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem is not None:  # within a script or a style
            self.texts.append((*self.elements[-1], data))


@pytest.fixture
def written(tmp_path):
    def write(records, **options):
        write_html_report(records, tmp_path / "report.html", **options)
        return Page(tmp_path / "report.html")

    return write


def test_each_record_is_a_row_with_what_people_read(written):
    thumbnail = Image.new("RGB", (40, 30), (200, 30, 30))
    quality_map = np.linspace(-0.2, 1.2, 64, dtype=np.float32)[None, :].repeat(48, axis=0)
    scored = record("trip/sea/a.jpg", 0.795, thumbnail=thumbnail, quality_map=quality_map, warning="only one color")
    page = written([scored, ScoreRecord(path="photos.zip::b.jpg", error="the file is empty"), record("c.jpg", 0.3)])
    first, second, third = page.rows
    assert "".join(f"<span>{tick}</span>" for tick in ("0", "0.2", "0.4", "0.6", "0.8", "1")) in page.html
    # A good photograph looks like no distortion, whatever it resembles most.
    assert "distortion" not in first and (third["distortion"], third["probability"]) == ("JPEG compression", 0.95)
    shown = ["folder", "file", "shown", "grade", "low", "high", "width", "warning"]
    # .795 is a little more than that in binary, so it is shown as .80; from there on a quality is excellent.
    assert [first[name] for name in shown] == [
        *("trip/sea", "a.jpg", "0.80", "excellent"),
        *(0.795 - 0.1, 0.795 + 0.1, 64, "only one color"),
    ]
    assert (first["bin"], first["quality"]) == (16, 0.795)
    assert (second["folder"], second["separator"], second["file"]) == ("photos.zip", "::", "b.jpg")
    assert second["error"] == "the file is empty" and "quality" not in second
    data, width, height = first["picture"]
    assert base64.b64decode(data)[8:12] == b"WEBP" and (width, height) == (40, 30)
    grid, columns, rows = first["map"]
    assert (columns, rows) == (32, 24)
    values = np.frombuffer(base64.b64decode(grid), np.uint8).reshape(rows, columns)
    assert values[0, 0] == 0 and values[0, -1] == 255 and (np.diff(values[5].astype(int)) >= 0).all()


def test_a_picture_with_too_little_to_judge_has_a_score_but_no_word_and_no_place_among_the_others(written):
    blank = record("blank.png", 0.1, warning="there is nothing but one color to judge")
    frame = record("frame.gif", 0.7, warning="only the first of several frames or pages was judged")
    tiny = record("tiny.gif", 0.9, warning=f"8 x 8 pixels are too few to judge; {frame.warning}")
    page = written([blank, frame, tiny])
    assert [(row["shown"], row.get("grade")) for row in page.rows] == [
        ("0.10", None),
        ("0.70", "good"),
        ("0.90", None),
    ]
    assert [row.get("bin") for row in page.rows] == [None, 14, None]
    assert '<b class="large">0.70</b> good' in page.html and "3 with a warning" in page.html
    assert "0 bad, 0 poor, 0 fair, 1 good, 0 excellent." in " ".join(page.html.split())


def test_strangers_are_named_counted_and_can_be_chosen(written):
    page = written([record("a.jpg", familiarity=0.01), record("b.jpg", familiarity=0.5), record("c.jpg")])
    sentence = "Unlike the photographs that this checkpoint learned from, so trust the score less"
    assert [row.get("unlike") for row in page.rows] == [sentence, None, None]
    assert "1 unlike the photographs" in page.html and ("option", {"value": "unlike"}) in page.elements
    assert "95 % of the photographs that the interval was calibrated on" in " ".join(page.html.split())
    known = written([record("b.jpg", familiarity=0.5)])
    assert "that this checkpoint learned from" not in known.html.split("<script")[0]
    assert ("option", {"value": "unlike"}) not in known.elements


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_text_and_only_the_pages_own_script_may_run(written, name):
    harmless = {tag for tag, _ in written([record("a.jpg")]).elements}
    page = written([record(name), record("b.jpg", error="because of " + name)], title=name, about={"engine": name})
    assert {tag for tag, _ in page.elements} == harmless
    shown = name.encode("utf-8", "backslashreplace").decode()
    for special in ("\u2028", "\u2029", "\x1b"):
        shown = shown.replace(special, ascii(special)[1:-1])
    assert page.rows[0]["folder"] + page.rows[0]["separator"] + page.rows[0]["file"] == shown
    assert all(json.loads(page.settings).values())
    [policy] = [of["content"] for tag, of in page.elements if of.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none';" in policy
    assert "unsafe" not in policy


def test_the_page_names_no_other_place(written):
    page = written([record("https://example.org/a.jpg")])
    for tag, attributes in page.elements:
        assert not any(name in ("src", "srcset", "action", "data", "poster") for name in attributes), tag
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
    assert "://" not in page.script and "url(" not in page.html and "@import" not in page.html


def test_the_histogram_counts_photographs_as_their_scores_are_shown(written):
    qualities = [-0.3, 0.02, 0.5, 0.52, 0.599, 0.9, 1.4]
    page = written([*(record("a.jpg", quality) for quality in qualities), ScoreRecord(path="b", error="it is broken")])
    titles = [part.split("</title>")[0] for part in page.html.split("<title>")[2:]]
    counts = {title.split(":")[0]: int(title.split(": ")[1]) for title in titles}
    assert len(counts) == 20
    # .599 is shown as .60, and the outermost bars hold what lies beyond.
    expected = {"0.00 to 0.05": 2, "0.50 to 0.55": 2, "0.60 to 0.65": 1, "0.90 to 0.95": 1, "0.95 to 1.00": 1}
    assert {bar: count for bar, count in counts.items() if count} == expected
    assert "2 bad, 0 poor, 2 fair, 1 good, 2 excellent." in page.html
    assert f"{np.median(qualities):.2f}</b> fair" in page.html
    assert "1 could not be read" in page.html


def test_scores_on_the_raters_scale_are_shown_in_0_to_1(written):
    maps = np.full((48, 64), 0.6, dtype=np.float32)
    first, second = record("a.jpg", 0.6, quality_map=maps), record("a.jpg", 0.6, quality_map=maps)
    second.put_on_scale((1.0, 5.0))
    one, other = written([first, second]).rows
    assert second.quality == pytest.approx(3.4)
    for name in ("shown", "grade", "bin", "color", "map"):
        assert one[name] == other[name]
    assert (other["low"], other["high"]) == pytest.approx((0.5, 0.7))


def test_scores_are_shown_on_the_scale_that_is_asked_for(written):
    qualities = (0.1, 0.5, 0.799, 0.96)
    page = written(map(record, "abcd", qualities), scale=(1, 5))
    assert [row["shown"] for row in page.rows] == ["1.40", "3.00", "4.20", "4.84"]
    # Sorting, colors, words and places on the bar are those of the quality; .799 is shown as 4.20, where "good" ends.
    assert [row["quality"] for row in page.rows] == list(qualities)
    assert [row["grade"] for row in page.rows] == ["bad", "fair", "excellent", "excellent"]
    assert [row["bin"] for row in page.rows] == [2, 10, 16, 19]
    assert json.loads(page.settings)["scale"] == [1, 5]
    assert "3.60</b> good" in page.html and "<title>3.00 to 3.20: 1</title>" in page.html
    assert "most photographs lie\nbetween 1 and 5." in page.html and 'step="0.2"' in page.html
    assert "".join(f"<span>{tick}</span>" for tick in ("1", "1.8", "2.6", "3.4", "4.2", "5")) in page.html


def test_pages_without_scores_or_records_are_whole(written):
    page = written([ScoreRecord(path="a.jpg", error="it is broken")])
    assert [row["error"] for row in page.rows] == ["it is broken"]
    assert "0 photographs" in written([]).html


def test_many_rows_come_in_parts_and_their_pictures_are_not_kept(written):
    gone = []
    most = 0

    def records():
        nonlocal most
        for number in range(1201):
            thumbnail = Image.new("RGB", (8, 8), (number % 256, 0, 0))
            weakref.finalize(thumbnail, gone.append, number)
            most = max(most, number + 1 - len(gone))
            yield record(f"{number}.jpg", thumbnail=thumbnail)

    gc.disable()  # so that what is kept is what is referred to
    try:
        page = written(records())
    finally:
        gc.enable()
    assert most <= 3
    assert [row["file"] for row in page.rows] == [f"{number}.jpg" for number in range(1201)]
    assert [of.get("class") for tag, of in page.elements if tag == "script"].count("rows") == 3


def test_an_interruption_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    def interrupted():
        yield record("a.jpg")
        raise KeyboardInterrupt

    (tmp_path / "report.html").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_html_report(interrupted(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_summary_counts_and_a_missing_folder_is_a_sentence(tmp_path):
    thumbnail = Image.new("RGB", (8, 8))
    records = [record("a.jpg", thumbnail=thumbnail), record("b.jpg"), ScoreRecord(path="c.jpg", error="it is broken")]
    summary = write_html_report(records, tmp_path / "report.html")
    assert summary == (3, 1, 1, (tmp_path / "report.html").stat().st_size)
    with pytest.raises(MetaQAPError, match=r"^Cannot write .*absent/report.html: no such file or directory\.$"):
        write_html_report(records, tmp_path / "absent" / "report.html")
    assert math.isfinite(summary.size)
