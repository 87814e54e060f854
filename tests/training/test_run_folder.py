import json
import re
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.state_files import write_digests


def write_state(run, step):
    run.clear_pending_state(step)
    pending = run.pending_state(step)
    pending.mkdir(parents=True)
    (pending / "random_states_0.pkl").write_text(str(step))
    write_digests(pending)
    return pending


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(Recipe(backbone="test_resnet"), resume=False)
    return folder


def test_a_folder_with_a_run_is_not_overwritten(run):
    with pytest.raises(MetaQAPError, match="already holds a run.*`resume_from_checkpoint` latest"):
        run.start(Recipe(backbone="test_resnet"), resume=False)


def test_a_run_that_never_began_begins_when_it_is_resumed(tmp_path):
    run = RunFolder(tmp_path / "new")
    assert run.state_to_resume("latest") is None
    run.start(Recipe(backbone="test_resnet"), resume=True)
    assert Recipe.load(run.path / "recipe.yaml").backbone == "test_resnet"


def test_a_run_is_resumed_from_the_newest_state_or_the_one_named(run):
    for step in (5, 10):
        run.commit_state(write_state(run, step))
    assert run.state_to_resume(None) is None
    assert run.state_to_resume("latest").name == "step_10"
    assert run.state_to_resume(str(run.states / "step_5")).name == "step_5"
    for wrong in (run.states / "step_7", run.path, write_state(run, 7)):
        with pytest.raises(MetaQAPError, match=f"no state to resume from in {wrong}; name one of its folders"):
            run.state_to_resume(str(wrong))


def test_folders_that_are_no_states_are_left_alone(run):
    run.commit_state(write_state(run, 5))
    strangers = ["step_16 copy", "step_", "step_9.bak", "step_\u0663", "notes"]
    for name in strangers:
        (run.states / name).mkdir()
    (run.states / "step_99").touch()
    assert run.state_to_resume("latest").name == "step_5"
    run.forget_after(5)
    run.commit_state(write_state(run, 6), keep=1)
    assert {path.name for path in run.states.iterdir()} == {*strangers, "step_99", "step_6"}


DAMAGES = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "changed": lambda file: file.write_bytes(b"?"),
    "gone": lambda file: file.unlink(),
    "not alone": lambda file: file.with_name("custom_checkpoint_0.pkl").touch(),
    "of an earlier version": lambda file: file.with_name("digests.json").unlink(),
    "noted badly": lambda file: file.with_name("digests.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_of_a_damaged_state_the_one_before_is_taken_and_that_is_said(damage, run):
    for step in (5, 10):
        run.commit_state(write_state(run, step))
    damage(run.states / "step_10" / "random_states_0.pkl")
    said = []
    assert run.state_to_resume("latest", say=said.append).name == "step_5"
    [sentence] = said
    assert re.search(r"The state .*step_10 is damaged and not used: \S+ (is|does not|cannot)", sentence)
    with pytest.raises(MetaQAPError, match="step_10(; name one of its folders| is damaged: .*; resume from another)"):
        run.state_to_resume(str(run.states / "step_10"))
    damage(run.states / "step_5" / "random_states_0.pkl")
    with pytest.raises(MetaQAPError, match="No state in .* is whole"):
        run.state_to_resume("latest")


def test_a_run_is_resumed_with_its_own_recipe_only(run):
    run.start(Recipe(backbone="test_resnet"), resume=True)
    with pytest.raises(MetaQAPError, match="was started with another recipe"):
        run.start(Recipe(backbone="test_resnet", seed=1), resume=True)


def test_a_run_is_resumed_with_its_own_teacher_only(tmp_path, make_model):
    for name, seed in (("teacher", 0), ("other", 1)):
        make_model("test_resnet", seed=seed).save_pretrained(tmp_path / name)
    recipe, run = Recipe(backbone="test_resnet"), RunFolder(tmp_path / "taught")
    run.start(recipe, resume=False, teacher=tmp_path / "teacher")
    assert run.origin()["teacher"] == f"{tmp_path.name}/teacher"
    run.start(recipe, resume=True, teacher=tmp_path / "teacher")
    for other in (tmp_path / "other", None):
        with pytest.raises(MetaQAPError, match="/teacher as teacher; resume with the same `teacher`"):
            run.start(recipe, resume=True, teacher=other)


def test_the_newest_complete_state_is_the_one_to_resume_from(run):
    assert run.latest_state() is None
    for step in (5, 100, 20):
        run.commit_state(write_state(run, step), keep=9)
    assert run.latest_state().name == "step_100"
    assert (run.latest_state() / "random_states_0.pkl").read_text() == "100"


def test_a_half_written_state_is_ignored_and_written_anew(run):
    run.commit_state(write_state(run, 10))
    write_state(run, 20)  # and then the machine went off
    assert run.latest_state().name == "step_10"
    (run.states / "step_20.tmp" / "leftover").touch()
    run.commit_state(write_state(run, 20))
    assert run.latest_state().name == "step_20"
    assert [path.name for path in run.latest_state().glob("*.pkl")] == ["random_states_0.pkl"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(8))
def test_whatever_moment_a_kill_comes_at_what_is_left_are_whole_states(moment, run, monkeypatch):
    for step in (5, 10):
        run.commit_state(write_state(run, step))
    pending = write_state(run, 10)
    (pending / "newer").touch()
    calls = iter(range(99))

    def or_killed(function):
        def call(path, *args, **options):
            if next(calls) == moment:
                if function is shutil.rmtree and Path(path).is_dir():  # in the middle of it
                    next(Path(path).iterdir()).unlink()
                raise Killed
            return function(path, *args, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", or_killed(shutil.rmtree))
        patched.setattr(Path, "rename", or_killed(Path.rename))
        with suppress(Killed):
            run.commit_state(pending, keep=1)
        done = next(calls) <= moment
    assert all((path / "random_states_0.pkl").exists() for path in run.states.iterdir() if path.suffix != ".tmp")
    assert run.latest_state() is not None
    run.commit_state(write_state(run, 20), keep=1)  # and it goes on
    assert [path.name for path in run.states.iterdir() if path.suffix != ".tmp"] == ["step_20"]
    assert done == (moment >= 7)


def test_only_the_newest_states_are_kept(run):
    for step in (5, 50, 500):
        run.commit_state(write_state(run, step))
    assert sorted(path.name for path in run.states.iterdir()) == ["step_50", "step_500"]
    run.commit_state(write_state(run, 500))
    assert sorted(path.name for path in run.states.iterdir()) == ["step_50", "step_500"]


def test_metrics_of_steps_that_are_done_again_are_forgotten(run):
    run.forget_after(3)
    for step in (0, 10, 20, 30):
        run.log(step=step, loss=1 / (step + 1))
    with run.metrics_file.open("a") as file:
        file.write('{"step": 40, "lo')  # cut off by a kill
    run.log(step=20, refit_head=True)
    for step in (20, 30):
        run.commit_state(write_state(run, step))
    run.forget_after(20)
    assert run.latest_state().name == "step_20", "the run takes another way from here"
    run.log(step=30, loss=0.5)
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 20, 30]
    assert rows[-1]["loss"] == 0.5


def test_a_run_says_with_which_versions_it_was_made(run):
    versions = json.loads((run.path / "versions.json").read_text())
    assert (versions["torch"], versions["accelerate"]) == (version("torch"), version("accelerate"))
