"""Commands that are scripts too: one parser, with `--output-dir` in `metaqap` and `--output_dir` in `scripts/`.

Imports nothing heavy, and so do the modules with the programs: what they work with is imported when they run.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
from typer.main import get_command

from ..errors import MetaQAPError, exit_with_sentence
from ..memory import keep_freed_memory

#: `parser.add_argument`, or what takes its place.
AddOption = Callable[..., Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MetaQAPError(f"{message}.")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A step of the method, as a command of `metaqap` and as a script.

    Attributes:
        command: its name after `metaqap`.
        script: its name in `scripts/`, without `.py`.
        description: what it does; the first sentence is its summary. Examples are written as for `metaqap`.
        options: adds its options with a function like `parser.add_argument`, with underscores in their names.
        run: does the work.
    """

    command: str
    script: str
    description: str
    options: Callable[[AddOption], None]
    run: Callable[[argparse.Namespace], None]

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return re.split(r"(?<=[.:])\s", " ".join(self.description.split()), maxsplit=1)[0].rstrip(":")

    def parser(self, *, as_script: bool) -> argparse.ArgumentParser:
        """The parser of the script or of the command."""
        description = self.description.strip()
        if as_script:
            description = _of_scripts(description)
        parser = _Parser(
            prog=f"{self.script}.py" if as_script else f"metaqap {self.command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

        def add(*names: str, **settings: Any) -> None:
            if not as_script:
                names = tuple(name.replace("_", "-") if name.startswith("--") else name for name in names)
            parser.add_argument(*names, **settings)

        self.options(add)
        return parser

    def completions(self, words: Sequence[str], beginning: str) -> dict[str, str]:
        """What the word after some words of the command may be, with a help text each.

        Args:
            words: of the command line, after the command.
            beginning: of the next word. Options are among the answers only if it begins like one, so that a shell
                offers files otherwise.
        """
        parser = self.parser(as_script=False)
        options = {name: action for action in parser._actions for name in action.option_strings}
        asked = options.get(words[-1]) if words else None
        if asked is not None and asked.nargs != 0:
            found = dict.fromkeys(map(str, asked.choices or ()), "")
        elif beginning.startswith("-"):
            formatter = parser._get_formatter()
            found = {name: formatter._expand_help(action) if action.help else "" for name, action in options.items()}
        else:
            found = {}
        return {word: text for word, text in found.items() if word.startswith(beginning)}

    def call(self, arguments: Sequence[str]) -> None:
        """Run as a command of `metaqap`; mistakes name its options as they are typed.

        Raises:
            MetaQAPError: for a wrong call.
        """
        parser = self.parser(as_script=False)
        with exit_with_sentence("metaqap", options=options_of(parser)):
            self.run(parser.parse_args(arguments))

    def main(self, arguments: Sequence[str] | None = None, *, defaults: Mapping[str, Any] | None = None) -> None:
        """Run as a script.

        Args:
            arguments: words of the command line; `sys.argv` by default.
            defaults: other values for options that are left out.
        """
        parser = self.parser(as_script=True)
        parser.set_defaults(**(defaults or {}))
        keep_freed_memory()
        with exit_with_sentence(self.script, options=options_of(parser)):
            self.run(parser.parse_args(sys.argv[1:] if arguments is None else arguments))


def run_as_script(
    command: Callable[..., None],
    *,
    script: str,
    arguments: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Run a command of `metaqap` that typer reads the options of as a script, with underscores in their names.

    Args:
        command: the function that typer makes a command of.
        script: its name in `scripts/`, without `.py`.
        arguments: words of the command line; `sys.argv` by default.
        defaults: other values for options that are left out.
    """
    app = typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(command)
    parser = get_command(app)
    for option in parser.params:
        option.opts = [_with_underscores(name) for name in option.opts]
        option.secondary_opts = [_with_underscores(name) for name in option.secondary_opts]
        option.default = (defaults or {}).get(option.name or "", option.default)
    keep_freed_memory()
    run_command(parser, sys.argv[1:] if arguments is None else arguments, name=f"{script}.py", program=script)


def run_command(command: Any, arguments: Sequence[str], *, name: str, program: str, chosen: Any = None) -> NoReturn:
    """Run a command of typer and end the process; a user's mistake is one sentence and status 2, never a traceback.

    Args:
        command: of typer, with sub-commands or without.
        arguments: words of the command line.
        name: of the program in its help.
        program: what the sentence begins with.
        chosen: the sub-command of these arguments, if there is one.
    """
    parameters = getattr(chosen if chosen is not None else command, "params", [])
    options = {one.name: max(one.opts, key=len) for one in parameters if one.opts[0].startswith("-")}
    with exit_with_sentence(program, options=options):
        try:
            status = command(list(arguments), prog_name=name, standalone_mode=False)
        except typer.TyperException as error:
            raise MetaQAPError(error.format_message()) from error
        if status == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    sys.exit(status or 0)


def _with_underscores(option: str) -> str:
    return "--" + option[2:].replace("-", "_") if option.startswith("--") else option


#: Launchers and names of the scripts in examples, by command.
_SCRIPTS = {
    "benchmark": "python scripts/benchmark.py",
    "distort-set": "python scripts/distort.py",
    "evaluate-set": "python scripts/evaluate.py",
    "fit": "python scripts/fit_meta_learner.py",
    "prepare": "python scripts/prepare_dataset.py",
    "push": "python scripts/push_to_hub.py",
    "select-pristine": "python scripts/select_pristine.py",
    "train": "accelerate launch scripts/train.py",
}


def _of_scripts(description: str) -> str:
    """A description with the names of scripts and their way to write options."""
    for command, script in _SCRIPTS.items():
        description = re.sub(rf"\bmetaqap {command}(?![\w-])", script, description)
    return re.sub(r"--[a-z][a-z-]*", lambda option: "--" + option[0][2:].replace("-", "_"), description)


def options_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """How each option is typed, by its name in Python."""
    return {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}


__all__ = ["AddOption", "Program", "options_of", "run_as_script", "run_command"]
