"""Training runs on a handful of tiny images, as users start them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml
from repository import ROOT

RECIPE = """
backbone: tf_efficientnet_lite0
dataset: folder
batch_size: 4
crop_size: 32
freeze_stages: 1
refit_head: true
epochs: 2
"""  # a test adds what it changes; YAML takes the last of two settings with one name

ACCELERATE = ROOT / "scripts" / "recipes" / "accelerate"


def run(*command: object, **environment: str) -> CompletedProcess[str]:
    # One thread: the processes of a test would fight for the cores, and sums come out the same each time.
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *map(str, command)], env=variables, capture_output=True, text=True)


def synthetic(distorted: Path) -> list[object]:
    """Options that name the distorted images."""
    return ["--distorted_dir", distorted / "train", "--distorted_validation_dir", distorted / "validation"]


def fsdp_environment() -> dict[str, str]:
    """What `accelerate launch` makes of the settings in fsdp.yaml."""
    settings = yaml.safe_load((ACCELERATE / "fsdp.yaml").read_text())["fsdp_config"]
    return {name.upper(): str(value) for name, value in settings.items()} | {"ACCELERATE_USE_FSDP": "true"}


def rows(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def losses(run_folder: Path) -> list[float]:
    return [row["loss"] for row in rows(run_folder) if "loss" in row]


def disturbed(path: Path, disturbance: str) -> Path:
    """Write a program that trains as scripts/train.py does, after some code that changes what its modules do."""
    code = f"import os\n{disturbance}\nfrom modeling_metaqap.training.__main__ import main\nmain()\n"
    path.write_text(code)
    return path


__all__ = ["ACCELERATE", "RECIPE", "disturbed", "fsdp_environment", "losses", "rows", "run", "synthetic"]
