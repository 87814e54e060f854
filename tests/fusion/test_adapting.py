"""Adapting a checkpoint to own ratings, from the folder to the files of the new checkpoint."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rated_photographs import QUICK, rate_photographs

from modeling_metaqap import MetaQAPModel, Scorer
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.adapting import adapt
from modeling_metaqap.fusion.checkpoint_folder import ADAPTATION_FILE, CURVE_FILE, save_checkpoint
from modeling_metaqap.fusion.suggesting import suggest
from modeling_metaqap.inference.features import image_features
from modeling_metaqap.lineage import all_stages


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    """Two learners, one of which has a kernel head, whose scores rise with the ratings of `rated`."""
    kernel = {"backbone": "test_resnet", "kernel_head": {"num_components": 6, "num_centers": 9}}
    folder = tmp_path_factory.mktemp("checkpoint") / "before"
    save_checkpoint(make_model("test_resnet", kernel), folder)
    return folder


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Features of the photographs of `rated`, which the tests share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def all_rated(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    rated = rate_photographs(folder, Scorer(checkpoint))
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mos"], *((path.name, rating) for path, rating in rated.items())])
    return folder


@pytest.fixture
def rated(all_rated, tmp_path):
    """A copy of the folder, for a test to change."""
    return shutil.copytree(all_rated, tmp_path / "photographs")


@pytest.fixture(scope="module")
def adapted(all_rated, checkpoint, cache_dir):
    return adapt(
        all_rated,
        all_rated / "ratings.csv",
        checkpoint=checkpoint,
        mos_range=(1, 5),
        settings=QUICK,
        cache_dir=cache_dir,
    )


def test_the_checkpoint_gives_the_scores_that_were_fitted(adapted, rated, checkpoint, tmp_path):
    assert adapted.record["fitted"] == "heads"
    adapted.save(tmp_path / "after")
    paths = sorted(rated.glob("*.png"))
    with (rated / "ratings.csv").open() as file:
        ratings = [(float(row["mos"]) - 1) / 4 for row in csv.DictReader(file)]
    before, after = (
        [record.quality for record in Scorer(folder).score(paths)] for folder in (checkpoint, tmp_path / "after")
    )
    assert np.corrcoef(after, ratings)[0, 1] > np.corrcoef(before, ratings)[0, 1]
    assert np.abs(np.subtract(after, ratings)).mean() < 0.1
    # Nothing of the model that it began with is changed.
    assert MetaQAPModel.from_pretrained(checkpoint).config.base_learners[0]["residual_heads"] == []


def test_the_folder_says_what_to_expect(adapted, tmp_path):
    adapted.save(tmp_path / "after")
    record = json.loads((tmp_path / "after" / ADAPTATION_FILE).read_text())
    assert record["n"] == 30
    for when in ("before", "after"):
        figure = record["figures"][when]["srocc"]
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert [point["n"] for point in record["learning_curve"]] == [0, 15, 24]
    assert (tmp_path / "after" / CURVE_FILE).read_bytes().startswith(b"\x89PNG")
    rmse = [record["figures"][when]["rmse"]["value"] for when in ("before", "after")]
    assert "RMSE {:.3f} before and {:.3f} after, on ratings".format(*rmse) in record["conclusion"]
    card = (tmp_path / "after" / "README.md").read_text()
    assert f"{record['figures']['after']['srocc']['value']:.3f}" in card
    assert "adapted to folder all, n 30, rated from 1 to 5" in card
    assert "lowest rating, 1, and 1 for the highest, 5." in card and "![Learning curve]" in card
    few = dataclasses.replace(adapted, record=record | {"learning_curve": record["learning_curve"][:2]})
    few.save(tmp_path / "few")
    card = (tmp_path / "few" / "README.md").read_text()
    assert not (tmp_path / "few" / CURVE_FILE).exists(), "one point is no curve"
    assert "![Learning curve]" not in card and "| 15 |" in card


def test_its_scores_can_be_had_on_the_scale_of_the_ratings(adapted, rated, tmp_path):
    adapted.save(tmp_path / "after")
    paths = sorted(rated.glob("*.png"))[:3]
    plain, on_scale = (list(Scorer(tmp_path / "after", scale=scale).score(paths)) for scale in (None, "raters"))
    for one, other in zip(plain, on_scale, strict=True):
        assert other.quality == pytest.approx(1 + 4 * one.quality)
        assert other.quality_high == pytest.approx(1 + 4 * one.quality_high)
    assert [stage.mos_range for stage in all_stages(adapted.model.config)] == [[1, 5]]
    assert adapted.record["mos_range"] == [1, 5]


def test_the_result_can_be_adapted_again(adapted, rated, tmp_path, cache_dir):
    adapted.save(tmp_path / "after")
    again = adapt(
        rated,
        rated / "ratings.csv",
        checkpoint=tmp_path / "after",
        mos_range=(1, 5),
        settings=QUICK,
        cache_dir=cache_dir,
    )
    heads = [len(learner["residual_heads"]) for learner in again.model.config.base_learners]
    assert heads in ([1, 1], [2, 2])
    assert [stage.kind for stage in all_stages(again.model.config)] == ["adapt", "adapt"]


def test_an_adapted_checkpoint_is_not_measured_on_any_of_its_photographs(adapted, rated, tmp_path):
    """Not even on few of them, under other names."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copyfile(rated / "a0.png", other / "renamed.png")
    shutil.copyfile(rated / "b1.png", other / "again.png")
    (other / "labels.csv").write_text("image,mos\nrenamed.png,0.1\nagain.png,0.2\n")
    images = load_iqa_dataset("folder", split="all", data_dir=other, cache_dir=tmp_path / "arrow")
    stages = all_stages(adapted.model.config)
    with pytest.raises(MetaQAPError, match="has learned from 2 of the 2 images"):
        refuse_seen(stages, images, weights="mine", dataset="folder", data_dir=other, cache_dir=tmp_path / "arrow")
    (other / "renamed.png").write_bytes((other / "renamed.png").read_bytes() + b" ")
    (other / "again.png").write_bytes((other / "again.png").read_bytes() + b" ")
    images = load_iqa_dataset("folder", split="all", data_dir=other, cache_dir=tmp_path / "arrow2")
    refuse_seen(stages, images, weights="mine", dataset="folder", data_dir=other, cache_dir=tmp_path / "arrow2")


