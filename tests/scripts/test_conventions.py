"""What all programs have in common: how options are written, and how a mistake ends."""

import ast
import re

import pytest
from repository import ROOT, SCRIPTS

PROGRAMS = sorted([*SCRIPTS.glob("*.py"), *(ROOT / "studies").glob("*.py")])


def options_of(path):
    """The names of all options that a file adds to its parser."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    texts = (argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant))
    return [text for text in texts if isinstance(text, str) and re.fullmatch(r"--\w[\w-]*", text)]


@pytest.mark.parametrize(
    "path", [*PROGRAMS, ROOT / "modeling_metaqap/training/arguments.py"], ids=lambda path: path.name
)
def test_options_of_programs_are_written_with_underscores(path):
    assert [option for option in options_of(path) if not re.fullmatch("--[a-z0-9_]+", option)] == []


def test_options_of_the_command_are_written_with_hyphens():
    from typer.main import get_command

    from modeling_metaqap.cli.app import app

    names = [
        name for command in get_command(app).commands.values() for option in command.params for name in option.opts
    ]
    names = [name for name in names if name.startswith("-")]
    assert "--lower-is-better" in names
    assert [name for name in names if not re.fullmatch("--?[a-z0-9-]+", name)] == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_leave_the_way_they_end_to_one_function(path):
    text = path.read_text(encoding="utf-8")
    assert "sys.exit(2)" not in text and "return 2" not in text
    assert not re.search(r"^class \w*Error\b", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in PROGRAMS if path.parent == SCRIPTS], ids=lambda path: path.name)
def test_scripts_hold_arguments_and_printing_only(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150
