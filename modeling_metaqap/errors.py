"""What goes wrong by a user's mistake, and how every command and script says it."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class MetaQAPError(ValueError):
    """A mistake that the user can mend: the message is one sentence and says how."""


class DataError(MetaQAPError):
    """Files of a data set are missing, damaged or not as published, or its images do not fit together."""


class TestSplitError(DataError):
    """Training or model selection asked for images that results are published on."""

    __test__ = False  # not a test case, though pytest would think so by the name


def sentence(error: Exception) -> str:
    """What to tell a person about an error: its message, or for a file the reason and the name."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
    # Libraries answer in several lines, such as the Hub's client.
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def exit_with_sentence(program: str) -> Iterator[None]:
    """End the process with one sentence on standard error, not a traceback, when the user made a mistake.

    The exit status is 2, and 130 after Ctrl-C. Any other error is a defect of this package: it keeps its traceback and
    has the status 70 (`EX_SOFTWARE` of sysexits.h), so that nobody takes it for an answer such as 1.

    Args:
        program: name of the command or script, which begins the sentence.
    """
    try:
        yield
    except (MetaQAPError, OSError) as error:
        print(f"{program}: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(70)


__all__ = ["DataError", "MetaQAPError", "TestSplitError", "exit_with_sentence", "sentence"]
