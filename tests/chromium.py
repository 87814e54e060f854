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


def pale_texts(page):
    """What is shown of texts whose contrast to the ground is below the 4.5 of WCAG 2, level AA, in fields too.

    Colours that let the ground through are mixed with it.
    """
    return page.evaluate(_PALE)


_PALE = """() => {
    const parsed = color => {
        const [r, g, b, alpha = 1] = (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
        return color.startsWith('color(srgb') ? [r * 255, g * 255, b * 255, alpha] : [r, g, b, alpha];
    };
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const luminance = color => color.slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ancestors = element => element ? [element, ...ancestors(element.parentElement)] : [];
    const ground = element => ancestors(element).map(e => parsed(getComputedStyle(e).backgroundColor))
        .reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
    return [...document.querySelectorAll('body *')].filter(element => {
        const style = getComputedStyle(element);
        const opacity = ancestors(element).reduce((all, e) => all * getComputedStyle(e).opacity, 1);
        if (!element.getClientRects().length || style.visibility === 'hidden' || !opacity) return false;
        let color = element.closest('svg') ? style.fill : style.color;
        if (element.matches('input:not([type=range], [type=file], [type=checkbox]), textarea')) {
            if (!element.value && element.placeholder) color = getComputedStyle(element, '::placeholder').color;
        } else if (![...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) return false;
        const below = ground(element);
        const [r, g, b, alpha] = parsed(color);
        const pair = [luminance(over([r, g, b, alpha * opacity], below)), luminance(below)];
        return (Math.max(...pair) + .05) / (Math.min(...pair) + .05) < 4.5;
    }).map(element => element.outerHTML.slice(0, 120));
}"""
