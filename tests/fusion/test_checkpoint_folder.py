"""Checkpoint folders as they go to users."""

import shutil
from pathlib import Path

import pytest
import torch
from repository import MODEL_FILES, ROOT
from safetensors.torch import load_file

import modeling_metaqap
from modeling_metaqap import MetaQAPModel
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint

CODE = set(MODEL_FILES)


def test_kernels_are_stored_in_half_precision_and_all_else_in_full(make_model, tmp_path):
    sizes = {"num_components": 6, "num_centers": 9}
    model = make_model({"backbone": "test_resnet", "kernel_head": sizes, "residual_heads": [sizes]})
    save_checkpoint(model, tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    halved = {name for name, value in stored.items() if value.dtype == torch.float16}
    backbone = {name for name, value in model.state_dict().items() if ".backbone." in name and value.ndim >= 2}
    heads = ("kernel_head", "residual_heads.0")
    assert halved == backbone | {
        f"base_learners.0.{head}.{name}" for head in heads for name in ("components", "centers")
    }
    loaded = MetaQAPModel.from_pretrained(tmp_path / "checkpoint")
    assert loaded.dtype == torch.float32
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        difference = (loaded.eval()(pixels).logits - model(pixels).logits).abs().max()
    assert difference < 5e-3


def test_the_folder_is_complete_with_its_code(make_model, tmp_path):
    save_checkpoint(make_model("test_resnet"), tmp_path / "checkpoint")
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == CODE | {"LICENSE", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert (tmp_path / "checkpoint" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert not any(path.is_symlink() for path in (tmp_path / "checkpoint").iterdir())


def test_a_folder_can_be_written_again(make_model, tmp_path):
    for seed in (0, 1):
        model = make_model("test_resnet", seed=seed)
        save_checkpoint(model, tmp_path / "checkpoint")
    loaded = MetaQAPModel.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(loaded.base_learners[0].quality_head.weight, model.base_learners[0].quality_head.weight)


@pytest.mark.parametrize("was_adapted", [True, False])
def test_what_was_said_of_other_weights_does_not_stay(was_adapted, make_model, tmp_path):
    (tmp_path / "onnx").mkdir()
    names = ["fit.json", "learning_curve.png", "README.md", "notes.txt", *(["adaptation.json"] if was_adapted else [])]
    for name in names:
        (tmp_path / name).write_text("of other weights")
    save_checkpoint(make_model("test_resnet"), tmp_path)
    left = {path.name for path in tmp_path.iterdir()} & {*names, "onnx"}
    # A card that no adaptation wrote is the user's own.
    assert left == {"notes.txt", "onnx"} | (set() if was_adapted else {"README.md", "learning_curve.png"})


def test_inside_the_package_code_and_licence_are_linked_not_copied(make_model, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    for name in CODE:
        shutil.copy(Path(modeling_metaqap.__file__).parent / name, package)
    monkeypatch.setattr(
        "modeling_metaqap.fusion.checkpoint_folder.__file__", str(package / "fusion" / "checkpoint_folder.py")
    )
    save_checkpoint(make_model("test_resnet"), package / "checkpoints" / "tiny")
    linked = package / "checkpoints" / "tiny" / "LICENSE"
    assert linked.is_symlink() and linked.samefile(ROOT / "LICENSE")
    links = {path.name for path in (package / "checkpoints" / "tiny").iterdir() if path.is_symlink()}
    assert links == CODE | {"LICENSE"}
    assert all((package / "checkpoints" / "tiny" / name).resolve() == (package / name) for name in CODE)
