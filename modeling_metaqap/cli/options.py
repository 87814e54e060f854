"""Options that several commands have, and what several of them check first. Nothing here imports anything heavy."""

from pathlib import Path
from typing import Annotated

import typer

from .. import DEFAULT_CHECKPOINT
from ..data.rating_options import HELP
from ..errors import MetaQAPError


def _sentence(option: str) -> str:
    return f"{HELP[option][0].upper()}{HELP[option][1:]}."


Checkpoint = Annotated[str, typer.Option(help="Folder or Hub id of a MetaQAP checkpoint.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default the GPU if there is one.")]
CacheDir = Annotated[
    Path | None, typer.Option(help="Folder to keep features in; default the user's cache.", show_default=False)
]
BatchSize = Annotated[int, typer.Option(min=1, help="Crops in one pass through the model.")]

# Of a person's own ratings; the programs have the same by `add_rating_options`.
Csv = Annotated[Path | None, typer.Option(help=_sentence("csv"), show_default=False)]
ImageColumn = Annotated[str | None, typer.Option(help=_sentence("image_column"), show_default=False)]
MosColumn = Annotated[str | None, typer.Option(help=_sentence("mos_column"), show_default=False)]
MosRange = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help=_sentence("mos_range"), show_default=False),
]
LowerIsBetter = Annotated[bool, typer.Option("--lower-is-better", help=_sentence("lower_is_better"))]

#: The checkpoint that ships with the package.
SHIPPED = str(DEFAULT_CHECKPOINT)


def refuse_to_overwrite(output: Path, photograph: Path) -> None:
    """Raise `MetaQAPError` if what is to be written would replace the photograph that it is made of."""
    if output.exists() and photograph.exists() and output.samefile(photograph):
        raise MetaQAPError(f"{output} is the photograph itself; write to another file.")


__all__ = [
    "SHIPPED",
    "BatchSize",
    "CacheDir",
    "Checkpoint",
    "Csv",
    "Device",
    "ImageColumn",
    "LowerIsBetter",
    "MosColumn",
    "MosRange",
    "refuse_to_overwrite",
]
