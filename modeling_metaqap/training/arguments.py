"""The command line of a training run, in accelerate's style."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ..data.rating_options import OPTION_NAMES, RatingOptions, add_rating_options
from ..errors import MetaQAPError
from .recipe import STAGES, Recipe
from .settings import RunSettings

#: Numbers that must not be smaller.
_LEAST = {
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "checkpointing_steps": 0,
    "num_workers": 0,
    "max_bad_images": 0,
}
#: Options that stand for a setting of the recipe.
_OF_RECIPE = ("stage", "dataset", *OPTION_NAMES, "seed", "epochs", "hold_out")


def parse_arguments(
    arguments: Sequence[str] | None = None, *, description: str | None = None
) -> tuple[Recipe, RunSettings]:
    """Read the recipe and the settings of a run from the command line; a wrong option ends the process.

    Args:
        arguments: words of the command line; `sys.argv` by default.
        description: what `--help` begins with.

    Raises:
        MetaQAPError: if the recipe or a number cannot be used.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser.add_argument)
    return recipe_and_settings(vars(parser.parse_args(arguments)))


def recipe_and_settings(options: dict[str, Any]) -> tuple[Recipe, RunSettings]:
    """The recipe and the settings of a run.

    Args:
        options: by their names, as `add_options` adds them.

    Raises:
        MetaQAPError: if the recipe or a number cannot be used.
    """
    for name, least in _LEAST.items():
        if options[name] is not None and options[name] < least:
            raise MetaQAPError(f"`{name}` must be at least {least}, got {options[name]}.")
    RatingOptions.of(options)  # names a wrong range as it was typed, not as a setting of the recipe
    of_recipe = {name: options.pop(name) for name in _OF_RECIPE}
    recipe = Recipe.load(options.pop("recipe"), **of_recipe)
    if options["data_dir"] is not None:
        folders = [None if folder == "-" else folder for folder in options["data_dir"]]
        options["data_dir"] = folders[0] if len(folders) == 1 else folders
    return recipe, RunSettings(**options)


def option_names() -> list[str]:
    """Names of all options, as they are in Python."""
    names: list[str] = []
    add_options(lambda name, **_: names.append(name.removeprefix("--")))
    return names


def add_options(add: Callable[..., Any]) -> None:
    """Add the options of a run with `parser.add_argument`, or what takes its place."""
    add("--stage", choices=STAGES, help="what to learn; instead of the recipe's")
    add("--recipe", required=True, help="YAML file with every setting, or a name that `metaqap recipes` lists")
    add("--output_dir", required=True, help="the run folder")
    add("--init", help="start from this trained base learner instead of ImageNet weights")
    add("--teacher", help="learn from the scores of this checkpoint too, as `teacher_weight` in the recipe says")
    add("--dataset", metavar="NAME", help="instead of the recipe's; folder for your own photographs and ratings")
    add(
        "--data_dir",
        nargs="+",
        help="unpacked data set; downloaded where the publisher allows it if left out; for several data sets one "
        "folder for each, - to download it, or one for all",
    )
    add_rating_options(add)
    add("--distorted_dir", help="distorted images to learn from, made by `metaqap distort-set`")
    add("--distorted_validation_dir", help="likewise, of other photographs, to validate on")
    add("--cache_dir", help="where the prepared data set is kept")
    add("--seed", type=int, help="instead of the recipe's")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--hold_out", help="instead of the recipe's, such as 'fold 1 of 5'")
    add(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        help="number format of the networks' computation; default what the settings of accelerate say",
    )
    add("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    add(
        "--num_workers",
        type=int,
        help="processes that read images; default 2, or 0 where a processor of few cores trains",
    )
    add(
        "--max_bad_images",
        type=int,
        default=RunSettings.max_bad_images,
        help="look at all images first, and leave out so many at most that cannot be read",
    )
    add(
        "--gradient_accumulation_steps",
        type=int,
        default=RunSettings.gradient_accumulation_steps,
        help="compute each step in so many chunks to save memory",
    )
    add("--with_tracking", choices=["tensorboard", "trackio"], help="also log to this, on this machine")
    add(
        "--logging_steps",
        type=int,
        default=RunSettings.logging_steps,
        help="steps between two rows of the log (%(default)s)",
    )
    add(
        "--checkpointing_steps",
        type=int,
        default=RunSettings.checkpointing_steps,
        help="0: only at the end of each epoch",
    )
    add("--resume_from_checkpoint", metavar="latest|STATE", help="go on from a state of this run")


__all__ = ["add_options", "option_names", "parse_arguments", "recipe_and_settings"]
