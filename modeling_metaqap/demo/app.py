"""The Gradio app around `Assessor` and `Adapter`: tabs for people, and what scores as an API for programs."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

# Before gradio is imported: it asks the network for its newest version otherwise.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from gradio.themes import Font
from PIL import Image
from starlette.middleware import Middleware

from .. import DEFAULT_CHECKPOINT, __version__
from ..data.distortions import DISTORTIONS, LEVELS
from ..data.silencing import silence_decoders
from ..errors import MetaQAPError
from ..fusion.adapted_card import NO_LINKS
from ..inference.fastest import PHOTOGRAPHS
from ..inference.html_report import write_html_report
from ..inference.pictures import quality_map_image
from ..inference.record_files import open_records
from ..inference.records import ScoreRecord, as_json
from ..inference.scorer import Scorer
from ..inference.wording import cautions, distortion_title, heading, looks_like
from ..installing import missing_package
from . import figures
from .assessment import MAX_CROPS, Assessor
from .examples import Example, Examples, find_examples, originals_of, pairs_of
from .limits import Limits, UploadLimit, limit_queue
from .links import page_links
from .uploads import take_uploads_only, uploaded_photo_field

if TYPE_CHECKING:
    from .adapting import Adapter

_logger = logging.getLogger(__name__)

# As a default argument it makes Gradio hand over a new one with each call.
_PROGRESS = gr.Progress()

_LIMITS = Limits()

_STYLE, _SCRIPT = (Path(__file__).with_name(name) for name in ("style.css", "page.js"))

# Seconds after which the last trace of an upload is gone: files older than five sixths are looked for every sixth.
_KEPT = 3600

# Pixels of the small pictures in the table of a batch.
_ROW_HEIGHT = 72

# Pixels of a photograph on the page.
_HEIGHT = 400

# All computing events share one limit, so that memory does not grow with the number of tabs in use.
_MODEL = "model"

# Results are dimmed as a whole while new ones are computed.
_RESULTS = ["mq-results"]

_DISTORTION_CHOICES = [
    (f"{heading(entry.family.replace('_', ' and '))} · {heading(distortion_title(name))}", name)
    for name, entry in sorted(DISTORTIONS.items(), key=lambda item: item[1].family)
]


def build_app(
    assessor: Assessor,
    *,
    concurrency: int = 2,
    examples: Path | None = None,
    limits: Limits = _LIMITS,
    links: Mapping[str, str] = NO_LINKS,
    adapter: "Adapter | None" = None,
) -> gr.Blocks:
    """The app, with its queue, ready for `launch(**launch_options(limits))`.

    Args:
        assessor: computes all that is shown.
        concurrency: requests that are computed at once; the others wait in line.
        examples: folder of photographs to offer.
        limits: what a visitor may ask of the server.
        links: addresses to show, by their names.
        adapter: of the Adapt tab; None leaves the tab out.
    """
    offered = Examples(examples, assessor)
    demo = Demo(assessor, opening=next(iter(pairs_of(offered.all)), ()))
    options: dict[str, Any] = {"concurrency_id": _MODEL, "concurrency_limit": concurrency}
    with gr.Blocks(
        title="MetaQAP: photo quality", analytics_enabled=False, delete_cache=(_KEPT // 6, _KEPT * 5 // 6)
    ) as app:
        gr.HTML(figures.header(links))
        with gr.Tabs():
            with gr.Tab("Score", id="score"):
                _score_tab(demo, offered, options)
            with gr.Tab("Compare", id="compare"):
                _compare_tab(demo, offered, options)
            with gr.Tab("Distort", id="distort"):
                _distort_tab(demo, offered, options)
            with gr.Tab("Batch", id="batch"):
                _batch_tab(demo, options, assessor.max_files)
            if adapter is not None:
                from .adapt_tab import adapt_tab

                with gr.Tab("Adapt", id="adapt"):
                    adapt_tab(adapter, demo.new_file)
        gr.HTML(
            f'<footer class="mq mq-note">MetaQAP {__version__}. Quality is what raters thought of sharpness, noise, '
            "exposure and compression; it is not beauty. Photographs stay on this server for an hour at most and are "
            "used for nothing else.</footer>"
        )
    app.queue(max_size=limits.max_waiting, default_concurrency_limit=concurrency)
    limit_queue(app, limits)
    return app


def launch_options(limits: Limits = _LIMITS) -> dict[str, Any]:
    """What `launch` needs to know of the app's looks and limits. No font, script or style comes from elsewhere."""
    fonts = [Font("system-ui"), Font("-apple-system"), Font("Segoe UI"), Font("Roboto"), Font("sans-serif")]
    theme = gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=fonts,
        font_mono=[Font("ui-monospace"), Font("Consolas"), Font("monospace")],
    ).set(
        # The page is a shade darker than what lies on it, in both modes.
        body_background_fill="*neutral_100",
        block_border_width="1px",
        # Soft's own shades are too pale to read: text needs a contrast of 4.5 to its ground.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*primary_800",
        block_label_text_color_dark="*primary_200",
        block_title_text_color="*primary_800",
        block_title_text_color_dark="*primary_200",
        block_label_background_fill_dark="*primary_800",
        block_title_background_fill_dark="*primary_800",
        link_text_color="*secondary_700",
        link_text_color_active="*secondary_700",
        link_text_color_hover="*secondary_800",
        link_text_color_visited="*secondary_700",
        link_text_color_visited_dark="*secondary_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        slider_color="*primary_700",
        slider_color_dark="*primary_400",
    )
    return {
        "theme": theme,
        "css": _STYLE.read_text(encoding="utf-8"),
        "js": _SCRIPT.read_text(encoding="utf-8"),
        "footer_links": ["api"],
        "max_file_size": limits.max_bytes,  # refused while they arrive
        "app_kwargs": {"middleware": [Middleware(UploadLimit, limits=limits)]},
        "ssr_mode": False,
        "share": False,
    }


