"""Fixtures of the tests of commands: a tiny checkpoint, photographs, and the command in this process."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.cli.app import main
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    learner = {"backbone": "test_resnet", "lineage": [{"kind": "finetune", "dataset": "live", "split": "train"}]}
    fusion = {"kind": "fusion", "dataset": "live", "split": "validation"}
    config = MetaQAPConfig(base_learners=[learner], distortion_labels=[], lineage=[fusion])
    save_checkpoint(MetaQAPModel(config), folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256 >> index, (64, 80, 3), dtype=np.uint8)).save(folder / f"[{index}].png")
    return folder


@pytest.fixture
def metaqap(monkeypatch, capsys):
    """Runs the command in this process: (exit status, standard output, standard error)."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.argv", ["metaqap", *map(str, arguments)])
        standard_input = io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()))
        monkeypatch.setattr("sys.stdin", standard_input)
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run
