"""The `metaqap` command, put together from its commands.

Each command imports what it works with when it is called, so that `--help`, `--version` and a mistyped option answer
at once, without PyTorch.
"""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from .. import __version__
from ..memory import keep_freed_memory
from . import benchmark, distort_set, evaluate_set, fit, prepare, push, select_pristine, train
from .adapt import adapt
from .distort import distort
from .evaluate import evaluate
from .export import export
from .info import info
from .program import Program, run_command
from .recipes import recipes
from .report import report
from .score import score
from .serve import serve
from .suggest import suggest

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter
    from typer._click.shell_completion import CompletionItem


class _Commands(TyperGroup):
    """Commands in the order in which they were added, each with its whole summary."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: "HelpFormatter") -> None:
        rows = [(name, _first_sentence(command.help or "")) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0].removesuffix(".")


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


def _add_program(program: Program) -> None:
    """Add a command that reads its own options."""

    def call(ctx: typer.Context) -> None:
        program.call(ctx.args)

    class Command(TyperCommand):
        def shell_complete(self, ctx: "Context", incomplete: str) -> "list[CompletionItem]":
            from typer._click.shell_completion import CompletionItem

            found = program.completions(ctx.args, incomplete)
            return [CompletionItem(word, help=text) for word, text in found.items()]

    as_they_are = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
    add = app.command(
        program.command, cls=Command, help=program.summary, add_help_option=False, context_settings=as_they_are
    )
    add(call)


for command in (score, report, distort, evaluate, adapt, suggest, info, export, serve, recipes):
    app.command()(command)
for module in (prepare, select_pristine, distort_set, train, fit, evaluate_set, push, benchmark):
    _add_program(module.PROGRAM)


def main() -> None:
    """Entry point: a user's mistake is one sentence on standard error and status 2, never a traceback."""
    keep_freed_memory()
    arguments = sys.argv[1:] or ["--help"]
    command = get_command(app)
    chosen = command.commands.get(arguments[0])  # type: ignore[attr-defined]
    run_command(command, arguments, name="metaqap", program="metaqap", chosen=chosen)
