"""The Adapt tab of the page: ratings of a visitor -> a checkpoint to download. Imported where it can be used only."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ..data.rating_options import RatingOptions
from ..errors import MetaQAPError, as_typed
from . import figures
from .adapting import NAME, Adapter
from .limits import ADAPTING
from .unpacking import Upload
from .uploads import uploaded_files_field

# The fields, by the names that the sentences of `metaqap adapt` have for its options.
_FIELDS = {
    "mos_range": "Lowest and highest rating",
    "lower_is_better": "Lower ratings are better",
    "image_column": "Column with the names",
    "mos_column": "Column with the ratings",
}

_NUMBER = r"-?\d+(?:\.\d+)?"

# As a default argument it makes Gradio hand over a new one with each call.
_PROGRESS = gr.Progress()


def adapt_tab(adapter: Adapter, new_file: Callable[[str], Path]) -> None:
    """Fill the tab.

    Args:
        adapter: does the work.
        new_file: gives the path of a new file to download, by its name.
    """
    limits = adapter.limits
    gr.HTML(
        figures.card(
            "Scores that agree with your raters",
            f"Choose {adapter.fewest} to {limits.max_ratings:,} photographs and a CSV file with their ratings, or zip "
            "archives of them. The scores of this page are where it starts from; your ratings give them another "
            "scale, and what else they support. You get a checkpoint to download, and what to expect of it. It takes "
            "some minutes; a hundred ratings or more bring much.",
            f"A file may have {max(1, round(limits.max_bytes / 1e6)):,} MB, and several zip archives are fine. "
            "The CSV file has a row for each photograph (<code>image,mos</code>), for each rating "
            "(<code>image,rater,rating</code>), or for each comparison (<code>better,worse</code>).",
        ),
        elem_id="adapt-about",
    )
    with gr.Column(elem_id="adapt-stage", elem_classes=["mq-results"]):
        files = uploaded_files_field(
            "Photographs and ratings", file_types=["image", ".csv", ".zip"], elem_id="adapt-files"
        )
        with gr.Row(elem_id="adapt-scale"):
            # A field for numbers would send 0 where nothing was typed.
            mos_range = gr.Textbox(
                label=_FIELDS["mos_range"],
                info="that a rater could give; may be left out for 0 to 1",
                placeholder="such as 1 to 5",
                max_length=40,
                elem_id="adapt-range",
            )
            lower_is_better = gr.Checkbox(label=_FIELDS["lower_is_better"], elem_id="adapt-lower")
        with gr.Accordion("The columns have other names", open=False, elem_id="adapt-columns"), gr.Row():
            image_column = gr.Textbox(label=_FIELDS["image_column"], placeholder="image", elem_id="adapt-image-column")
            mos_column = gr.Textbox(label=_FIELDS["mos_column"], placeholder="mos", elem_id="adapt-mos-column")
        run = gr.Button("Adapt to them", variant="primary", elem_id="adapt-run")
        outcome = gr.HTML(figures.hint("What your ratings bring will be shown here."), elem_id="adapt-outcome")
        download = gr.DownloadButton("Download the checkpoint", visible=False, elem_id="adapt-download")

    def show_adaptation(
        files: list[Upload] | None,
        mos_range: str | None,
        lower_is_better: bool,
        image_column: str | None,
        mos_column: str | None,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[str, dict[str, Any]]:
        def on_progress(done: int, total: int) -> None:
            progress((done, total), desc="Reading" if done < total else "Fitting", unit="photographs")

        path = new_file(f"{NAME}.zip")
        try:
            options = RatingOptions(
                image_column=(image_column or "").strip() or None,
                mos_column=(mos_column or "").strip() or None,
                mos_range=_numbers(mos_range),
                lower_is_better=lower_is_better,
            )
            adapted = adapter.adapt(files or [], path, options=options, on_progress=on_progress)
        except MetaQAPError as error:
            said = as_typed(str(error), {name: f"“{field}”" for name, field in _FIELDS.items()})
            return figures.message(said), gr.update(visible=False)
        return figures.adaptation(adapted.record, adapted.left_out), gr.update(value=str(path), visible=True)

    run.click(
        show_adaptation,
        [files, mos_range, lower_is_better, image_column, mos_column],
        [outcome, download],
        api_visibility="private",
        show_progress_on=outcome,
        # It takes minutes: one after the other, and not in the line of those who want a score.
        concurrency_id=ADAPTING,
        concurrency_limit=1,
    )


def _numbers(text: str | None) -> tuple[float, float] | None:
    """The two numbers of a text such as "1 to 5", "1-5" or "0, 100"; None for an empty one."""
    if not (text or "").strip():
        return None
    found = re.fullmatch(rf"\s*({_NUMBER})(?:\s*(?:to|[–,;])\s*|\s+|\s*-\s*)({_NUMBER})\s*", text or "")
    if found is None:
        raise MetaQAPError(f"`mos_range` takes two numbers such as 1 to 5, not {text!r}.")
    return float(found[1]), float(found[2])


__all__ = ["adapt_tab"]
