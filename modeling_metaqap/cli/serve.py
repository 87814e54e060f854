"""`metaqap serve`: the demo in the browser, and as an API."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import MetaQAPError
from .options import SHIPPED, Checkpoint, Device


def serve(
    checkpoint: Checkpoint = SHIPPED,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860.")] = None,
    device: Device = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests that are computed at once; others wait.")] = 2,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs to offer as examples; default those that ship with it.", show_default=False
        ),
    ] = None,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="Offer no examples.")] = False,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes of one file.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Pixels of one photograph.")] = None,
    max_files: Annotated[int | None, typer.Option(min=1, help="Files of one batch.")] = None,
    max_seconds: Annotated[int | None, typer.Option(min=1, help="Seconds for one batch.")] = None,
    max_ratings: Annotated[
        int | None, typer.Option(min=0, help="Photographs that are adapted to; 0 leaves the Adapt tab out.")
    ] = None,
    max_unpacked: Annotated[int | None, typer.Option(min=1, help="Bytes of all files to adapt to, unpacked.")] = None,
    max_adapt_seconds: Annotated[
        int | None, typer.Option(min=1, help="Seconds to read the photographs to adapt to.")
    ] = None,
    max_waiting: Annotated[int | None, typer.Option(min=1, help="Requests that wait in line.")] = None,
    client_waiting: Annotated[int | None, typer.Option(min=1, help="Requests of one client in line.")] = None,
    client_rate: Annotated[int | None, typer.Option(min=1, help="Requests of one client in a minute.")] = None,
    client_upload: Annotated[int | None, typer.Option(min=1, help="Bytes uploaded by one client in an hour.")] = None,
    client_header: Annotated[
        str | None, typer.Option(help="Header in which a proxy before the server names its client.")
    ] = None,
) -> None:
    """Serve the demo: score, compare, distort and batches in the browser and as an API, and adapting to own ratings.

    Limits can also be set by variables of the environment, such as METAQAP_MAX_PIXELS.
    """
    from ..demo import Limits
    from ..demo import serve as serve_demo
    from ..inference.fastest import PHOTOGRAPHS
    from .printing import silence_libraries

    if examples is not None and no_examples:
        raise MetaQAPError("Choose one of `examples` and `no_examples`.")
    silence_libraries()
    limits = Limits.from_environment(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_files=max_files,
        max_seconds=max_seconds,
        max_ratings=max_ratings,
        max_unpacked=max_unpacked,
        max_adapt_seconds=max_adapt_seconds,
        max_waiting=max_waiting,
        client_waiting=client_waiting,
        client_rate=client_rate,
        client_upload=client_upload,
        client_header=client_header,
    )
    serve_demo(
        checkpoint,
        host=host,
        port=port,
        device=device,
        concurrency=concurrency,
        examples=None if no_examples else examples or PHOTOGRAPHS,
        limits=limits,
    )
