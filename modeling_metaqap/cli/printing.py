"""Where commands print: results on standard output, everything else on standard error."""

import sys

from rich.console import Console
from transformers.utils import logging as transformers_logging

console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
errors = Console(stderr=True, highlight=False)


def silence_transformers() -> None:
    """Keep warnings and progress bars about loading weights off the terminal."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


__all__ = ["console", "errors", "silence_transformers"]
