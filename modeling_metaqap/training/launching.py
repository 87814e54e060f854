"""Training runs as processes of their own."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SENTENCES, MetaQAPError, sentence, sentences_in
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
    return [sys.executable, "-m", "accelerate.commands.launch", *_launch_arguments(options, launch)]


def _launch_arguments(options: Mapping[str, Any], launch: Sequence[str]) -> list[str]:
    command = [*launch, "-m", "modeling_metaqap.training"]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words = [] if value is True else value if isinstance(value, (list, tuple)) else [value]
        command += [f"--{name}", *map(str, words)]
    return command


def run_processes(options: Mapping[str, Any], *, launch: Sequence[str] = ()) -> int:
    """Train in processes that accelerate's launcher starts from this one, until they end.

    What goes wrong in them is told once, when all have ended and as `metaqap train` would; what the launcher adds to
    that, tracebacks of its own among it, is not shown.

    Args:
        options, launch: see `launch_command`.

    Returns:
        The exit status: 0, or that of the process that failed first.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        MetaQAPError: if the processes cannot be started, or one was killed.
    """
    from accelerate.commands.launch import launch_command as start
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args(_launch_arguments(options, launch))
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="metaqap-") as folder:
        os.environ[SENTENCES] = folder
        try:
            start(arguments)
            return 0
        except ChildFailedError as error:
            # Those that end after the first one are ended by the launcher, and some by their libraries.
            codes = [one.exitcode for one in sorted(error.failures.values(), key=lambda one: one.timestamp)]
            status = next((code for code in codes if code > 0), codes[0])
        except subprocess.CalledProcessError as error:  # of a process that the launcher started alone
            status = error.returncode
        except SignalException as error:
            status = -error.sigval
        except (ImportError, OSError, ValueError) as error:  # what accelerate says of settings that it cannot use
            raise MetaQAPError(f"Accelerate cannot start the processes: {sentence(error)}") from error
        finally:
            del os.environ[SENTENCES]
            logging.disable(logging.NOTSET)
        sentences = sentences_in(Path(folder))
    if status == -signal.SIGINT and not sentences:
        raise KeyboardInterrupt
    if status < 0 and not sentences:
        raise MetaQAPError(
            f"A process of the run was ended by {signal.Signals(-status).name}; start the run again, with "
            "`resume_from_checkpoint` latest to go on."
        )
    # Only now, so that nothing of a process that ends later, such as its bar of progress, comes after them.
    for one in sentences:
        print(one, file=sys.stderr)
    return status if status >= 0 else 128 - status


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


__all__ = ["finish_run", "launch_command", "run_processes"]
