import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from safetensors import SafetensorError
from safetensors.torch import load_file

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import (
    Stage,
    image_ids_sha256,
    learner_stages,
    rated_images,
    weights_sha256,
    write_stages,
)
from modeling_metaqap.training import loop
from modeling_metaqap.training.learner import model_config
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.settings import RunSettings
from modeling_metaqap.training.state_files import write_digests

RECIPE = Recipe(backbone="test_resnet", dataset="folder", epochs=2, batch_size=8, crop_size=32)


@pytest.fixture
def settings(rated_sources, tmp_path):
    """Of a run on 20 images, from a learner with random weights."""
    torch.manual_seed(0)
    MetaQAPModel(model_config(RECIPE)).save_pretrained(tmp_path / "init")
    yield RunSettings(
        output_dir=str(tmp_path / "run"),
        init=str(tmp_path / "init"),
        data_dir=str(rated_sources),
        cache_dir=str(tmp_path / "cache"),
        cpu=True,
        num_workers=0,
        logging_steps=1,
    )
    reset_accelerate()


def reset_accelerate():
    # These outlive an Accelerator, and the next one would have to agree with them.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_run_can_be_started_from_python(settings, tmp_path):
    summary = loop.train(RECIPE, settings)
    rows = RunFolder(tmp_path / "run").rows()
    epochs = [row["validation_srocc"] for row in rows if "validation_srocc" in row]
    assert len(epochs) == 2
    assert summary == {"output_dir": str(tmp_path / "run"), "best_validation_srocc": max(epochs)}
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert all(row["images_per_second"] > 0 for row in rows if "loss" in row)
    assert (
        MetaQAPModel.from_pretrained(tmp_path / "run" / "best").config.base_learners[0]["lineage"][-1]["kind"]
        == "finetune"
    )


