"""`metaqap export`: a checkpoint as ONNX files."""

from pathlib import Path
from typing import Annotated

import typer

from ..data.image_files import find_images
from ..inference.choices import ONNX_FILES
from .options import SHIPPED, Checkpoint


def export(
    checkpoint: Checkpoint = SHIPPED,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder to write; default the checkpoint's own.")
    ] = None,
    photos: Annotated[
        list[str] | None, typer.Option(help="Images or folders to compare with PyTorch on; can be repeated.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write an int8 file, calibrated on the photos.")] = False,
) -> None:
    """Write the checkpoint as ONNX for `metaqap score --engine onnx`, and say how far it is from PyTorch."""
    photographs = find_images(photos or [])

    from rich.table import Table

    from ..inference.onnx_export import export_onnx
    from .printing import console, errors, silence_libraries

    silence_libraries()
    result = export_onnx(checkpoint, output_dir, photographs=photographs, int8=int8)
    table = Table(title=f"Exported to {result.folder}", title_justify="left")
    table.add_column("file")
    for heading in ("MB", "images compared", "largest difference", "mean difference"):
        table.add_column(heading, justify="right")
    for engine, agreement in result.agreement.items():
        size = (result.folder / ONNX_FILES[engine]).stat().st_size / 1e6
        differences = (f"{agreement.largest:.1e}", f"{agreement.mean:.1e}")
        table.add_row(ONNX_FILES[engine], f"{size:.1f}", str(agreement.n), *differences)
    console.print(table)
    errors.print("Differences are in units of quality, to PyTorch in float32.")