def serve(
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    *,
    host: str | None = None,
    port: int | None = None,
    device: str | None = None,
    concurrency: int = 2,
    examples: Path | None = PHOTOGRAPHS,
    limits: Limits | None = None,
) -> None:
    """Start the app and serve it until the process is interrupted.

    Args:
        checkpoint: folder or Hub id.
        host, port: where to listen; default Gradio's, 127.0.0.1 and the first free port from 7860, or what the
            variables GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say.
        device: such as `"cuda:1"`; default the GPU if there is one.
        concurrency: requests that are computed at once.
        examples: folder of photographs to offer, by default those that ship with the package; None for none.
        limits: what a visitor may ask of the server; default those of the environment, see `Limits`.

    Raises:
        MetaQAPError: for a checkpoint, device, port, folder or limit that cannot be used.
    """
    if examples is not None and not find_examples(examples):
        raise MetaQAPError(f"The folder {examples} holds no photographs to offer as examples.")
    limits = Limits.from_environment() if limits is None else limits
    silence_decoders()
    # Pillow itself refuses twice as many, before anyone else is asked.
    Image.MAX_IMAGE_PIXELS = -(-limits.max_pixels // 2)
    # Uploads are decoded in processes that may die.
    scorer = Scorer(checkpoint, device=device, max_pixels=limits.max_pixels, max_crops=MAX_CROPS, isolate=True)
    assessor = Assessor(scorer, max_files=limits.max_files, max_seconds=limits.max_seconds)
    app = build_app(
        assessor,
        concurrency=concurrency,
        examples=examples,
        limits=limits,
        links=page_links(checkpoint),
        adapter=make_adapter(scorer, checkpoint, limits),
    )
    try:
        # Quiet, since Gradio's own words advise arguments of `launch`, which this command does not have.
        app.launch(server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, **launch_options(limits))
    except OSError as error:
        raise MetaQAPError(f"Cannot listen on {host or 'this machine'}, port {port or 'any'}: {error}") from error
    print(f"The demo is at {app.local_url} until Ctrl-C ends it.", flush=True)
    app.block_thread()


def make_adapter(scorer: Scorer, checkpoint: str | Path, limits: Limits) -> "Adapter | None":
    """What adapts the checkpoint to the ratings of visitors; None where that is switched off or a package is missing.

    The log says what is missing.

    Raises:
        MetaQAPError: see `Adapter`.
    """
    if not limits.max_ratings:
        return None
    try:
        from .adapting import Adapter
    except ModuleNotFoundError as error:
        _logger.warning("The Adapt tab is left out. %s", missing_package(error.name or ""))
        return None
    return Adapter(scorer, checkpoint, limits)


def _write_csv(records: list[ScoreRecord], path: Path) -> None:
    with open_records(path) as file:
        for record in records:
            file.write(record)
        file.finish()


class Demo:
    """The functions behind the page and the API.

    A function whose name starts with `show_` fills a tab and shows a user's mistake where the result would be; the one
    without answers the API and raises the same sentence.
    """

    #: What a batch can be downloaded as: its name, the file's name, and what writes it.
    DOWNLOADS: ClassVar[dict[str, tuple[str, Callable[[list[ScoreRecord], Path], object]]]] = {
        "CSV": ("quality.csv", _write_csv),
        "HTML": ("quality.html", write_html_report),
    }

    def __init__(self, assessor: Assessor, *, opening: Sequence[Example] = ()):
        self.assessor = assessor
        self._opening = ""
        if opening:
            # Once, before anyone comes: the page opens with it.
            self._opening = figures.opening(
                [(example.name, example.label, assessor.assess(str(example.path))) for example in opening]
            )
        self._files = tempfile.TemporaryDirectory(prefix="metaqap-")

    def score(self, photo: str | None) -> dict[str, Any]:
        """Score one photograph.

        Returns quality (higher is better, training range 0 to 1, not clipped), quality_low and quality_high (the
        calibrated interval), interval_coverage (the share of photographs whose opinion score it is calibrated to hold;
        all three null if the checkpoint is not calibrated), familiarity (how like the training photographs, 0 to 1;
        null if the checkpoint does not say), distortion and distortion_probability (the most likely one, null without
        a distortion head), width and height in pixels, warning (why the score says little), base_scores and
        distortion_probabilities (in the order of base_learners and distortion_labels of the checkpoint's config.json).
        They are the fields of `metaqap score --json`, but for the path: file has the name.
        """
        return _fields(self.assessor.assess(photo).record)

    def quality_map(self, photo: str | None) -> Image.Image:
        """The map of local quality of one photograph as an image, from red (0) over yellow (0.5) to blue-green (1)."""
        quality_map = self.assessor.assess(photo).record.quality_map
        assert quality_map is not None, "assess asks for the map"
        return quality_map_image(quality_map)

    def show_score(self, photo: str | None) -> tuple[str, str, str, str]:
        if not photo:
            others = ", or choose one of the examples" if self._opening else ""
            return figures.hint(f"Drop a photograph{others}."), self._opening, "", ""
        try:
            assessment = self.assessor.assess(photo)
        except MetaQAPError as error:
            return figures.message(str(error)), "", "", ""
        record = assessment.record
        return (
            figures.gauge(record),
            figures.quality_map_overlay(assessment),
            figures.distortion_bars(record, self.assessor.distortion_labels),
            figures.votes(record, self.assessor.learner_names),
        )

    def compare(self, left: str | None, right: str | None) -> dict[str, Any]:
        """Which of two photographs is better.

        Returns left and right (what /score gives for each) and left_is_better: the probability that raters would
        prefer the left one, taking the errors of the two scores as independent and normal with the calibrated
        interval; null if the checkpoint is not calibrated.
        """
        comparison = self.assessor.compare(left, right)
        return {
            "left": _fields(comparison.left),
            "right": _fields(comparison.right),
            "left_is_better": comparison.left_is_better,
        }

    def show_comparison(self, left: str | None, right: str | None) -> str:
        if not left or not right:
            return figures.hint("Choose two photographs to see which one is better, and how sure that is.")
        try:
            return figures.verdict(self.assessor.compare(left, right))
        except MetaQAPError as error:
            return figures.message(str(error))

    def distort(self, photo: str | None, distortion: str, level: float) -> tuple[Image.Image, dict[str, Any]]:
        """Distort a photograph with one of the 25 distortions of KADID-10k at a level from 1 to 5 (0: as it is).

        Returns the distorted image (its shortest edge at most 512 pixels) and a dictionary with quality, quality_low
        and quality_high at levels 0 to 5 (a list of six each, null if not calibrated), parameters of levels 1 to 5 and
        their unit.
        """
        _, distorted, records = self.assessor.distort(photo, distortion, int(level))
        entry = DISTORTIONS[distortion]
        curve: dict[str, Any] = {
            name: [getattr(record, name) for record in records] for name in ("quality", "quality_low", "quality_high")
        }
        return distorted, curve | {"parameters": list(entry.levels), "unit": entry.unit}

    def show_distortion(
        self, photo: str | None, distortion: str, level: float
    ) -> tuple[tuple[Image.Image, Image.Image] | None, str]:
        if not photo:
            return None, figures.hint("Choose a photograph, a distortion and a level.")
        try:
            photograph, distorted, records = self.assessor.distort(photo, distortion, int(level))
        except MetaQAPError as error:
            return None, figures.message(str(error))
        entry = DISTORTIONS[distortion]
        parameter = f"{entry.unit}: {entry.levels[int(level) - 1]:g}" if level else f"level 1 to 5: {entry.unit}"
        curve = figures.level_curve(
            records, int(level), name=heading(distortion_title(distortion)), parameter=parameter
        )
        return (photograph.pixels, distorted), curve

    def batch(self, files: list[str] | None, progress: gr.Progress = _PROGRESS) -> tuple[list[dict[str, Any]], str]:
        """Score many photographs, up to 200 unless the server says otherwise.

        Returns a list with what /score gives for each file, in their order (a file that cannot be used has an error
        and nulls), and a CSV file with the columns of `metaqap score`.
        """
        records = list(self._batch(files, progress))
        return [_fields(record) for record in records], self._written("CSV", records)

    def show_batch(self, files: list[str] | None, progress: gr.Progress = _PROGRESS) -> tuple[Any, ...]:
        hidden = gr.update(visible=False)
        try:
            records = list(self._batch(files, progress))
        except MetaQAPError as error:
            return figures.message(str(error)), hidden, *[hidden] * len(self.DOWNLOADS)
        written = (self._written(kind, records) for kind in self.DOWNLOADS)
        downloads = [gr.update(value=path, visible=True) for path in written]
        return figures.batch_summary(records), self._table(records), *downloads

    def _batch(self, files: list[str] | None, progress: gr.Progress) -> Iterator[ScoreRecord]:
        files = files or []
        return iter(progress.tqdm(self.assessor.score_many(files), total=len(files), desc="Scoring", unit="photos"))

    def _table(self, records: list[ScoreRecord]) -> dict[str, Any]:
        columns: dict[str, Callable[[ScoreRecord], Any]] = {
            # A phone shows no more of the table than pictures and numbers.
            "quality": lambda record: record.quality,
            "low": lambda record: record.quality_low,
            "high": lambda record: record.quality_high,
            "file": lambda record: record.path,
            "looks like": lambda record: looks_like(record) or "",
            "pixels": lambda record: f"{record.width} × {record.height}" if record.width else "",
            "note": _note,
        }
        if not self.assessor.distortion_labels:
            del columns["looks like"]
        if not any(map(_note, records)):
            del columns["note"]
        rows = [[_picture(record), *(cell(record) for cell in columns.values())] for record in records]
        widths = {"file": 220, "looks like": 160, "pixels": 110, "note": 280}
        numbers = ("quality", "low", "high")
        return gr.update(
            visible=True,
            # Only the pictures, which are made here, may be more than text.
            datatype=["html", *("number" if name in numbers else "str" for name in columns)],
            # Of pixels; otherwise one long name pushes the scores out of sight.
            column_widths=[92, *(widths.get(name, 84) for name in columns)],
            value={
                "headers": ["photo", *columns],
                "data": rows,
                # Sorted by all their digits, shown with two.
                "metadata": {"display_value": [[_shown(cell) for cell in row] for row in rows], "styling": None},
            },
        )

    def _written(self, kind: str, records: list[ScoreRecord]) -> str:
        """A file to download, of one of the kinds in `DOWNLOADS`."""
        name, write = self.DOWNLOADS[kind]
        path = self.new_file(name)
        write(records, path)
        return str(path)

    def new_file(self, name: str) -> Path:
        """The path of a new file to download, in a folder of its own."""
        # Gradio copies what is returned, but only after this function is over; so the older ones are removed here.
        for folder in Path(self._files.name).iterdir():
            if time.time() - folder.stat().st_mtime > _KEPT:
                shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self._files.name)) / name


