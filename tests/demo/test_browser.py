"""The demo as people meet it: a Chromium drives every tab. Each test opens a page of its own on one server."""

import csv
import json
import re
import shutil
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from chromium import DESKTOP, PHONE, launched, pale_texts, visits
from kill_training import make_images
from PIL import Image
from space_server import running

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.scorer import Scorer

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")

TABS = ["Score", "Compare", "Distort", "Batch", "Adapt"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two tiny learners that are calibrated and can name distortions."""
    torch.manual_seed(0)
    learners = [
        {"backbone": "test_resnet", "name": "first"},
        {"backbone": "test_resnet", "stages": [0, 1], "name": "second"},
    ]
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model = MetaQAPModel(MetaQAPConfig(base_learners=learners, interval_radius=0.2))
    with torch.no_grad():
        for learner in model.base_learners:
            learner.quality_head.weight.mul_(10)  # so that photographs differ in the digits that are shown
    save_checkpoint(model, folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, brightness in (("dark", 60), ("bright", 255), ("grey", 140)):
        small = Image.fromarray(rng.integers(0, brightness, (20, 30, 3), dtype=np.uint8))
        small.resize((300, 200), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def rated(checkpoint, tmp_path_factory):
    """A zip archive of 20 photographs, one that is broken, and ratings from 1 to 5 that go with the scores."""
    folder = tmp_path_factory.mktemp("rated")
    make_images(folder)
    paths = sorted(folder.glob("*.png"))[:20]
    ranks = np.argsort(np.argsort([record.quality for record in Scorer(checkpoint, device="cpu").score(paths)]))
    rows = [f"{path.name},{1 + rank / 5:.1f}" for path, rank in zip(paths, ranks, strict=True)]
    with zipfile.ZipFile(folder / "rated.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"mine/{path.name}")
        archive.writestr("mine/broken.png", "broken")
        archive.writestr("mine/ratings.csv", "\n".join(["image,mos", "broken.png,3", *rows]))
    return folder / "rated.zip"


@pytest.fixture(scope="module")
def quality(checkpoint, photos):
    """The quality of each photograph, by name."""
    names = ["dark", "bright", "grey"]
    records = Scorer(checkpoint, device="cpu").score([photos / f"{name}.png" for name in names])
    return {name: record.quality for name, record in zip(names, records, strict=True)}


@pytest.fixture(scope="module")
def server(checkpoint, photos, tmp_path_factory):
    examples = tmp_path_factory.mktemp("examples")
    shutil.copy(photos / "bright.png", examples)
    shutil.copy(photos / "dark.png", examples / "bright_dark.png")
    arguments = ["serve", "--checkpoint", str(checkpoint), "--examples", str(examples), "--device", "cpu"]
    with running(["-m", "modeling_metaqap", *arguments], log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(server, browser):
    """Opens the demo; at the end nothing must have been asked for elsewhere and no script have failed."""
    with visits(browser) as visit:

        def open_page(*look):
            page = visit(server.url, *look)
            page.wait_for_selector("#score-photo input[type=file]", state="attached")
            return page

        yield open_page


def upload(page, field, *paths):
    page.set_input_files(f"#{field} input[type=file]", list(map(str, paths)))


def choose_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def text_of(page, selector):
    page.wait_for_selector(selector)
    return page.text_content(selector)  # SVG has no inner text


def fill_every_tab(page, photos, rated):
    """Leaves each tab with a result; yields its name while it is shown."""
    upload(page, "score-photo", photos / "bright.png")
    page.wait_for_selector("#score-map .mq-heat")
    yield "Score"
    choose_tab(page, "Compare")
    upload(page, "compare-left", photos / "dark.png")
    upload(page, "compare-right", photos / "bright.png")
    page.wait_for_selector("#compare-verdict .mq-card")
    yield "Compare"
    choose_tab(page, "Distort")
    upload(page, "distort-photo", photos / "bright.png")
    page.wait_for_selector("#distort-curve .mq-curve")
    yield "Distort"
    choose_tab(page, "Batch")
    upload(page, "batch-files", *sorted(photos.iterdir()))
    page.wait_for_selector("#batch-files >> text=grey")
    page.click("#batch-run")
    page.wait_for_selector("#batch-summary .mq-curve")
    page.wait_for_selector("#batch-table [role=gridcell] >> text=grey")
    yield "Batch"
    choose_tab(page, "Adapt")
    upload(page, "adapt-files", rated)
    page.wait_for_selector("#adapt-files >> text=rated")
    page.fill("#adapt-range :is(input, textarea)", "1 to 5")
    page.click("#adapt-run")
    page.wait_for_selector("#adapt-outcome .mq-adapted")
    yield "Adapt"


def test_score_shows_number_interval_map_distortions_and_votes(open_page, photos, quality):
    page = open_page()
    upload(page, "score-photo", photos / "bright.png")
    assert text_of(page, "#score-gauge .mq-number") == f"{quality['bright']:.2f}"
    low, high = quality["bright"] - 0.2, quality["bright"] + 0.2
    assert f"{low:.2f} to {high:.2f}" in page.inner_text("#score-gauge")
    for details in ("#score-distortions", "#score-votes"):
        page.click(f"{details} summary")
    assert page.locator("#score-distortions .mq-bar").count() == 5
    assert [row.split("\n")[0] for row in page.locator("#score-votes .mq-row").all_inner_texts()] == [
        "first",
        "second",
        "together",
    ]
    slider = page.get_by_role("slider", name="How much of the quality map shows")
    slider.focus()
    page.keyboard.press("Home")
    assert page.eval_on_selector("#score-map .mq-heat", "image => getComputedStyle(image).opacity") == "0"
    page.keyboard.press("End")
    assert page.eval_on_selector("#score-map .mq-heat", "image => getComputedStyle(image).opacity") == "1"
    assert page.eval_on_selector_all("#score-map img", "all => all.map(image => image.naturalWidth)") == [300, 300]


def test_the_page_opens_with_a_scored_pair_and_what_is_old_is_dimmed(open_page, photos, quality):
    page = open_page()
    assert page.locator("#score-map h3").all_inner_texts() == ["Sharp", "Dark"]
    shown = page.locator("#score-map .mq-number").all_inner_texts()
    assert shown == [f"{quality[name]:.2f}" for name in ("bright", "dark")]
    assert page.eval_on_selector_all("#score-map img", "all => all.map(image => image.naturalWidth)") == [300, 300]
    opacity = "getComputedStyle(document.querySelector('#score-map .mq-card')).opacity"
    assert page.evaluate(opacity) == "1"
    held = []
    page.route("**/queue/data*", lambda route: held.append(route))
    upload(page, "score-photo", photos / "grey.png")
    page.wait_for_function(f"Number({opacity}) < 0.5")
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    page.wait_for_selector("#score-map .mq-heat")
    page.wait_for_function(f"Number({opacity}) === 1")


def test_an_example_is_scored_with_one_click(open_page, quality):
    page = open_page()
    example = page.locator("#score-photo").locator("xpath=following::button[.//img]").first
    # A click while the page still starts is lost, on a busy machine; the thumbnail comes late in that.
    page.wait_for_function("image => image.naturalWidth > 0", arg=example.locator("img").element_handle())
    page.wait_for_timeout(500)
    example.click()
    assert text_of(page, "#score-gauge .mq-number") in {f"{quality[name]:.2f}" for name in ("bright", "dark")}


def test_compare_names_the_better_photograph(open_page, photos, quality):
    page = open_page()
    choose_tab(page, "Compare")
    upload(page, "compare-left", photos / "dark.png")
    upload(page, "compare-right", photos / "bright.png")
    verdict = text_of(page, "#compare-verdict .mq-card")
    left, right = (int(share) for share in re.findall(r"better: (\d+) %", verdict))
    assert left + right == 100
    assert (left > right) == (quality["dark"] > quality["bright"]) or abs(left - right) <= 1
    assert f"{quality['dark']:.2f}" in verdict and f"{quality['bright']:.2f}" in verdict


def test_distort_follows_the_level_by_keyboard_and_the_choice_of_distortion(open_page, photos, quality):
    page = open_page()
    choose_tab(page, "Distort")
    upload(page, "distort-photo", photos / "bright.png")
    assert "Gaussian blur, level 3" in text_of(page, "#distort-curve h2")
    assert page.locator("#distort-curve circle").count() == 6
    page.locator("#distort-level input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#distort-curve h2 >> text=level 4")
    page.keyboard.press("Home")
    page.wait_for_selector(f"#distort-curve h2 >> text=As it is: {quality['bright']:.2f}")
    page.keyboard.press("End")
    choice = page.locator("#distort-name input")
    choice.fill("JPEG comp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#distort-curve h2 >> text=JPEG compression, level 5")
    page.wait_for_function(
        "[...document.querySelectorAll('#distort-pair img')].every(image => image.naturalWidth > 0)"
    )


def test_batch_gives_a_table_that_sorts_a_histogram_and_a_file(open_page, photos, quality, tmp_path):
    page = open_page()
    assert "Batch" in fill_every_tab(page, photos, None)
    assert "3 photographs scored, 1 could not be read" in page.inner_text("#batch-summary")

    def files():
        cells = page.locator("#batch-table [role=gridcell][aria-colindex='5']").all_inner_texts()
        return list(dict.fromkeys(name.strip() for name in cells if name.strip()))

    assert files() == ["bright.png", "broken.jpg", "dark.png", "grey.png"]
    page.locator("#batch-table [role=columnheader] >> text=quality").last.click()
    expected = [f"{name}.png" for name in sorted(quality, key=quality.get)]
    page.wait_for_timeout(500)
    assert [name for name in files() if name != "broken.jpg"] in (expected, expected[::-1])
    with page.expect_download() as download:
        page.click("#batch-download-csv")
    download.value.save_as(tmp_path / "quality.csv")
    with page.expect_download() as download:
        page.click("#batch-download-html")
    assert download.value.suggested_filename == "quality.html"
    with open(tmp_path / "quality.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert {name: float(rows[f"{name}.png"]["quality"]) for name in quality} == pytest.approx(quality, abs=1e-5)
    assert rows["broken.jpg"]["error"] == "not an image, or of a format that is not read; save it as JPEG or PNG"


@pytest.mark.slow
def test_ratings_become_a_checkpoint_to_download(open_page, rated, tmp_path):
    page = open_page()
    choose_tab(page, "Adapt")
    upload(page, "adapt-files", rated)
    page.wait_for_selector("#adapt-files >> text=rated")
    page.click("#adapt-run")
    assert "such as “Lowest and highest rating” 1 5." in text_of(page, "#adapt-outcome [role=alert]")
    # On with the keyboard alone.
    page.get_by_role("textbox", name="Lowest and highest rating").focus()
    page.keyboard.type("1-5")
    for label in ("Lower ratings are better", "The columns have other names", "Adapt to them"):
        page.keyboard.press("Tab")
        focused = (
            "(e => e.innerText || e.labels?.[0]?.innerText || e.closest('label')?.innerText)(document.activeElement)"
        )
        assert label in page.evaluate(focused)
    page.keyboard.press("Enter")
    shown = text_of(page, "#adapt-outcome .mq-adapted")
    assert "mine/broken.png: not an image" in shown and "20 ratings" in shown and "Would more ratings help?" in shown
    with page.expect_download() as download:
        page.click("#adapt-download")
    assert download.value.suggested_filename == "my-metaqap.zip"
    download.value.save_as(tmp_path / "my-metaqap.zip")
    with zipfile.ZipFile(tmp_path / "my-metaqap.zip") as archive:
        archive.extractall(tmp_path)
    assert Scorer(tmp_path / "my-metaqap", device="cpu").engine.config.mos_range == [1, 5]
    record = json.loads((tmp_path / "my-metaqap" / "adaptation.json").read_text())
    assert f"{record['figures']['after']['srocc']['value']:.3f}" in shown


def test_a_broken_upload_gets_a_sentence_and_the_next_photograph_its_score(open_page, photos, quality):
    page = open_page()
    upload(page, "score-photo", photos / "broken.jpg")
    assert text_of(page, "#score-gauge [role=alert]") == (
        "broken.jpg cannot be scored: not an image, or of a format that is not read; save it as JPEG or PNG."
    )
    page.locator("#score-photo").get_by_role("button", name="Remove Image").click()
    page.wait_for_selector("#score-gauge .mq-hint")
    upload(page, "score-photo", photos / "grey.png")
    assert text_of(page, "#score-gauge .mq-number") == f"{quality['grey']:.2f}"


@pytest.mark.parametrize(("viewport", "color_scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"])
def test_nothing_overflows_or_is_cut_and_text_is_readable(open_page, photos, rated, viewport, color_scheme):
    page = open_page(viewport, color_scheme)
    first, second = page.locator("#score-map figure").all()
    assert first.bounding_box()["width"] == second.bounding_box()["width"]
    assert not page.locator("footer .divider").first.is_visible()
    for tab in fill_every_tab(page, photos, rated):
        # Results are dimmed while new ones are computed, and a moment longer.
        page.wait_for_function(_SETTLED)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], tab
        assert page.evaluate(_CUT) == [], tab
        assert pale_texts(page) == [], tab
        assert page.evaluate(_NAMELESS) == [], tab
        levels = page.evaluate(_HEADINGS)
        assert levels.count(1) == 1 and levels[0] == 1, tab
        assert all(after <= before + 1 for before, after in pairwise(levels)), tab
        if tab == "Score" and viewport is PHONE:
            score, examples = (page.locator(f"#score-{part}").bounding_box()["y"] for part in ("gauge", "examples"))
            assert score < examples and score + 60 < viewport["height"]
    for landmark in ("main", "header", "nav", "footer"):
        assert page.locator(landmark).count(), landmark
    assert page.get_attribute("html", "lang") == "en"


def test_the_tabs_and_the_upload_are_reached_by_keyboard(open_page, photos):
    page = open_page()
    page.get_by_role("tab", name="Score", exact=True).focus()
    with page.expect_file_chooser() as chooser:
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('#score-photo') !== null"):
                break
        page.keyboard.press("Enter")
    chooser.value.set_files(photos / "dark.png")
    page.wait_for_selector("#score-map .mq-heat")
    page.get_by_role("tab", name="Batch", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#batch-run", state="visible")
    for key, tab in (("ArrowLeft", "Distort"), ("Home", "Score"), ("ArrowLeft", TABS[-1]), ("ArrowRight", "Score")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[role=tab][aria-selected=true]:focus >> text={tab}")
    outline = "element => getComputedStyle(element).outlineStyle + getComputedStyle(element).outlineWidth"
    for name in ("Upload file", "Example: bright, sharp", "What it resembles"):
        element = page.locator(f"[aria-label='{name}']:visible, summary:has-text('{name}'):visible").first
        element.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert element.evaluate(outline) == "solid3px", name


_SETTLED = """() => !document.querySelector('.mq-results .pending')
    && !document.getAnimations().some(one => one instanceof CSSTransition)"""

# Our own elements whose text does not fit, or that stick out of the window.
_CUT = """[...document.querySelectorAll('.mq, .mq *')].filter(element => {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || element.closest('svg')?.contains(element.parentNode)) return false;
    const cut = !element.closest('svg') && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
        && getComputedStyle(element).overflow !== 'visible';
    return cut || box.right > window.innerWidth + 1 || box.left < -1;
}).map(element => element.outerHTML.slice(0, 120))"""

# What can be used or seen, Gradio's own included, and has no name for those who do not see it. A picture that stands
# beside its name, in a button or a row, needs none of its own.
_NAMELESS = """[...document.querySelectorAll(
    'button, a[href], input, select, textarea, summary, img, svg[role=img], [role=tab], [role=slider]'
)].filter(element => {
    if (!element.getClientRects().length || element.closest('[aria-hidden=true]')) return false;
    const others = (element.getAttribute('aria-labelledby') || '').split(' ').map(id => document.getElementById(id));
    const texts = [element.getAttribute('aria-label'), element.alt, element.title];
    texts.push(...[...others, ...(element.labels || [])].map(other => other?.textContent));
    if (element.matches('button, a, summary, [role=tab]')) texts.push(element.textContent);
    if (element.matches('img[alt=""]') && element.closest('button, [role=gridcell], td')) return false;
    return !texts.some(text => text?.trim());
}).map(element => element.outerHTML.slice(0, 160))"""

# Levels of the headings that are shown, in their order.
_HEADINGS = """[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
    .filter(heading => heading.getClientRects().length).map(heading => Number(heading.tagName[1]))"""