def test_features_of_a_frozen_learner_are_computed_once(settings, tmp_path, monkeypatch):
    calls, compute = [], loop.pooled_features

    def counted(*arguments, **options):
        columns = compute(*arguments, **options)
        calls.append(len(columns[0]))
        return columns

    monkeypatch.setattr(loop, "pooled_features", counted)
    frozen = replace(RECIPE, epochs=0, refit_head=True, ridge_penalty=1.0)
    loop.train(frozen, settings)
    assert calls == [20]
    reset_accelerate()
    other = replace(settings, output_dir=str(tmp_path / "other"))
    loop.train(replace(frozen, ridge_penalty=0.1, kernel_components=4), other)
    assert calls == [20], "what is on disk was computed again"
    # The heads are those of features that were computed for them.
    reset_accelerate()
    anew = replace(settings, output_dir=str(tmp_path / "anew"), cache_dir=str(tmp_path / "empty"))
    loop.train(replace(frozen, ridge_penalty=0.1, kernel_components=4), anew)
    assert calls == [20, 20]
    one, two = (load_file(tmp_path / run / "refitted" / "model.safetensors") for run in ("other", "anew"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_learner_learns_from_a_teacher_and_remembers_it(settings, tmp_path):
    loop.train(RECIPE, settings)
    reset_accelerate()
    teacher = str(tmp_path / "run" / "last")
    taught = replace(settings, output_dir=str(tmp_path / "taught"), teacher=teacher)
    loop.train(replace(RECIPE, epochs=1), taught)
    stages = learner_stages(MetaQAPModel.from_pretrained(tmp_path / "taught" / "last").config)[0]
    assert [stage.kind for stage in stages] == ["imagenet", "finetune", "finetune"], "the teacher's, then its own"
    assert [stage.taught_by for stage in stages[1:]] == [None, weights_sha256(teacher)]
    assert str(stages[-1]).endswith(" and the scores of a teacher")


def test_who_is_taught_by_an_ensemble_gets_heads_where_that_one_was_fused(settings, tmp_path):
    loop.train(RECIPE, settings)
    reset_accelerate()
    validation = load_training_split(
        "folder", split="validation", data_dir=settings.data_dir, cache_dir=settings.cache_dir
    )
    teacher = MetaQAPModel.from_pretrained(tmp_path / "run" / "last")
    fused = Stage(kind="fusion", **rated_images("folder", "validation", validation["image_id"]))
    teacher.config.lineage = write_stages([fused])
    teacher.save_pretrained(tmp_path / "teacher")
    taught = replace(settings, output_dir=str(tmp_path / "taught"), teacher=str(tmp_path / "teacher"))
    loop.train(replace(RECIPE, epochs=1), taught)
    reset_accelerate()
    heads = replace(settings, output_dir=str(tmp_path / "heads"), init=str(tmp_path / "taught" / "last"))
    loop.train(replace(RECIPE, epochs=0, refit_head=True), heads)
    [stages] = learner_stages(MetaQAPModel.from_pretrained(tmp_path / "heads" / "refitted").config)
    assert [stage.kind for stage in stages] == ["imagenet", "finetune", "finetune", "heads"]


def test_a_teacher_that_knows_the_validation_images_is_refused(settings, tmp_path):
    loop.train(replace(RECIPE, epochs=1, hold_out="fold 1 of 2"), settings)
    reset_accelerate()
    taught = replace(settings, output_dir=str(tmp_path / "taught"), teacher=str(tmp_path / "run" / "last"))
    other = replace(RECIPE, hold_out="fold 2 of 2")
    with pytest.raises(MetaQAPError, match="run/last has learned from .* images that it would be measured on"):
        loop.train(other, taught)


def test_blocks_are_left_out_only_where_the_same_ones_are_each_time(settings):
    recipe = replace(RECIPE, epochs=1, drop_path=0.5)
    with pytest.raises(MetaQAPError, match="`drop_path` cannot be used with `gradient_accumulation_steps`"):
        loop.train(recipe, replace(settings, gradient_accumulation_steps=2))
    assert loop.train(recipe, settings)["best_validation_srocc"] is not None


@pytest.fixture
def stopped(settings):
    """A run that was stopped after its first epoch, to be resumed with the settings that are returned."""
    loop.train(RECIPE, settings)
    reset_accelerate()
    shutil.rmtree(Path(settings.output_dir, "states", "step_4"))
    return replace(settings, resume_from_checkpoint="latest")


def weights(settings):
    return load_file(Path(settings.output_dir, "last", "model.safetensors"))


def test_a_state_of_a_stranger_runs_no_code(stopped, tmp_path):
    marker = tmp_path / "code was run"

    class Payload:
        def __reduce__(self):
            return open, (str(marker), "w")

    state = Path(stopped.output_dir, "states", "step_2")
    whole = {file: file.read_bytes() for file in state.iterdir()}
    names = [file.name for file in whole if file.suffix in (".bin", ".pkl")]
    assert len(names) == 2
    for name in [*names, "custom_checkpoint_0.pkl", "sampler.bin", "scheduler.bin"]:
        for file, content in whole.items():
            file.write_bytes(content)
        with (state / name).open("wb") as file:
            pickle.dump(Payload(), file)
        write_digests(state)  # as a stranger would
        try:
            loop.train(RECIPE, stopped)
        except MetaQAPError as error:
            assert "The state" in str(error) and "cannot be read" in str(error)
        else:
            assert name not in names
        finally:
            reset_accelerate()
        if name not in names and state.exists():
            (state / name).unlink()
    assert not marker.exists()


def test_a_damaged_state_is_not_taken_for_a_whole_one(stopped, settings, capsys):
    finished = weights(settings)
    state = Path(stopped.output_dir, "states", "step_2")
    copy = shutil.copytree(state, state.with_name("step_3"))
    optimizer = copy / "optimizer.bin"
    optimizer.write_bytes(optimizer.read_bytes()[:-1000])
    loop.train(RECIPE, stopped)
    told = " ".join(capsys.readouterr().err.split())
    assert "step_3 is damaged and not used: optimizer.bin is damaged" in told and "Resumed at step 2 of 4" in told
    assert all(torch.equal(tensor, finished[name]) for name, tensor in weights(settings).items())


def test_random_states_that_are_none_are_one_sentence(stopped):
    state = Path(stopped.output_dir, "states", "step_2")
    torch.save({"step": 2}, state / "random_states_0.pkl")
    write_digests(state)
    with pytest.raises(MetaQAPError, match="cannot be read: random_states_0.pkl is damaged"):
        loop.train(RECIPE, stopped)


def test_a_run_that_diverges_ends_with_a_sentence_and_saves_nothing_of_it(settings, tmp_path, monkeypatch):
    losses = iter([0.5, math.nan])
    monkeypatch.setattr(loop, "training_step", lambda *arguments, **options: next(losses))
    with pytest.raises(MetaQAPError, match="not finite at step 1: training diverged. Start again with a lower"):
        loop.train(RECIPE, settings)
    folder = RunFolder(tmp_path / "run")
    assert [row["step"] for row in folder.rows()] == [0, 1]
    assert folder.latest_state() is None and not (folder.path / "last").exists()


def spoil(folder, *names):
    """Damage images in the middle, where only decoding notices."""
    for name in names:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_ends_the_run_with_its_name(settings, num_workers):
    name = sorted(path.name for path in Path(settings.data_dir).rglob("*.png"))[0]
    spoil(next(Path(settings.data_dir).rglob(name)).parent, name)
    with pytest.raises(MetaQAPError) as refusal:
        loop.train(RECIPE, replace(settings, num_workers=num_workers))
    assert str(refusal.value).startswith(f"The image {name} cannot be read: "), refusal.value
    assert "Traceback" not in str(refusal.value) and "`max_bad_images`" in str(refusal.value)


def test_images_that_cannot_be_read_are_left_out_up_to_a_number(settings, capsys):
    names = sorted(path.name for path in Path(settings.data_dir).rglob("*.png"))[:2]
    spoil(next(Path(settings.data_dir).rglob(names[0])).parent, *names)
    with pytest.raises(
        MetaQAPError, match=f"2 images cannot be read, more than `max_bad_images` 1. The image {names[0]}"
    ):
        loop.train(RECIPE, replace(settings, max_bad_images=1))
    reset_accelerate()
    loop.train(RECIPE, replace(settings, max_bad_images=5))
    told = " ".join(capsys.readouterr().err.split())
    assert "Left out 2 images of 5 that may be" in told and all(
        f"The image {name} cannot be read" in told for name in names
    )
    [learner] = MetaQAPModel.from_pretrained(Path(settings.output_dir, "last")).config.base_learners
    rows = load_training_split("folder", split="train", data_dir=settings.data_dir, cache_dir=settings.cache_dir)
    seen = sorted(set(rows["image_id"]) - set(names))
    assert learner["lineage"][-1]["image_ids_sha256"] == image_ids_sha256(seen)


def test_a_full_disk_ends_the_run_with_a_sentence_and_leaves_what_was_saved(stopped, settings, monkeypatch):
    before = weights(settings)

    def full(model, path, *arguments, **options):
        Path(path).mkdir()
        (Path(path) / "model.safetensors").write_bytes(b"torn")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(MetaQAPModel, "save_pretrained", full)
    with pytest.raises(MetaQAPError, match=r"run/last could not be written: .*No space left on device"):
        loop.train(RECIPE, stopped)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(settings).items())
    monkeypatch.undo()
    reset_accelerate()
    loop.train(RECIPE, stopped)
    assert not list(Path(settings.output_dir).glob("*.tmp"))
