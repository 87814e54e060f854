"""Options that several commands have, and what several of them check first. Nothing here imports anything heavy."""

from pathlib import Path
from typing import Annotated

import typer

from .. import DEFAULT_CHECKPOINT
from ..data.rating_options import HELP
from ..errors import MetaQAPError
from ..inference.choices import Dtype, Engine


def _sentence(option: str) -> str:
    return f"{HELP[option][0].upper()}{HELP[option][1:]}."


Checkpoint = Annotated[
    str,
    typer.Option(
        help="Folder or Hub id of a MetaQAP checkpoint, or nano for the small one that ships.", show_default=False
    ),
]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default the GPU if there is one.")]
CacheDir = Annotated[
    Path | None, typer.Option(help="Folder to keep features in; default the user's cache.", show_default=False)
]
BatchSize = Annotated[int, typer.Option(min=1, help="Crops in one pass through the model.")]

Scale = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH", help="Report scores on this scale, such as 1 5, instead of 0 to 1.", show_default=False
    ),
]
RatersScale = Annotated[
    bool,
    typer.Option(
        "--raters-scale", help="Report scores on the scale of the ratings that the checkpoint was fitted to."
    ),
]

# Of a person's own ratings; the programs have the same by `add_rating_options`.
Csv = Annotated[Path | None, typer.Option(help=_sentence("csv"), show_default=False)]
ImageColumn = Annotated[str | None, typer.Option(help=_sentence("image_column"), show_default=False)]
MosColumn = Annotated[str | None, typer.Option(help=_sentence("mos_column"), show_default=False)]
MosRange = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help=_sentence("mos_range"), show_default=False),
]
LowerIsBetter = Annotated[bool, typer.Option("--lower-is-better", help=_sentence("lower_is_better"))]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --output if there is such a file.")]

# Of commands that score photographs wherever they lie.
Places = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, glob patterns, web addresses, paths of fsspec such as s3://bucket/photos, .zip, "
        ".tar and .tar.gz archives, Parquet and Arrow files, data sets such as hf://datasets/me/photos, @list.txt "
        "for a list of these, or - for a list on standard input."
    ),
]
EngineChoice = Annotated[
    Engine,
    typer.Option(
        help="What runs the model. auto is ONNX Runtime where it is installed, and makes its file once, in your "
        "cache; onnx and onnx-int8 take the files of `metaqap export`."
    ),
]
NumberFormat = Annotated[
    Dtype,
    typer.Option(help="Number format of the computation; auto is bfloat16 where that is faster."),
]
Fast = Annotated[
    bool,
    typer.Option("--fast", help="Take the fastest engine and format within 0.01 of PyTorch, found at first use."),
]
Learners = Annotated[
    int | None, typer.Option(help="Take so many of the base learners: faster, less accurate. Default all.")
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.")]
TableColumn = Annotated[str, typer.Option(help="Column of Parquet and Arrow files that holds the images.")]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="Web addresses may lead to this machine and to private networks.")
]
Null = Annotated[
    bool, typer.Option("--null", "-0", help="The list on standard input is separated by NUL bytes, not lines.")
]
Isolate = Annotated[
    bool | None,
    typer.Option(
        "--isolate/--no-isolate",
        help="Decode in processes of their own, within limits of time and memory, so that a file that makes a "
        "decoder crash is an error of this file only. Default for 1,000 photographs and more on the CPU.",
        show_default=False,
    ),
]

#: The checkpoint that ships with the package.
SHIPPED = str(DEFAULT_CHECKPOINT)


def chosen_scale(scale: tuple[float, float] | None, raters_scale: bool) -> tuple[float, float] | str | None:
    """What `Scorer` is to take as its scale.

    Raises:
        MetaQAPError: if two are asked for.
    """
    if scale is not None and raters_scale:
        raise MetaQAPError("Choose one of `scale` and `raters_scale`.")
    return "raters" if raters_scale else scale


def refuse_to_overwrite(output: Path, photograph: Path) -> None:
    """Raise `MetaQAPError` if what is to be written would replace the photograph that it is made of."""
    if output.exists() and photograph.exists() and output.samefile(photograph):
        raise MetaQAPError(f"{output} is the photograph itself; write to another file.")


__all__ = [
    "SHIPPED",
    "AllowPrivate",
    "BatchSize",
    "CacheDir",
    "Checkpoint",
    "Csv",
    "Device",
    "EngineChoice",
    "Fast",
    "ImageColumn",
    "Isolate",
    "Learners",
    "LowerIsBetter",
    "MosColumn",
    "MosRange",
    "Null",
    "NumberFormat",
    "Overwrite",
    "Places",
    "Recursive",
    "TableColumn",
    "RatersScale",
    "Scale",
    "chosen_scale",
    "refuse_to_overwrite",
]
