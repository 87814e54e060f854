"""studies/compare_heads.py: heads at home and on sources that were left out."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from script_loader import exit_status

pytest.importorskip("datasets")

import compare_heads
import head_fitting
from study_tables import heads_table

from modeling_metaqap.data.distorted.building import BuildSettings, build
from modeling_metaqap.data.iqa_datasets import hold_out, load_training_split
from modeling_metaqap.evaluation.metrics import srocc
from modeling_metaqap.lineage import Stage, rated_images, write_stages
from modeling_metaqap.training.backbones import imagenet_weights


@pytest.fixture
def arguments(rated_sources, tmp_path, make_model):
    """Rated images of two sources, and a learner to begin with."""
    learner = {"backbone": "test_resnet", **imagenet_weights("test_resnet").normalization()}
    make_model(learner, distortion_labels=[]).save_pretrained(tmp_path / "learner")
    arguments = ["--backbone", "test_resnet", "--init", tmp_path / "learner", "--dataset", "folder"]
    arguments += ["--data_dir", rated_sources, "--cache_dir", tmp_path / "cache", "--features", tmp_path / "features"]
    return [str(option) for option in [*arguments, "--output", tmp_path / "heads.json"]]


@pytest.mark.slow
def test_heads_are_measured_at_home_and_on_left_out_sources(arguments, tmp_path, monkeypatch, capsys):
    options = [*arguments, "--sources", "a*", "--penalties", "0.5", "--gammas", "2", "8"]
    options += ["--scores", str(tmp_path / "new" / "scores.csv")]
    assert exit_status(compare_heads.main, *options) == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert result["n"] == {"validation split": [20, 10], "a*": [15, 15]}
    assert len(result["heads"]) == 4
    for row in result["heads"].values():
        assert row["validation split"]["srocc"] > 0.8, "noise is easy to see"
    gammas = [result["heads"][f"linear, penalty 0.5, and kernel, gamma {gamma}"] for gamma in (2, 8)]
    assert gammas[0] != gammas[1]
    assert "linear, cross-validated" in capsys.readouterr().out

    # Every score is kept too.
    with (tmp_path / "new" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["place", "image_id", "quality", *result["heads"]]
    assert len({row["image_id"] for row in rows if row["place"] == "a*"}) == 15
    for place, n in (("validation split", 10), ("a*", 15)):
        chosen = [row for row in rows if row["place"] == place]
        assert len(chosen) == n
        for head, figures in result["heads"].items():
            scores, qualities = ([float(row[column]) for row in chosen] for column in (head, "quality"))
            assert srocc(scores, qualities) == pytest.approx(figures[place]["srocc"]), head

    # The features are kept: no image is looked at again.
    monkeypatch.setattr(head_fitting, "pooled_features", None)
    assert exit_status(compare_heads.main, *options) == 0
    again = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert again["heads"]["linear, cross-validated"]["a*"]["plcc"] == pytest.approx(
        result["heads"]["linear, cross-validated"]["a*"]["plcc"], abs=1e-6
    )


@pytest.mark.slow
def test_heads_at_two_scales_have_features_of_their_own(arguments, tmp_path, capsys):
    options = ["--penalties", "0.5", "--gammas", "2", "--scales", "1", "2", "--label", "two"]
    assert exit_status(compare_heads.main, *(arguments + options)) == 0
    assert json.loads((tmp_path / "heads.json").read_text())["two"]["scales"] == [1, 2]
    with np.load(tmp_path / "features" / "photographs.npz") as stored:
        width = stored["features"].shape[1]
    assert exit_status(compare_heads.main, *arguments) == 2
    assert "features of another learner" in capsys.readouterr().err
    (tmp_path / "features" / "photographs.npz").unlink()
    assert exit_status(compare_heads.main, *arguments) == 0
    with np.load(tmp_path / "features" / "photographs.npz") as stored:
        assert width == 2 * stored["features"].shape[1]


@pytest.mark.slow
def test_a_part_of_the_splits_is_enough(arguments, tmp_path):
    options = ["--sources", "a*", "--penalties", "0.5", "--gammas", "2"]
    options += ["--train_split", "train[:14]", "--validation_split", "validation[:6]"]
    assert exit_status(compare_heads.main, *(arguments + options)) == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert result["splits"] == ["train[:14]", "validation[:6]"]
    assert result["n"]["validation split"] == [14, 6]
    assert sum(result["n"]["a*"]) == 20


def save_learner(make_model, path, arguments, *, split, rule=None, seed=0):
    """A learner that says it was trained on these images of the folder."""
    images = load_training_split("folder", split=split, data_dir=arguments[7], cache_dir=arguments[9])
    if rule is not None:
        images, _ = hold_out(images, rule, name="folder")
    stage = Stage(kind="finetune", **rated_images("folder", split, images["image_id"], hold_out=rule))
    learner = {
        "backbone": "test_resnet",
        "lineage": write_stages([stage]),
        **imagenet_weights("test_resnet").normalization(),
    }
    make_model(learner, distortion_labels=[], seed=seed).save_pretrained(path)


def test_what_a_learner_was_trained_on_is_not_measured_on(arguments, tmp_path, make_model, capsys):
    shared = ["--train_split", "train+validation", "--validation_split", "validation"]
    assert exit_status(compare_heads.main, *arguments, *shared) == 2
    assert "share 10 images; validate on others" in " ".join(capsys.readouterr().err.split())
    save_learner(make_model, tmp_path / "tuned" / "last", arguments, split="validation")
    assert exit_status(compare_heads.main, *arguments, "--init", str(tmp_path / "tuned" / "last")) == 2
    assert "has learned from 10 of the 10 images that it would be measured on (folder validation); take" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_test_split_is_refused(arguments, capsys):
    assert exit_status(compare_heads.main, *arguments, "--validation_split", "test") == 2
    assert "holds test images" in capsys.readouterr().err


@pytest.fixture
def distorted(tmp_path):
    """Options that name distorted images: 20 each of three rated photographs to learn from, and of two others."""
    rng = np.random.default_rng(0)
    options = []
    # Of the rated ones a2.png is in the validation split.
    parts = {"--distorted_dir": ["a0.png", "a2.png", "b1.png"], "--distorted_validation_dir": ["c.png", "d.png"]}
    for option, names in parts.items():
        pristine, output = tmp_path / f"pristine{option}", tmp_path / f"distorted{option}"
        pristine.mkdir()
        for name in names:
            pixels = rng.integers(256, size=(6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(pristine / name)
        settings = BuildSettings(per_image=20, metrics=("gmsd", "psnr"))
        assert all(part.built for part in build(pristine, names, output, settings))
        options += [option, str(output)]
    return options


@pytest.mark.slow
def test_distorted_images_weigh_in_but_not_those_of_the_photographs_measured_on(
    arguments, distorted, tmp_path, monkeypatch, capsys
):
    fit, seen = head_fitting.fit, []

    def record(model, head, training, distorted, kernel_penalty):
        seen.append(0 if distorted is None else len(distorted.features))
        fit(model, head, training, distorted, kernel_penalty)

    monkeypatch.setattr(head_fitting, "fit", record)
    options = ["--sources", "a*", "--penalties", "0.5", "--gammas", "--distorted_weights", "1"]
    assert exit_status(compare_heads.main, *arguments, *distorted, *options) == 0
    assert seen == [40] * 3 + [20] * 3  # at home without a2.png, then without both of the source
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert result["n_distorted"] == [60, 40]
    without, with_them = (result["heads"][f"linear, penalty 0.5{name}"] for name in ("", ", distorted images 1"))
    assert list(with_them) == ["validation split", "distorted images", "a*"]
    for place in with_them:
        assert with_them[place] != without[place]
    assert exit_status(compare_heads.main, *arguments, "--label", "of photographs alone", *options[:5]) == 0
    results = json.loads((tmp_path / "heads.json").read_text())
    assert list(results) == ["test_resnet", "of photographs alone"]
    assert "| of photographs alone | linear, cross-validated | " in heads_table(results).markdown()
    table = heads_table({"test_resnet": result}).markdown()
    assert "| backbone | head | validation split | distorted images | a*, left out |" in table

    assert exit_status(compare_heads.main, *arguments, *distorted[:2], "--distorted_validation_dir", distorted[1]) == 2
    assert "share 3 pristine photographs" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        compare_heads.main([*arguments, *distorted[:2]])


@pytest.mark.long
def test_the_mean_with_a_frozen_backbone(arguments, distorted, tmp_path, make_model, monkeypatch, capsys):
    # Small stand-ins have no ImageNet weights to download.
    learner = {"backbone": "test_resnet", **imagenet_weights("test_resnet").normalization()}
    make_model(learner, seed=5, distortion_labels=[]).save_pretrained(tmp_path / "imagenet")
    start = compare_heads.new_base_learner
    monkeypatch.setattr(
        compare_heads, "new_base_learner", lambda recipe, init: start(recipe, init=init or str(tmp_path / "imagenet"))
    )
    options = [*arguments, *distorted, "--sources", "a*", "--penalties", "1", "--gammas", "4"]
    assert exit_status(compare_heads.main, *options, "--with_imagenet") == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]["heads"]
    alone, mean = (
        result[f"linear, penalty 1, distorted images 0.1, and kernel, gamma 4{name}"]
        for name in ("", ", mean with the same on ImageNet weights")
    )
    assert list(alone) == list(mean) == ["validation split", "distorted images", "a*"]
    assert all(alone[place] != mean[place] for place in alone)

    # With the same learner twice there is nothing to gain, and nothing to lose.
    monkeypatch.setattr(compare_heads, "new_base_learner", lambda recipe, init: start(recipe, init=arguments[3]))
    (tmp_path / "features" / "imagenet").rename(tmp_path / "elsewhere")
    assert exit_status(compare_heads.main, *options, "--with_imagenet") == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]["heads"]
    for name in [name for name in result if "ImageNet" not in name]:
        for place, figure in result[name].items():
            assert result[f"{name}, mean with the same on ImageNet weights"][place] == pytest.approx(figure, abs=1e-4)

    without_init = [option for option in options if option not in ("--init", str(tmp_path / "learner"))]
    with pytest.raises(SystemExit):
        compare_heads.main([*without_init, "--with_imagenet"])
    assert "--with_imagenet goes with --init" in capsys.readouterr().err


def test_features_of_other_images_are_refused(arguments, tmp_path, capsys):
    (tmp_path / "features").mkdir()
    np.savez(tmp_path / "features" / "photographs.npz", features=np.zeros((30, 3)), sha256="other")
    assert exit_status(compare_heads.main, *arguments, "--penalties", "1", "--gammas") == 2
    assert "features of another learner or of other images" in " ".join(capsys.readouterr().err.split())


def test_a_source_that_is_not_there_is_one_sentence(arguments, capsys):
    assert exit_status(compare_heads.main, *arguments, "--sources", "zz*") == 2
    assert "holds out none of the 30 images" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_learner_for_each_source_is_measured_on_that_source_alone(arguments, tmp_path, make_model, capsys):
    def train(name, *, rule=None, split="train+validation", seed=0):
        save_learner(make_model, tmp_path / name / "last", arguments, split=split, rule=rule, seed=seed)

    def refused(*options):
        assert exit_status(compare_heads.main, *map(str, options)) == 2
        return " ".join(capsys.readouterr().err.split())

    for seed, source in enumerate("ab"):
        train(source, rule=f"{source}*", seed=seed)
    plain = [*arguments, "--penalties", "1", "--gammas"]
    options = [*plain, "--sources", "a*", "b*", "--init", str(tmp_path / "{source}" / "last")]
    assert exit_status(compare_heads.main, *options) == 0
    result = json.loads((tmp_path / "heads.json").read_text())["test_resnet"]
    assert result["start"] == "for each source a learner trained without it"
    alone = result["heads"]["linear, penalty 1"]
    assert list(alone) == ["a*", "b*"], "the validation split is not measured on"
    assert alone["a*"] != alone["b*"]

    # A learner that has seen the other source, or the validation split.
    message = refused(*plain, "--sources", "a*", "--init", tmp_path / "b" / "last")
    assert (
        "learned from 5 of the 10 images that it would be measured on (folder train+validation without b*)" in message
    )
    train("a", rule="b*")
    assert "learned from 15 of the 15 images" in refused(*options)
    train("a", split="train")
    features = ["--features", str(tmp_path / "features" / "everything")]
    everything = [*plain, *features, "--init", str(tmp_path / "a" / "last"), "--sources"]
    assert "learned from 10 of the 15 images" in refused(*everything, "a*")
    assert exit_status(compare_heads.main, *everything) == 0, "it may be measured at home"
    with pytest.raises(SystemExit):
        compare_heads.main([*arguments, "--init", str(tmp_path / "{source}" / "last")])
