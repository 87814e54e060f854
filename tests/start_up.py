"""What a fresh process imports, and how long that takes."""

import os
import re
import subprocess
import sys
from subprocess import CompletedProcess

from repository import ROOT


def fresh_python(*arguments: str) -> CompletedProcess[str]:
    """Run this Python in a new process that imports the package which is tested."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def imported_packages(*arguments: str) -> tuple[CompletedProcess[str], set[str]]:
    """Run Python with these arguments; the process, and the top-level packages that it imported."""
    process = fresh_python("-X", "importtime", *arguments)
    modules = re.findall(r"^import time: .*\| +([\w.]+)$", process.stderr, flags=re.MULTILINE)
    return process, {module.split(".")[0] for module in modules}
