"""Gradient steps on own ratings, from the folder to a checkpoint with further learners."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from kill_training import make_images

from modeling_metaqap import MetaQAPModel, Scorer
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion import adapting
from modeling_metaqap.fusion.adapting import AdaptationSettings, adapt
from modeling_metaqap.fusion.checkpoint_folder import ADAPTATION_FILE, save_checkpoint
from modeling_metaqap.fusion.finetuning import fit_share, with_finetuned
from modeling_metaqap.fusion.finetuning_settings import FinetuningSettings
from modeling_metaqap.fusion.widths import Widths, more_learners
from modeling_metaqap.inference.onnx_export import export_onnx
from modeling_metaqap.lineage import learner_stages
from modeling_metaqap.training import loop

# Three Gaussians say little about 30 photographs, so there is something left for gradient steps.
QUICK = AdaptationSettings(centers=3, folds=3, draws=0, n_bootstrap=0)
STEPS = FinetuningSettings(
    learners=1, folds=2, epochs=2, batch_size=4, crop_size=32, freeze_stages=1, learning_rate=1e-5, num_workers=0
)


@pytest.fixture(scope="module", autouse=True)
def few_are_enough():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "FEWEST_TO_FINETUNE", 20)
        yield


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    """A learner with a kernel head and one without."""
    kernel = {"backbone": "test_resnet", "kernel_head": {"num_components": 6, "num_centers": 9}}
    model = make_model("test_resnet", kernel)
    scale = {"distance": 0.1, "spread": 0.2, "quality": 0.0, "quality_squared": 0.0}
    scale |= {"intercept": 0.0, "lowest": 0.1, "highest": 9.0}
    Widths(interval_radius=0.2, interval_scale=scale, familiar_distances=[0.0, 1.0, 2.0]).write_into(model.config)
    folder = tmp_path_factory.mktemp("checkpoint") / "before"
    save_checkpoint(model, folder)
    return folder


@pytest.fixture(scope="module")
def rated(checkpoint, tmp_path_factory):
    """30 photographs with ratings between the checkpoint's own scores and the true quality."""
    folder = tmp_path_factory.mktemp("rated")
    make_images(folder)
    (folder / "labels.csv").unlink()
    paths = sorted(folder.glob("*.png"))
    scores = np.array([record.quality for record in Scorer(checkpoint).score(paths)])
    truth = np.array([int(path.stem[1:]) / 29 for path in paths])
    ratings = 2 + (scores - scores.mean()) / scores.std() * 0.3 + truth
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mos"], *zip([path.name for path in paths], ratings, strict=True)])
    return folder


@pytest.fixture(scope="module")
def call(rated, checkpoint, tmp_path_factory):
    """Adapts with gradient steps; features are shared."""
    cache = tmp_path_factory.mktemp("features")

    def adapted(runs_dir, **options):
        options = {"checkpoint": checkpoint, "mos_range": (1, 5), "settings": QUICK, "finetune": STEPS} | options
        return adapt(rated, rated / "ratings.csv", runs_dir=runs_dir, cache_dir=cache, device="cpu", **options)

    return adapted


@pytest.fixture(scope="module")
def finetuned(call, tmp_path_factory):
    return call(tmp_path_factory.mktemp("runs"))


def test_fine_tuned_learners_stand_beside_the_others_where_that_helps(finetuned):
    figures = {name: figure["rmse"]["value"] for name, figure in finetuned.record["figures"].items()}
    assert finetuned.record["finetuned"]["share"] > 0
    assert figures["after"] < figures["closed form"]
    srocc = finetuned.record["figures"]["closed form"]["srocc"]["value"]
    assert finetuned.conclusion.endswith(f"Without the fine-tuned learners the SROCC would be {srocc:.3f}.")
    assert len(finetuned.model.base_learners) == 3
    [record] = finetuned.record["finetuned"]["learners"]
    assert record["name"] == finetuned.model.config.base_learners[2]["name"]
    assert len(record["epochs"]) == 2 and set(record["epochs"]) <= {1, 2}


def test_the_checkpoint_gives_the_mixed_scores(finetuned, rated, tmp_path):
    finetuned.save(tmp_path / "after")
    paths = sorted(rated.glob("*.png"))
    records = list(Scorer(tmp_path / "after").score(paths))
    with (rated / "ratings.csv").open() as file:
        ratings = [(float(row["mos"]) - 1) / 4 for row in csv.DictReader(file)]
    assert np.corrcoef([record.quality for record in records], ratings)[0, 1] > 0.8
    # The new learner, which is not asked elsewhere, predicts by itself.
    assert np.corrcoef([record.base_scores[2] for record in records], ratings)[0, 1] > 0.8
    # Intervals are as wide as the ratings that were held out ask for, and the photographs are at home.
    width = np.mean([record.quality_high - record.quality_low for record in records])
    assert width == pytest.approx(2 * finetuned.record["interval_radius"], rel=0.35)
    assert 0.2 < np.mean([record.familiarity for record in records]) < 0.8
    again = MetaQAPModel.from_pretrained(tmp_path / "after")
    assert again.config.base_learners[2]["residual_heads"] and not again.config.base_learners[2]["kernel_head"]
    assert json.loads((tmp_path / "after" / ADAPTATION_FILE).read_text())["fitted"] == "heads"
    assert "fine-tuned on folder all, n 30" in (tmp_path / "after" / "README.md").read_text()


