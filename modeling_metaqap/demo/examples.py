"""The photographs that the page offers: their names and labels, and the strip of small pictures to choose from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from ..data.image_files import is_image_file
from . import figures
from .assessment import Assessor

#: Longest side of the small pictures in pixels.
_SIDE = 120

# The number of the button that was pressed, wherever in it.
_PRESSED = """element.addEventListener('click', event => {
    const button = event.target.closest('button[data-example]');
    if (button) trigger('click', {example: Number(button.dataset.example)});
});"""


@dataclass(frozen=True)
class Example:
    """A photograph that is offered.

    Attributes:
        path: of the file.
        name: of what it shows.
        label: what is the matter with it: "sharp" for a photograph of which there are worse versions, or the version's
            own label; empty for one that stands alone.
    """

    path: Path
    name: str
    label: str

    @property
    def title(self) -> str:
        """Both, for people."""
        return f"{self.name}, {self.label}" if self.label else self.name


def find_examples(folder: Path | None) -> list[Example]:
    """The photographs of a folder, by name: `coffee_blurred.jpg` is a version of `coffee.jpg`, labelled "blurred"."""
    if folder is None:
        return []
    paths = sorted(path for path in folder.glob("*") if is_image_file(path))
    stems = {path.stem for path in paths}
    originals = {path.stem.rpartition("_")[0] for path in paths} & stems
    found = []
    for path in paths:
        original, _, label = path.stem.rpartition("_")
        if original in originals:
            found.append(Example(path, original, label))
        else:
            found.append(Example(path, path.stem, "sharp" if path.stem in originals else ""))
    return found


def originals_of(examples: list[Example]) -> list[Example]:
    """The photographs themselves, without their worse versions and so without labels."""
    return [Example(example.path, example.name, "") for example in examples if example.label in ("", "sharp")]


def pairs_of(examples: list[Example]) -> list[tuple[Example, Example]]:
    """Each photograph with a worse version of it, and where there are none, neighbours.

    The versions take turns, so that not all the pairs show the same.
    """
    versions: dict[str, list[Example]] = {}
    for example in examples:
        versions.setdefault(example.name, []).append(example)
    families = [family for family in versions.values() if len(family) > 1]
    if families:
        # The photograph itself comes first, since its name is the beginning of the others'.
        return [(family[0], family[1 + turn % (len(family) - 1)]) for turn, family in enumerate(families)]
    return list(zip(examples[::2], examples[1::2], strict=False))


class Examples:
    """Photographs to offer, with small pictures that are made once.

    Args:
        folder: with the photographs; None for none.
        assessor: reads them.

    Raises:
        MetaQAPError: for one that cannot be read.
    """

    def __init__(self, folder: Path | None, assessor: Assessor):
        self.all = find_examples(folder)
        self._thumbnails = {
            example.path: figures.thumbnail(assessor.read(str(example.path)).pixels, side=_SIDE)
            for example in self.all
        }

    def offer(self, choices: Sequence[tuple[Example, ...]], fields: list[gr.Image], *, elem_id: str) -> None:
        """Show a strip of buttons, each of which fills the fields with its photographs.

        Args:
            choices: for each button, one photograph for each field.
            fields: to fill.
            elem_id: of the strip.
        """
        if not choices:
            return
        shown = [
            [(self._thumbnails[example.path], example.title, example.label) for example in choice]
            for choice in choices
        ]
        strip = gr.HTML(figures.example_strip(shown), elem_id=elem_id, js_on_load=_PRESSED)

        def load_example(event: gr.EventData) -> Any:
            number = getattr(event, "example", None)
            if not isinstance(number, int) or not 0 <= number < len(choices):
                raise gr.Error("There is no such example.", print_exception=False)
            # Into the folder of uploads, which is all that a field reads. Old files there are removed now and then.
            copies = [save_file_to_cache(example.path, get_upload_folder()) for example in choices[number]]
            return copies if len(copies) > 1 else copies[0]

        strip.click(load_example, None, fields, api_name="load_example", api_visibility="private", queue=False)


__all__ = ["Example", "Examples", "find_examples", "originals_of", "pairs_of"]