def _fields(record: ScoreRecord) -> dict[str, Any]:
    """A record as the API gives it: a client of Gradio would try to fetch whatever has a `path`, so that is `file`."""
    fields = as_json(record)
    return {"file": fields.pop("path"), **fields}


def _note(record: ScoreRecord) -> str:
    """Why a photograph has no score, or what to think of when reading it."""
    return record.error or "; ".join(cautions(record))


def _picture(record: ScoreRecord) -> str:
    return "" if record.thumbnail is None else figures.thumbnail(record.thumbnail, side=_ROW_HEIGHT)


def _shown(cell: Any) -> str:
    return "" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def _score_tab(demo: Demo, offered: Examples, options: dict[str, Any]) -> None:
    gauge, quality_map, *_ = demo.show_score(None)
    # In the order in which a phone shows it.
    with gr.Column(elem_id="score-stage", elem_classes=_RESULTS):
        photo = uploaded_photo_field("Photograph", elem_id="score-photo")
        outputs = [
            gr.HTML(gauge, elem_id="score-gauge"),
            gr.HTML(quality_map, elem_id="score-map"),
            gr.HTML(elem_id="score-distortions"),
            gr.HTML(elem_id="score-votes"),
        ]
        offered.offer([(example,) for example in offered.all], [photo], elem_id="score-examples")
    photo.change(demo.show_score, photo, outputs, api_visibility="private", show_progress_on=outputs[0], **options)
    _endpoint(demo.score, [photo], [gr.JSON(visible=False, label="scores")], options)
    _endpoint(demo.quality_map, [photo], [gr.Image(visible=False, label="quality map", format="png")], options)


