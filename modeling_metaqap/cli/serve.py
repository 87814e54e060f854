"""`metaqap serve`: the demo in the browser, and as an API."""

from pathlib import Path
from typing import Annotated

import typer

from .options import SHIPPED, Checkpoint, Device, needs_extra


def serve(
    checkpoint: Checkpoint = SHIPPED,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860.")] = None,
    device: Device = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests that are computed at once; others wait.")] = 2,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of photographs to offer as examples.", show_default=False)
    ] = None,
) -> None:
    """Serve the demo: score, compare, distort and batches in the browser, and the same functions as an API."""
    with needs_extra("space"):
        from ..demo import serve as serve_demo
    from .printing import silence_libraries

    silence_libraries()
    serve_demo(checkpoint, host=host, port=port, device=device, concurrency=concurrency, examples=examples)