def test_comparisons_are_enough(rated, checkpoint, cache_dir):
    paths = sorted(rated.glob("*.png"))
    scores = np.array([record.quality for record in Scorer(checkpoint).score(paths)])
    rng = np.random.default_rng(0)
    with (rated / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["better", "worse"])
        for _ in range(300):
            one, other = rng.choice(len(paths), 2, replace=False)
            pair = (one, other) if scores[one] > scores[other] else (other, one)
            writer.writerow([paths[number].name for number in pair])
    adaptation = adapt(rated, rated / "pairs.csv", checkpoint=checkpoint, settings=QUICK, cache_dir=cache_dir)
    assert adaptation.record["figures"]["after"]["srocc"]["value"] > 0.9
    assert adaptation.model.config.mos_range is None, "comparisons have no scale"


def test_too_few_ratings_are_one_sentence(rated, checkpoint, cache_dir):
    lines = (rated / "ratings.csv").read_text().splitlines()
    (rated / "ratings.csv").write_text("\n".join(lines[:15]) + "\n")
    with pytest.raises(MetaQAPError, match="ratings of 14 photographs; it takes 15"):
        adapt(rated, "ratings.csv", checkpoint=checkpoint, mos_range=(1, 5), cache_dir=cache_dir)


def test_ratings_that_fall_where_the_scores_rise_are_one_sentence(rated, checkpoint, cache_dir):
    records = list(Scorer(checkpoint).score(sorted(rated.glob("*.png"))))
    rows = [f"{Path(record.path).name},{-record.quality}" for record in records]
    (rated / "ratings.csv").write_text("\n".join(["image,mos", *rows]) + "\n")
    with pytest.raises(MetaQAPError, match="ratings fall where the scores rise; .* `lower_is_better`"):
        adapt(rated, "ratings.csv", checkpoint=checkpoint, mos_range=(-9, 9), cache_dir=cache_dir)


def test_one_photograph_under_two_names_is_one_sentence(rated, checkpoint, cache_dir):
    shutil.copyfile(rated / "a0.png", rated / "b1.png")
    with pytest.raises(MetaQAPError, match=r"a0.png and b1.png are the same photograph; keep one of them, or"):
        adapt(rated, "ratings.csv", checkpoint=checkpoint, mos_range=(1, 5), cache_dir=cache_dir)


