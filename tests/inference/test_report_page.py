"""The HTML report as people meet it, in a Chromium: it sorts, filters, shows maps, and no name does harm."""

import time
from base64 import b64decode, b64encode

import numpy as np
import pytest
from chromium import DESKTOP, PHONE, launched, pale_texts, visits
from PIL import Image

from modeling_metaqap.inference import html_report
from modeling_metaqap.inference.html_report import THUMBNAIL, write_html_report
from modeling_metaqap.inference.pictures import quality_colors
from modeling_metaqap.inference.records import ScoreRecord

#: Names that would do something if they were anything but text. What they would do is leave a mark on the page.
HOSTILE = [
    "</script><script>window.harmed = 1</script>.jpg",
    "<img src=x onerror='window.harmed = 1'>.jpg",
    "\"><svg onload='window.harmed = 1'>.jpg",
    "javascript:window.harmed = 1.jpg",
    "`${window.harmed = 1}`.jpg",
]


def record(path, quality, **fields):
    known = {"quality_low": quality - 0.1, "quality_high": quality + 0.1, "interval_coverage": 0.9}
    return ScoreRecord(path=path, quality=quality, width=60, height=45, **(known | fields))


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page of 70 photographs in two folders, and of names that would harm."""
    bad_left = np.repeat([[0.0, 1.0]], 45, axis=0).repeat(30, axis=1).astype(np.float32)
    pictures = {"thumbnail": Image.new("RGB", (60, 45), "white"), "quality_map": bad_left}

    def records():
        for number in range(70):
            name = ["jpeg_compression", "lens_blur"][number % 2]
            [path] = paths(number)
            yield record(path, number / 100, distortion=name, distortion_probability=0.95, **pictures)
        for name in HOSTILE:
            yield record(name, 0.9, warning=f"because of {name}", **pictures)
        yield ScoreRecord(path="town/broken.jpg", error="the file is empty")

    path = tmp_path_factory.mktemp("small") / "report.html"
    write_html_report(records(), path, title=HOSTILE[0], about={"engine": HOSTILE[1]})
    return path


@pytest.fixture
def open_page(browser):
    """Opens a report; at the end it must have asked for nothing but itself, and no script have failed."""
    with visits(browser) as visit:

        def open_page(path, *look):
            page = visit(path.as_uri(), *look)
            page.wait_for_selector("#photos .card")
            return page

        open_page.failures = visit.failures
        yield open_page


def names(page, selector="#photos"):
    return page.eval_on_selector_all(f"{selector} h3", "all => all.map(one => one.title)")


def paths(*numbers):
    return [f"{'sea' if number < 10 else 'sea/far' if number < 20 else 'town'}/{number}.jpg" for number in numbers]


def found(page):
    return page.inner_text("#found")


def test_the_worst_and_the_best_stand_first_and_all_in_pages(open_page, small):
    page = open_page(small)
    assert names(page, "#worst") == paths(*range(6))
    assert names(page, "#best")[:5] == HOSTILE[::-1] and names(page, "#best")[5:] == paths(69)
    assert names(page) == paths(*range(60))
    assert page.inner_text("#page") == "Page 1 of 2"
    page.click("#next")
    assert names(page) == [*paths(*range(60, 70)), *HOSTILE, "town/broken.jpg"]
    assert "the file is empty" in page.locator("#photos .card").last.inner_text()
    assert page.inner_text("#attention li.failed") == "town/broken.jpg: the file is empty"
    first = page.locator("#photos .card").first.locator("p, h3").all_text_contents()
    assert first[:4] == ["0.60good", "90 % interval 0.50 to 0.70", "60.jpg", "town"]
    assert first[4:] == ["Looks like JPEG compression (95\u00a0%)", "60 × 45 pixels"]


def test_it_sorts_by_name_folder_distortion_and_score(open_page, small):
    page = open_page(small)

    def first(order, count=1):
        page.select_option("#order", order)
        return names(page)[:count]

    assert first("best") == [HOSTILE[0]]
    assert first("input", 2) == paths(0, 1)
    page.select_option("#folder", "sea/far")
    assert first("name", 3) == paths(10, 11, 12)
    assert first("distortion", 2) == paths(10, 12)  # JPEG compression comes before lens blur
    page.select_option("#folder", "")
    folders = [name.rpartition("/")[0] for name in first("folder", 60)]
    assert [folders.count(folder) for folder in ("sea", "sea/far", "town")] == [10, 10, 60 - folders.index("town")]
    assert folders.index("sea") + 10 == folders.index("sea/far") == folders.index("town") - 10


def test_it_filters_by_name_folder_distortion_score_and_kind(open_page, small):
    page = open_page(small)
    assert found(page) == "76 photographs"
    page.fill("#name", "FAR/1")
    page.wait_for_selector("#found >> text=10 of 76")
    page.click("#clear")
    page.select_option("#folder", "sea")
    assert found(page) == "20 of 76 photographs"  # with the folder below it
    page.select_option("#distortion", "lens blur")
    assert found(page) == "10 of 76 photographs"
    page.fill("#low", "0.05")
    page.fill("#high", "0.09")
    assert names(page) == paths(5, 7, 9)
    page.fill("#low", "0.99")
    assert "No photograph fits" in page.inner_text("#photos")
    page.click("#clear")
    page.select_option("#show", "warned")
    assert sorted(names(page)) == sorted(HOSTILE)
    page.click("text=1 could not be read")
    assert names(page) == ["town/broken.jpg"]
    page.click("[data-grade='1']")  # poor: from .20 to .39
    assert found(page) == "20 of 76 photographs"
    page.click("g[data-bin='5'] .hit", position={"x": 3, "y": 3})
    assert names(page) == paths(*range(25, 30))
    shown = page.eval_on_selector_all(".shown", "all => all.map(one => Number(one.getAttribute('height')))")
    assert [number for number, height in enumerate(shown) if height] == [5]


def test_scores_intervals_bars_and_filters_are_on_the_scale_of_the_page(open_page, tmp_path):
    path = tmp_path / "report.html"
    write_html_report((record(f"{number}.jpg", number / 100) for number in range(60)), path, scale=(1, 5))
    page = open_page(path)
    card = page.locator("#photos .card").nth(30).locator("p").all_text_contents()
    assert card[:2] == ["2.20poor", "90 % interval 1.80 to 2.60"]
    page.click("[data-grade='1']")  # poor: from 1.80 to 2.59
    assert [page.input_value(f"#{limit}") for limit in ("low", "high")] == ["1.80", "2.59"]
    assert names(page) == [f"{number}.jpg" for number in range(20, 40)]
    page.click("g[data-bin='5'] .hit", position={"x": 3, "y": 3})
    assert names(page) == [f"{number}.jpg" for number in range(25, 30)]
    page.fill("#high", "2.04")
    assert names(page) == ["25.jpg", "26.jpg"]


def test_names_that_would_harm_are_text(open_page, small):
    page = open_page(small)
    page.select_option("#show", "warned")
    page.wait_for_timeout(100)
    assert page.evaluate("window.harmed") is None
    assert page.title() == page.inner_text("h1") == HOSTILE[0]
    assert page.evaluate("document.querySelectorAll('svg svg, img[onerror], a[href^=javascript]').length") == 0
    # Even a script that got into the page would not run: the policy names the page's own.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.harmed = 2'}))")
    assert page.evaluate("window.harmed") is None
    assert "Content Security Policy" in open_page.failures.pop()


def test_the_map_shows_where_one_points_and_where_one_presses(open_page, small):
    page = open_page(small)
    box = page.locator("#photos button.picture").nth(1)
    canvas = box.locator("canvas")

    def opacity():
        page.wait_for_timeout(250)
        return canvas.evaluate("canvas => getComputedStyle(canvas).opacity")

    page.mouse.move(0, 0)
    assert opacity() == "0"
    box.hover()
    assert opacity() == "0.5"
    left, right = canvas.evaluate(
        "canvas => [5, 55].map(x => [...canvas.getContext('2d').getImageData(x, 20, 1, 1).data])"
    )
    assert [left[:3], right[:3]] == quality_colors(np.array([0.0, 1.0])).tolist()
    page.mouse.move(0, 0)
    assert opacity() == "0"
    box.focus()
    page.keyboard.press("Enter")
    page.locator("#name").focus()
    assert box.get_attribute("aria-pressed") == "true" and opacity() == "0.5"
    page.check("#maps")
    assert page.locator("button.picture[aria-pressed=false]").count() == 0


def test_the_names_that_are_found_can_be_saved(open_page, small, tmp_path):
    page = open_page(small)
    page.select_option("#folder", "sea/far")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text().splitlines() == paths(*range(10, 20))


@pytest.mark.parametrize(("viewport", "color_scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"])
def test_nothing_overflows_everything_has_a_name_and_text_is_readable(open_page, small, viewport, color_scheme):
    page = open_page(small, viewport, color_scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for role in ("button", "combobox", "spinbutton", "searchbox", "checkbox"):
        for control in page.get_by_role(role).all()[:30]:
            assert control.evaluate("one => one.ariaLabel || one.labels?.[0]?.innerText || one.innerText").strip()
    assert pale_texts(page) == []


def test_all_of_it_is_reached_by_keyboard(open_page, small):
    page = open_page(small)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # "Skip to the photographs"
    reached = []
    while "next" not in reached and len(reached) < 90:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:7] == ["name", "folder", "distortion", "low", "high", "show", "order"]
    assert reached.count("picture") == 60 and reached[-1] == "next"
    page.keyboard.press("Enter")
    assert page.inner_text("#page") == "Page 2 of 2"
    assert page.evaluate("document.activeElement.id") == "all-title"


@pytest.mark.slow
def test_two_thousand_photographs_open_and_sort_within_two_seconds(open_page, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(8)]
    thumbnails = [image.resize((THUMBNAIL, 192), Image.Resampling.BICUBIC) for image in noise]
    encode = html_report._encoded
    encoded = {id(image): encode(image) for image in thumbnails}
    # As large as those of photographs, which pictures of noise are not.
    encoded = {key: b64encode(b64decode(data).ljust(8_000, b"\0")).decode() for key, data in encoded.items()}
    monkeypatch.setattr(html_report, "_encoded", lambda image: encoded[id(image)])
    quality_map = rng.random((192, 256), dtype=np.float32)
    qualities = rng.normal(0.6, 0.2, 2000)
    path = tmp_path / "report.html"
    summary = write_html_report(
        (
            record(
                f"folder {number % 20}/{number}.jpg",
                float(quality),
                distortion=["jpeg_compression", "lens_blur", "darken"][number % 3],
                distortion_probability=0.5,
                thumbnail=thumbnails[number % 8],
                quality_map=quality_map,
            )
            for number, quality in enumerate(qualities)
        ),
        path,
    )
    assert 20e6 < summary.size < 30e6
    # Other work on the machine slows now this one, now that one: the best of three counts.
    opened, sorted_ = [], []
    for _ in range(3):
        start = time.perf_counter()
        page = open_page(path)
        opened.append(time.perf_counter() - start)
        start = time.perf_counter()
        page.select_option("#order", "best")
        assert page.locator("#photos h3").first.inner_text() == f"{qualities.argmax()}.jpg"
        page.select_option("#folder", "folder 7")
        assert found(page) == "100 of 2,000 photographs"
        sorted_.append(time.perf_counter() - start)
        assert page.locator("img").count() < 100
    assert min(opened) < 2 and min(sorted_) < 2, (opened, sorted_)
