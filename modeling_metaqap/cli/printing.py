"""Where commands print: results on standard output, everything else on standard error."""

import sys
import warnings

from rich.console import Console
from transformers.utils import logging as transformers_logging

from ..inference.decoding import silence_size_warning

console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
errors = Console(stderr=True, highlight=False)


def silence_libraries() -> None:
    """Keep off the terminal what libraries say of loading weights and of odd image files."""
    silence_size_warning()
    # Such as "Corrupt EXIF data": Pillow's words for what has no say in a score.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


__all__ = ["console", "errors", "silence_libraries"]