def test_features_are_computed_once_and_are_those_of_the_scores(rated, checkpoint, tmp_path):
    paths = sorted(rated.glob("*.png"))
    scorer = Scorer(checkpoint, batch_size=3)
    progress = []

    def features_of(paths):
        return image_features(
            scorer, paths, cache_dir=tmp_path, together=8, on_progress=lambda *both: progress.append(both)
        )

    first = features_of(paths[:20])
    assert progress == [(0, 20), (8, 20), (16, 20), (20, 20)]
    progress.clear()
    both = features_of(paths)
    assert progress == [(20, 30), (28, 30), (30, 30)]
    expected = [record.quality for record in scorer.score(paths)]
    # The scorer folds its convolutions, which rounds differently.
    np.testing.assert_allclose(both.quality(scorer.model), expected, atol=1e-5)
    np.testing.assert_array_equal(both.pooled[1][:20], first.pooled[1])
    learner = scorer.model.base_learners[1]
    with torch.no_grad():
        again = learner.score(torch.from_numpy(both.standardized(scorer.model)[1]).float())
    np.testing.assert_allclose(again, both.base_scores[:, 1], atol=1e-5)
    # A damaged file is no obstacle.
    next(tmp_path.rglob("*.npz")).write_bytes(b"damaged")
    np.testing.assert_allclose(image_features(scorer, paths, cache_dir=tmp_path).pooled[0], both.pooled[0], atol=1e-6)


def test_a_photograph_that_cannot_be_read_is_named_and_left_out(rated, checkpoint, cache_dir, tmp_path):
    (rated / "a0.png").write_bytes(b"broken")
    (rated / "b1.png").unlink()
    (rated / "b1.png").mkdir()
    paths = sorted(rated.glob("*.png"))
    scorer, unreadable = Scorer(checkpoint), {}
    features = image_features(scorer, paths, cache_dir=cache_dir, on_unreadable=unreadable.__setitem__)
    assert (
        list(unreadable) == [rated / "a0.png", rated / "b1.png"] and unreadable[rated / "b1.png"] == "is a directory"
    )
    assert [paths[row] for row in features.rows] == [path for path in paths if path not in unreadable]
    readable = image_features(scorer, [path for path in paths if path not in unreadable], cache_dir=cache_dir)
    np.testing.assert_array_equal(features.base_scores, readable.base_scores)
    with pytest.raises(MetaQAPError, match="None of the photographs can be read; of .*a0.png: not an image"):
        image_features(scorer, [rated / "a0.png"], cache_dir=cache_dir)

    (rated / "b1.png").rmdir()
    shutil.copyfile(rated / "a2.png", rated / "b1.png")
    with (rated / "b1.png").open("ab") as file:
        file.write(b" ")  # not the same file
    said = []
    adapted = adapt(
        rated,
        "ratings.csv",
        checkpoint=checkpoint,
        mos_range=(1, 5),
        settings=QUICK,
        cache_dir=cache_dir,
        on_unreadable=lambda path, reason: said.append(path.name),
    )
    assert said == ["a0.png"] and adapted.record["n"] == 29
    names = suggest(rated, 28, checkpoint=checkpoint, cache_dir=cache_dir, on_unreadable=lambda *_: None)
    assert len(set(names)) == 28 and "a0.png" not in names
    with pytest.raises(MetaQAPError, match="has 29 photographs that are not rated"):
        suggest(rated, 30, checkpoint=checkpoint, cache_dir=cache_dir)


def test_features_of_other_crops_are_not_taken_from_the_cache(rated, checkpoint, tmp_path):
    paths = sorted(rated.glob("*.png"))[:2]
    image_features(Scorer(checkpoint), paths, cache_dir=tmp_path)
    smaller = Scorer(checkpoint)
    smaller.seen = dataclasses.replace(smaller.seen, crop_size=32)
    again = image_features(smaller, paths, cache_dir=tmp_path)
    np.testing.assert_allclose(again.quality(smaller.model), [r.quality for r in smaller.score(paths)], atol=1e-5)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_features_at_other_scales_are_not_taken_from_the_cache(rated, make_model, tmp_path):
    paths = sorted(rated.glob("*.png"))[:2]
    for scales in ([1, 2], [2, 1]):
        save_checkpoint(make_model({"backbone": "test_resnet", "scales": scales}), tmp_path / "checkpoint")
        scorer = Scorer(tmp_path / "checkpoint")
        features = image_features(scorer, paths, cache_dir=tmp_path / "cache")
        expected = [record.quality for record in scorer.score(paths)]
        np.testing.assert_allclose(features.quality(scorer.model), expected, atol=1e-5)
