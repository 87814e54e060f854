"""Whole training runs as processes of their own, for scripts that compare several."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MetaQAPError
from .recipe import Recipe
from .run_folder import RunFolder

#: In a run's folder, marks that it went to its end.
_DONE = "done"


def launch_command(options: Mapping[str, Any], *, launch: Sequence[str] = ()) -> list[str]:
    """The command line that starts a training with accelerate's launcher.

    Args:
        options: of the training, without dashes: those that are None or False are left out, True stands for a flag
            alone, and a list for several words.
        launch: options of `accelerate launch`.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "modeling_metaqap.training"]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words = [] if value is True else value if isinstance(value, (list, tuple)) else [value]
        command += [f"--{name}", *map(str, words)]
    return command


def finish_run(recipe: Recipe, folder: Path, *, launch: Sequence[str] = (), options: Mapping[str, Any]) -> RunFolder:
    """Train by a recipe, go on with a run that was stopped, or do nothing for one of the same recipe that is done.

    Args:
        recipe: of the run.
        folder: of the run; what it prints goes to a file of the same name ending in .log.
        launch: options of `accelerate launch`.
        options: of the training, see `launch_command`.

    Raises:
        MetaQAPError: if the run fails, with the error that it printed, or if the folder holds a run of another recipe
            or with another `init`.
    """
    run = RunFolder(folder)
    if (folder / _DONE).exists():
        run.check(recipe, init=options.get("init"), teacher=options.get("teacher"))
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which a run that has not begun must not have.
        recipe_file, log_file = folder.with_name(f"{folder.name}.yaml"), folder.with_name(f"{folder.name}.log")
        recipe.save(recipe_file)
        own = {"stage": recipe.stage, "recipe": recipe_file, "output_dir": folder, "resume_from_checkpoint": "latest"}
        command = launch_command(own | dict(options), launch=launch)
        with log_file.open("w") as log:
            finished = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if finished.returncode:
            lines = log_file.read_text().strip().splitlines()
            # What the launcher prints after it is only that there was an error.
            reason = next((line for line in reversed(lines) if line.startswith("train: ")), "".join(lines[-1:]))
            raise MetaQAPError(f"the run {folder.name} failed: {reason.removeprefix('train: ')} (see {log_file})")
        (folder / _DONE).touch()
    return run


__all__ = ["finish_run", "launch_command"]
