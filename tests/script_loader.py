"""Imports and calls programs that lie in no package, such as those in scripts/."""

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from unittest import mock

from repository import SCRIPTS


def load_script(name: str) -> ModuleType:
    """Import scripts/`name`.py without running it."""
    return load_program(SCRIPTS / f"{name}.py")


def load_program(path: Path) -> ModuleType:
    """Import a program that lies in no package, without running it."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def exit_status(main: Callable[[list[str]], None], *arguments: object) -> int:
    """Call a program's `main` with these arguments: 0, or the status that it exits with."""
    try:
        main([*map(str, arguments)])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def call_script(name: str, *arguments: object) -> CompletedProcess[str]:
    """Run scripts/`name`.py in this process, on one thread, as `python scripts/name.py arguments` would.

    Spares a test the many seconds in which a new process imports torch and its friends. An exception that the program
    does not handle is the test's.
    """
    import torch
    from accelerate.state import AcceleratorState, GradientState

    command = [f"{name}.py", *map(str, arguments)]
    printed, told, status, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums come out as in a process with OMP_NUM_THREADS=1
    try:
        with mock.patch.object(sys, "argv", command), contextlib.redirect_stdout(printed):
            with contextlib.redirect_stderr(told):
                status = load_script(name).main() or 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        torch.set_num_threads(threads)
        # These outlive an Accelerator, and the next one would have to agree with them.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return CompletedProcess(command, status, printed.getvalue(), told.getvalue())
