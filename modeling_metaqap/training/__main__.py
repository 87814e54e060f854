"""Train one base learner: `accelerate launch -m modeling_metaqap.training --help`."""

import json

from ..errors import exit_with_sentence
from ..memory import keep_freed_memory
from .arguments import parse_arguments


def main(description: str | None = __doc__) -> None:
    """Train as the command line says, and print a summary as one line of JSON.

    Args:
        description: what `--help` begins with.
    """
    keep_freed_memory()
    with exit_with_sentence("train"):
        recipe, settings = parse_arguments(description=description)
        # Only now, so that --help and a wrong option are answered at once.
        from .loop import train

        summary = train(recipe, settings)
        if summary is not None:
            print(json.dumps(summary))


if __name__ == "__main__":
    main()
