"""Train one base learner: `accelerate launch -m modeling_metaqap.training --help`."""

import json
import os

from ..errors import SENTENCES, exit_with_sentence
from ..memory import keep_freed_memory
from .arguments import option_names, parse_arguments
from .recipe import Recipe
from .settings import RunSettings


def train_and_report(recipe: Recipe, settings: RunSettings) -> None:
    """Train, and print a summary as one line of JSON."""
    # Only now, so that --help and a wrong option are answered at once.
    from ..data.silencing import silence_decoders
    from .loop import train

    silence_decoders()
    summary = train(recipe, settings)
    if summary is not None:
        print(json.dumps(summary))


def main() -> None:
    """Train as the command line says."""
    keep_freed_memory()
    by_command = SENTENCES in os.environ  # `metaqap train` has started this process; its user types dashes
    typed = {name: f"--{name.replace('_', '-') if by_command else name}" for name in option_names()}
    with exit_with_sentence("metaqap" if by_command else "train", options=typed):
        train_and_report(*parse_arguments(description=__doc__))


if __name__ == "__main__":
    main()
