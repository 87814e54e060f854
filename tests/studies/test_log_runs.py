"""studies/log_runs.py: the committed log of training runs."""

import hashlib
import json

import pytest
from repository import ROOT
from script_loader import exit_status

pytest.importorskip("accelerate")

import log_runs
from study_tables import runs_table

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "one")
    run.start(Recipe(backbone="test_resnet", seed=3), resume=False)
    run.log(step=0, ridge_penalty=1.0)
    for rate in (8.0, 2.0, 9.04):
        run.log(step=10, epoch=0, loss=0.25, images_per_second=rate)
    run.log(step=10, epoch=1, validation_plcc=0.5, validation_srocc=0.4, validation_distortion_accuracy=0.7)
    run.log(step=10, refit_head=True, ridge_penalty=2.0, validation_plcc=0.55, validation_srocc=0.45)
    return run


def test_a_run_is_logged_with_what_it_changed_and_measured(run, tmp_path, capsys):
    output = tmp_path / "log.json"
    assert exit_status(log_runs.main, str(run.path), "--output", str(output)) == 0
    [logged] = json.loads(output.read_text())
    assert logged["recipe"] == {"backbone": "test_resnet", "seed": 3}
    assert logged["images_per_second"] == 8.0 and "teacher" not in logged
    epoch, refitted = logged["measured"]
    assert (epoch["after"], epoch["validation_srocc"], epoch["loss"]) == ("epoch 1", 0.4, 0.25)
    assert (refitted["after"], refitted["validation_plcc"]) == ("refitting the head", 0.55)
    assert "0.550 / 0.450" in capsys.readouterr().out


def test_a_run_is_logged_with_the_learner_that_it_started_from(run, tmp_path):
    later = RunFolder(tmp_path / "two")
    (tmp_path / "one" / "best").mkdir()
    (tmp_path / "one" / "best" / "model.safetensors").write_bytes(b"weights")
    later.start(Recipe(backbone="test_resnet"), resume=False, init=run.path / "best")
    output = tmp_path / "log.json"
    assert exit_status(log_runs.main, str(run.path), str(later.path), "--output", str(output)) == 0
    first, second = json.loads(output.read_text())
    assert (first["init"], second["init"]) == ("ImageNet weights", "one/best")
    origin = json.loads((later.path / "origin.json").read_text())
    assert origin["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(MetaQAPError, match="was started from one/best; resume with the same `init`"):
        later.start(Recipe(backbone="test_resnet"), resume=True)
    later.start(Recipe(backbone="test_resnet"), resume=True, init=run.path / "best")


def test_a_run_is_logged_with_its_teacher(run, tmp_path):
    origin = json.loads((run.path / "origin.json").read_text())
    (run.path / "origin.json").write_text(json.dumps(origin | {"teacher": "checkpoints/large"}))
    output = tmp_path / "log.json"
    assert exit_status(log_runs.main, str(run.path), "--output", str(output)) == 0
    logged = json.loads(output.read_text())
    assert logged[0]["teacher"] == "checkpoints/large"
    assert "| ImageNet weights, taught by checkpoints/large |" in runs_table(logged).markdown()


def test_a_run_that_went_on_replaces_its_entry_and_leaves_the_others(run, tmp_path):
    output = tmp_path / "log.json"
    output.write_text(json.dumps([{"run": "other", "recipe": {}, "measured": []}]))
    for srocc in (0.6, 0.7):
        run.log(step=20, epoch=2, validation_plcc=0.6, validation_srocc=srocc)
        assert exit_status(log_runs.main, str(run.path), "--output", str(output)) == 0
    other, logged = json.loads(output.read_text())
    assert other["run"] == "other"
    assert [row["validation_srocc"] for row in logged["measured"]] == [0.4, 0.45, 0.6, 0.7]


def test_a_fused_checkpoint_is_logged_with_its_learners_and_what_they_reach(run, tmp_path):
    figures = {name: {"plcc": {"value": plcc}, "srocc": {"value": 0.5}} for name, plcc in (("a", 0.61), ("b", 0.62))}
    models = [{"name": "a"}, {"name": "b"}]
    fit = {"split": "validation", "base_models": models, "weights": [0.25, 0.0], "figures": figures}
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "fit.json").write_text(json.dumps(fit))
    output = tmp_path / "log.json"
    assert exit_status(log_runs.main, str(run.path), str(tmp_path / "fused"), "--output", str(output)) == 0
    logged = json.loads(output.read_text())[1]
    assert (logged["run"], logged["fused"]) == ("fused", {"a": 0.25, "b": 0.0})
    assert logged["measured"][1] == {"after": "b", "validation_plcc": 0.62, "validation_srocc": 0.5}


def test_a_folder_without_a_run_is_one_sentence_and_changes_nothing(tmp_path, capsys):
    output = tmp_path / "log.json"
    assert exit_status(log_runs.main, str(tmp_path), "--output", str(output)) == 2
    assert "recipe.yaml cannot be read" in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_the_committed_log_names_each_run_once():
    runs = json.loads((ROOT / "studies" / "results" / "training_log.json").read_text())
    assert len({run["run"] for run in runs}) == len(runs) > 3
