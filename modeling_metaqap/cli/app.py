"""The `metaqap` command, put together from its commands.

Each command imports what it works with when it is called, so that `--help`, `--version` and a mistyped option answer
at once, without PyTorch.
"""

import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import MetaQAPError, exit_with_sentence
from ..memory import keep_freed_memory
from .adapt import adapt
from .distort import distort
from .evaluate import evaluate
from .export import export
from .info import info
from .score import score
from .serve import serve
from .suggest import suggest

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(value: bool) -> None:
    if value:
        print(f"metaqap {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """No-reference image quality: how good does a photograph look, without another one to compare it with?"""


for command in (score, distort, evaluate, adapt, suggest, info, serve, export):
    app.command()(command)


def main() -> None:
    """Entry point: a user's mistake is one sentence on standard error and status 2, never a traceback."""
    keep_freed_memory()
    with exit_with_sentence("metaqap"):
        try:
            status = app(sys.argv[1:] or ["--help"], prog_name="metaqap", standalone_mode=False)
        except typer.TyperException as error:
            raise MetaQAPError(error.format_message()) from error
        if status == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    sys.exit(status or 0)