@pytest.mark.slow
def test_its_onnx_file_gives_the_same_scores(finetuned, rated, tmp_path):
    finetuned.save(tmp_path)
    export_onnx(tmp_path)
    paths = sorted(rated.glob("*.png"))[:2]
    both = (
        [record.quality for record in Scorer(tmp_path, engine=engine).score(paths)] for engine in ("torch", "onnx")
    )
    assert next(both) == pytest.approx(next(both), abs=1e-3)


def test_what_it_has_seen_is_known(finetuned, rated, call, tmp_path):
    before, _, new = learner_stages(finetuned.model.config)
    assert [stage.kind for stage in before] == ["adapt"] and [stage.kind for stage in new] == ["finetune", "adapt"]
    shutil.copyfile(rated / "a0.png", tmp_path / "renamed.png")
    shutil.copyfile(rated / "b1.png", tmp_path / "again.png")
    (tmp_path / "labels.csv").write_text("image,mos\nrenamed.png,0.1\nagain.png,0.2\n")
    where = {"data_dir": tmp_path, "cache_dir": tmp_path / "arrow"}
    images = load_iqa_dataset("folder", split="all", **where)
    with pytest.raises(MetaQAPError, match="has learned from 2 of the 2 images"):
        refuse_seen(new[:1], images, weights="mine", dataset="folder", **where)
    # Copies of it could not be measured on photographs that it knows.
    finetuned.save(tmp_path / "after")
    with pytest.raises(MetaQAPError, match="learned from 30 of these photographs before; fine-tune the one"):
        call(tmp_path / "runs", checkpoint=tmp_path / "after")


def test_an_interrupted_run_goes_on_to_the_same_weights(finetuned, call, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    step, steps, told = loop.training_step, [], []

    def until_interrupted(*args, **options):
        steps.append(1)
        if len(steps) > 4:  # in the second epoch of the first fold
            raise Interrupted
        return step(*args, **options)

    monkeypatch.setattr(loop, "training_step", until_interrupted)
    with pytest.raises(Interrupted):
        call(tmp_path)
    monkeypatch.setattr(loop, "training_step", lambda *args, **options: told.append(1) or step(*args, **options))
    again = call(tmp_path)
    assert len(told) == 9, "three steps an epoch, and two epochs of two folds, less the epoch that was complete"
    for name, tensor in finetuned.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert again.record == finetuned.record
    again.forget_runs()
    assert list(tmp_path.iterdir()) == []


def test_too_few_ratings_and_comparisons_are_one_sentence(rated, call, tmp_path, monkeypatch):
    monkeypatch.setattr(adapting, "FEWEST_TO_FINETUNE", 31)
    with pytest.raises(MetaQAPError, match="of 30 photographs; fine-tuning takes 31"):
        call(tmp_path)
    (tmp_path / "pairs.csv").write_text(
        "better,worse\n" + "".join(f"{'ab'[i % 2]}{i}.png,a0.png\n" for i in range(1, 30))
    )
    with pytest.raises(MetaQAPError, match="takes ratings, not comparisons"):
        adapt(rated, tmp_path / "pairs.csv", finetune=True)
    with pytest.raises(MetaQAPError, match="`folds` of fine-tuning must be at least 2, got 1"):
        FinetuningSettings(folds=1)


def test_the_share_is_fitted_to_other_folds_and_taken_where_it_helps_beyond_chance():
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=200)
    closed, tuned = quality + 0.1 * rng.normal(size=200), quality + 0.1 * rng.normal(size=200)
    parts = np.array_split(rng.permutation(200), 4)
    share = fit_share(closed, tuned, quality, parts)
    assert share.helps and share.value == pytest.approx(0.5, abs=0.1)  # two predictions with like errors
    others = np.concatenate(parts[1:])
    step = (tuned - closed)[others]
    expected = (quality - closed)[others] @ step / (step @ step)
    np.testing.assert_allclose(share.mixed[parts[0]], (closed + expected * (tuned - closed))[parts[0]])
    assert not fit_share(closed, rng.normal(size=200), quality, parts).helps
    # At most nine tenths, so that no learner loses all its weight.
    assert fit_share(closed, quality, quality, parts).value == 0.9
    # With one part held out, the share is fitted to that.
    one = fit_share(closed, tuned, quality, parts[:1])
    assert 0.3 < one.value < 0.7 and np.isfinite(one.mixed[parts[0]]).all()


def test_the_score_is_that_share_of_the_fine_tuned_ones(make_model):
    adapted, new = make_model("test_resnet", "test_resnet"), make_model("test_resnet", seed=1)
    pixels = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        mixed = with_finetuned(adapted, [new], 0.3)(pixels).logits
        torch.testing.assert_close(mixed, 0.7 * adapted(pixels).logits + 0.3 * new(pixels).logits)


def test_a_further_learner_does_not_make_the_width_depend_less_on_the_distance():
    scale = {"distance": 0.2, "spread": 0.1}
    widths = Widths(interval_radius=0.1, interval_scale=scale, familiar_distances=[0.0, 1.0])
    assert more_learners(widths, before=4, after=6).interval_scale == {"distance": pytest.approx(0.3), "spread": 0.1}
    plain = Widths(interval_radius=0.1, interval_scale=None, familiar_distances=[0.0])
    assert more_learners(plain, before=4, after=6) is plain
