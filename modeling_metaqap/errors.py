"""What goes wrong by a user's mistake, and how every command and script says it."""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

#: Environment variable with the folder in which the processes of one run leave what they have to say, so that a
#: mistake that each of them finds is told once, and last, by the program that has started them.
SENTENCES = "METAQAP_SENTENCES"

#: Exit status when nobody reads the output any more: what a shell shows for a program that SIGPIPE has ended.
CLOSED_OUTPUT = 141


class MetaQAPError(ValueError):
    """A mistake that the user can mend: the message is one sentence and says how."""


class DataError(MetaQAPError):
    """Files of a data set are missing, damaged or not as published, or its images do not fit together."""


class TestSplitError(DataError):
    """Training or model selection asked for images that results are published on."""

    __test__ = False  # not a test case, though pytest would think so by the name


def sentence(error: Exception) -> str:
    """What to tell a person about an error: its message, or for a file the reason and the name; all printable."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return reason if error.filename is None else printable(f"{os.fsdecode(error.filename)}: {reason}")
    # Libraries answer in several lines, such as the Hub's client.
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(text: str) -> str:
    r"""Text for people: what cannot be printed, such as the start of a colour, is shown as in `"\x1b"`."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def as_typed(message: str, options: Mapping[str, str]) -> str:
    """A message whose `names in Python` are written as the options that a person has typed.

    A name that is said to stand "in" a file stays as it is.

    Args:
        message: with names of arguments in backticks, such as "say with `mos_range`".
        options: how each of them is typed, such as `{"mos_range": "--mos-range"}`.
    """
    return re.sub(r"`(\w+)`(?! in )", lambda name: options.get(name[1], name[0]), message)


def _say(text: str) -> None:
    if folder := os.environ.get(SENTENCES):
        place = Path(folder, hashlib.sha256(text.encode()).hexdigest())
        with suppress(FileExistsError), place.open("x", encoding="utf-8") as file:
            file.write(text)
    else:
        print(text, file=sys.stderr)


def sentences_in(folder: Path) -> list[str]:
    """What the processes of one run have left to say in the folder that `SENTENCES` names, in the order of time."""
    places = sorted(folder.iterdir(), key=lambda place: place.stat().st_mtime_ns)
    return [place.read_text(encoding="utf-8") for place in places]


def _flush_output() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


@contextmanager
def _ending_when_nobody_reads() -> Iterator[None]:
    """End the process without a word when its output was closed, as `head` does when it has enough."""
    try:
        try:
            yield
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # of which rich and typer make the status 1
                raise end.__context__ from None
            _flush_output()
            raise
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        with suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_OUTPUT)


@contextmanager
def exit_with_sentence(program: str, *, options: Mapping[str, str] | None = None) -> Iterator[None]:
    """End the process with one sentence on standard error, not a traceback, when the user made a mistake.

    The exit status is 2, 130 after Ctrl-C, and `CLOSED_OUTPUT` when nobody reads the output any more, as below `head`;
    nothing is said then. A package that is not installed is such a mistake too, and the sentence says how to install
    it. Any other error is a defect of this package: it keeps its traceback and has the status 70 (`EX_SOFTWARE` of
    sysexits.h), so that nobody takes it for an answer such as 1.

    Args:
        program: name of the command or script, which begins the sentence.
        options: how its options are typed, see `as_typed`.
    """
    with _ending_when_nobody_reads(), _telling_mistakes(program, options or {}):
        yield
        _flush_output()


@contextmanager
def _telling_mistakes(program: str, options: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (MetaQAPError, OSError) as error:
        _say(f"{program}: {as_typed(sentence(error), options)}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            traceback.print_exc()
            sys.exit(70)
        from .installing import missing_package

        _say(f"{program}: {missing_package(error.name)}")
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        # What was kept, where the program says so.
        _say(f"{program}: interrupted{''.join(f'; {part}' for part in interruption.args)}.")
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(70)


__all__ = [
    "CLOSED_OUTPUT",
    "SENTENCES",
    "DataError",
    "MetaQAPError",
    "TestSplitError",
    "as_typed",
    "exit_with_sentence",
    "printable",
    "sentence",
    "sentences_in",
]
