"""The house: what lies where, and who may import whom."""

import ast
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.version import Version
from repository import MODEL_FILES, ROOT

PACKAGE = ROOT / "modeling_metaqap"

ROOMS = {"data", "training", "fusion", "inference", "evaluation", "publishing", "demo", "cli"}


def test_the_top_of_the_package_is_the_model_and_a_room_for_each_task():
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    bottom = {
        *("errors.py", "installing.py", "lineage.py", "devices.py", "memory.py", "folding.py"),
        "checkpoint_places.py",
        "checkpoint_reading.py",
    }
    assert there == ROOMS | set(MODEL_FILES) | bottom | {"__init__.py", "__main__.py", "py.typed", "checkpoints"}


def test_the_lowest_versions_that_are_tested_are_those_that_are_admitted():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    wanted = "\n".join([setup["options"]["install_requires"], extras["train"], extras["space"]])
    lowest = dict(re.findall(r"^([\w-]+)>=([\d.]+)", wanted, flags=re.MULTILINE))
    assert {"torch", "transformers", "datasets", "gradio"} <= set(lowest)
    assert {name: Version(version) for name, version in lowest.items()} == pins("constraints-lowest.txt")
    newest = pins("constraints.txt")
    assert {name for name, version in lowest.items() if newest[name] < Version(version)} == set()


def pins(file: str) -> dict[str, Version]:
    """The versions that a file of constraints names."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(), flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): Version(version) for name, version in found}


def copy_of_the_package(folder: Path) -> Path:
    shutil.copy(ROOT / "setup.cfg", folder)
    skip = shutil.ignore_patterns("__pycache__", "checkpoints")
    return Path(shutil.copytree(PACKAGE, folder / "modeling_metaqap", ignore=skip))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_rooms_import_from_below_only(tmp_path):
    copy_of_the_package(tmp_path)
    result = lint_imports(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/atomic.py", "from ..training import recipe"),
        ("training/step.py", "from ..inference import scorer"),
        ("fusion/stepwise.py", "from ..evaluation import tables"),
        ("losses_metaqap.py", "from . import lineage"),
        ("evaluation/metrics.py", "from ..inference import records"),
    ],
)
def test_an_import_from_above_is_found(tmp_path, file, line):
    changed = copy_of_the_package(tmp_path) / file
    changed.write_text(f"{changed.read_text()}\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "0 broken" not in result.stdout


def test_every_class_of_errors_is_one_of_ours():
    """A user's mistake is a `MetaQAPError`, wherever it is found."""
    others = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for folder in ("modeling_metaqap", "scripts", "studies")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and path.name != "errors.py"
    ]
    assert others == []
