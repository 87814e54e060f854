"""The Adapt tab of the page: ratings of a visitor -> a checkpoint to download. Imported where it can be used only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ..data.rating_options import RatingOptions
from ..errors import MetaQAPError
from . import figures
from .adapting import FIELDS, NAME, Adapter
from .unpacking import Upload
from .uploads import uploaded_files_field

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
            "The CSV file has a row for each photograph (<code>image,mos</code>), for each rating "
            "(<code>image,rater,rating</code>), or for each comparison (<code>better,worse</code>).",
        ),
        elem_id="adapt-about",
    )
    with gr.Column(elem_id="adapt-stage", elem_classes=["mq-results"]):
        files = uploaded_files_field(
            f"Photographs and ratings, files of {max(1, round(limits.max_bytes / 1e6)):,} MB at most",
            file_types=["image", ".csv", ".zip"],
            elem_id="adapt-files",
        )
        with gr.Row(elem_id="adapt-scale"):
            lowest = gr.Number(
                label="Lowest rating", info="that a rater could give", placeholder="such as 1", elem_id="adapt-lowest"
            )
            highest = gr.Number(
                label="Highest rating",
                info="both may be left out for 0 to 1",
                placeholder="such as 5",
                elem_id="adapt-highest",
            )
            lower_is_better = gr.Checkbox(label=FIELDS["lower_is_better"], elem_id="adapt-lower")
        with gr.Accordion("The columns have other names", open=False, elem_id="adapt-columns"), gr.Row():
            image_column = gr.Textbox(label=FIELDS["image_column"], placeholder="image", elem_id="adapt-image-column")
            mos_column = gr.Textbox(label=FIELDS["mos_column"], placeholder="mos", elem_id="adapt-mos-column")
        run = gr.Button("Adapt to them", variant="primary", elem_id="adapt-run")
        outcome = gr.HTML(figures.hint("What your ratings bring will be shown here."), elem_id="adapt-outcome")
        download = gr.DownloadButton("Download the checkpoint", visible=False, elem_id="adapt-download")

    def show_adaptation(
        files: list[Upload] | None,
        lowest: float | None,
        highest: float | None,
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
                mos_range=_range(lowest, highest),
                lower_is_better=lower_is_better,
            )
            adapted = adapter.adapt(files or [], path, options=options, on_progress=on_progress)
        except MetaQAPError as error:
            return figures.message(str(error)), gr.update(visible=False)
        return figures.adaptation(adapted.record, adapted.left_out), gr.update(value=str(path), visible=True)

    run.click(
        show_adaptation,
        [files, lowest, highest, lower_is_better, image_column, mos_column],
        [outcome, download],
        api_visibility="private",
        show_progress_on=outcome,
        # It takes minutes: one after the other, and not in the line of those who want a score.
        concurrency_id="adapt",
        concurrency_limit=1,
    )


def _range(lowest: float | None, highest: float | None) -> tuple[float, float] | None:
    if lowest is None and highest is None:
        return None
    if lowest is None or highest is None or not lowest < highest:
        raise MetaQAPError("Give both the lowest rating and the highest, which is above it, or neither of them.")
    return lowest, highest


__all__ = ["adapt_tab"]
