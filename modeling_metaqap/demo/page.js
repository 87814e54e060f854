() => {
    // Arrow keys move between tabs, as people who use a keyboard are used to.
    document.addEventListener("keydown", event => {
        const tab = event.target.closest?.("[role=tab]");
        if (!tab) return;
        const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]:not([aria-disabled=true])")]
            .filter(one => one.getClientRects().length);
        const here = tabs.indexOf(tab), last = tabs.length - 1;
        const next = {
            ArrowRight: here < last ? here + 1 : 0, ArrowLeft: here > 0 ? here - 1 : last, Home: 0, End: last,
        }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        tabs[next].focus();
        tabs[next].click();
    });
    // Gradio leaves these without a name for those who do not see them.
    const names = [
        ["#score-photo .image-frame img", "alt", "The photograph to score"],
        ["#compare-left .image-frame img", "alt", "The left photograph"],
        ["#compare-right .image-frame img", "alt", "The right photograph"],
        ["#distort-photo .image-frame img", "alt", "The photograph to distort"],
        ["#distort-pair img", "alt", "The photograph as it is, and distorted"],
        ["#distort-pair a.download-link", "aria-label", "Download the distorted photograph"],
    ];
    const giveNames = () => {
        for (const [selector, attribute, text] of names)
            for (const element of document.querySelectorAll(selector))
                if (!element.getAttribute(attribute)) element.setAttribute(attribute, text);
    };
    new MutationObserver(giveNames).observe(document.body, {childList: true, subtree: true});
    giveNames();
}