def _compare_tab(demo: Demo, offered: Examples, options: dict[str, Any]) -> None:
    with gr.Column(elem_id="compare-stage", elem_classes=_RESULTS):
        left = uploaded_photo_field("Left", elem_id="compare-left")
        right = uploaded_photo_field("Right", elem_id="compare-right")
        verdict = gr.HTML(demo.show_comparison(None, None), elem_id="compare-verdict")
        offered.offer(pairs_of(offered.all), [left, right], elem_id="compare-examples")
    gr.on(
        [left.change, right.change],
        demo.show_comparison,
        [left, right],
        verdict,
        api_visibility="private",
        **options,
    )
    _endpoint(demo.compare, [left, right], [gr.JSON(visible=False, label="comparison")], options)


def _distort_tab(demo: Demo, offered: Examples, options: dict[str, Any]) -> None:
    with gr.Column(elem_id="distort-stage", elem_classes=_RESULTS):
        photo = uploaded_photo_field("Photograph", elem_id="distort-photo")
        pair = gr.ImageSlider(
            label="As it is | distorted", interactive=False, format="jpeg", elem_id="distort-pair", height=_HEIGHT
        )
        with gr.Column(elem_id="distort-choice"):
            distortion = gr.Dropdown(
                _DISTORTION_CHOICES, value="gaussian_blur", label="Distortion", elem_id="distort-name"
            )
            level = gr.Slider(
                0, LEVELS[-1], value=3, step=1, label="Level", info="0 leaves it as it is", elem_id="distort-level"
            )
        curve = gr.HTML(demo.show_distortion(None, "gaussian_blur", 3)[1], elem_id="distort-curve")
        offered.offer([(example,) for example in originals_of(offered.all)], [photo], elem_id="distort-examples")
    inputs = [photo, distortion, level]
    gr.on(
        [photo.change, distortion.change, level.change],
        demo.show_distortion,
        inputs,
        [pair, curve],
        api_visibility="private",
        show_progress_on=curve,
        trigger_mode="always_last",
        **options,
    )
    distorted = gr.Image(visible=False, label="distorted", format="png")
    _endpoint(demo.distort, inputs, [distorted, gr.JSON(visible=False, label="curve")], options)


