"""The Chromium that tests drive, and what each page has to be. Where there is none, a module that imports this is
skipped, with the reason.
"""

import shutil
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser tests need playwright: pip install playwright"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip(
        "the browser tests need Chromium: apt-get install chromium, or your system's equivalent",
        allow_module_level=True,
    )

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def launched():
    """A browser without a window."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def visits(browser):
    """Gives a function that opens an address in a page of its own; `failures` of it are what scripts complained of.

    At the end a page must have asked for nothing but what lies at its own address, and nothing may be left in
    `failures`.
    """
    contexts, foreign, failures = [], [], []

    def visit(address, viewport=DESKTOP, color_scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=color_scheme, has_touch=viewport is PHONE)
        contexts.append(context)
        context.set_default_timeout(120_000)
        page = context.new_page()
        own = (address, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        # Such as what the policy of a page has refused.
        page.on("console", lambda message: message.type == "error" and failures.append(message.text))
        page.goto(address)
        return page

    visit.failures = failures
    yield visit
    for context in contexts:
        context.close()
    assert foreign == []
    assert failures == []


def pale_texts(page, within="body"):
    """The elements inside of some whose text has a contrast to its ground below the 4.5 of WCAG 2, level AA."""
    return page.evaluate(_PALE, f"{within} *")


_PALE = """selector => {
    const rgb = color => (color.match(/[\\d.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ground = element => {
        for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            const parts = rgb(color);
            if (color.startsWith('rgb') && (parts.length < 4 || parts[3] > .99)) return parts;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll(selector)].filter(element => {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.getClientRects().length || element.matches('script, style')) return false;
        const style = getComputedStyle(element);
        const pair = [luminance(rgb(element.closest('svg') ? style.fill : style.color)), luminance(ground(element))];
        return (Math.max(...pair) + .05) / (Math.min(...pair) + .05) < 4.5;
    }).map(element => element.outerHTML.slice(0, 120));
}"""