def _batch_tab(demo: Demo, options: dict[str, Any], max_files: int) -> None:
    files = gr.File(
        label=f"Photographs, up to {max_files}",
        file_count="multiple",
        file_types=["image"],
        height=190,
        elem_id="batch-files",
    )
    take_uploads_only(files)
    run = gr.Button("Score them", variant="primary", elem_id="batch-run")
    with gr.Column(elem_id="batch-stage", elem_classes=_RESULTS):
        summary = gr.HTML(figures.hint("Choose photographs and score them all at once."), elem_id="batch-summary")
        with gr.Row():
            downloads = [
                gr.DownloadButton(f"Download as {name}", visible=False, elem_id=f"batch-download-{name.lower()}")
                for name in Demo.DOWNLOADS
            ]
        table = gr.Dataframe(
            visible=False,
            interactive=False,
            label="Click on a heading to sort",
            elem_id="batch-table",
            datatype="auto",
            wrap=True,
        )
    run.click(
        demo.show_batch,
        files,
        [summary, table, *downloads],
        api_visibility="private",
        show_progress_on=summary,
        **options,
    )
    rows, file = gr.JSON(visible=False, label="scores"), gr.File(visible=False, label="CSV")
    _endpoint(demo.batch, [files], [rows, file], options)


def _endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any], options: dict[str, Any]) -> None:
    """Let programs call a function, named as in Python and described by its docstring."""

    @wraps(function)
    def answer(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MetaQAPError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.on([], answer, inputs, outputs, api_name=function.__name__, **options)


__all__ = ["Demo", "build_app", "launch_options", "serve"]
