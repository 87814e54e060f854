"""What a learner was trained on, as its checkpoint or its run folder says, is not measured on."""

import datasets
import pytest

from modeling_metaqap.errors import DataError, MetaQAPError
from modeling_metaqap.training import provenance
from modeling_metaqap.training.provenance import origins, parts_of, refuse_seen, training_summary
from modeling_metaqap.training.recipe import Recipe


@pytest.fixture
def learner(make_model, tmp_path):
    """Save a learner into a run folder whose recipe has some settings, or outside of any; its path."""

    def learner(name="run/last", *, summary=None, **settings):
        path = tmp_path / name
        make_model("test_resnet", training_summary=summary).save_pretrained(path)
        if settings:
            Recipe(backbone="test_resnet", **settings).save(path.parent / "recipe.yaml")
        return path

    return learner


def images(*ids):
    return datasets.Dataset.from_dict({"image_id": ids, "reference_id": [None] * len(ids)})


@pytest.fixture
def splits(monkeypatch):
    """Stand in for the data sets: images of the training split are a0 to a3 and b0, of the validation split b1."""
    ids = {"train": ["a0", "a1", "a2", "a3", "b0"], "validation": ["b1"], "train[:2]": ["a0", "a1"]}

    def load(name, *, split, data_dir, cache_dir):
        if split == "gone":
            raise DataError("There is no such split.")
        return images(*sum((ids[part] for part in split.split("+")), []))

    monkeypatch.setattr(provenance, "load_training_split", load)
    return lambda split: load("", split=split, data_dir=None, cache_dir=None)


def test_a_run_folder_tells_what_its_learners_were_trained_on(learner):
    assert origins(learner("outside/learner")) == {}
    assert origins(learner("plain/last", dataset="biq2021")) == {"trained_on": "biq2021 train"}
    cut = learner("cut/last", dataset="biq2021", train_split="train[:2] + validation")
    assert origins(cut) == {"trained_on": "biq2021 train[:2]+validation"}
    held_out = learner("held-out/last", dataset="biq2021", hold_out="cats and dogs*")
    assert origins(held_out) == {"trained_on": "biq2021 train+validation without cats and dogs*"}
    assert origins(learner("pretrained/last", stage="pretrain")) == {}, "no opinions"


def test_a_checkpoint_tells_it_itself(learner):
    said = {"trained_on": "koniq10k train", "trained_with": "more", "measured_there": {"plcc": 0.9}}
    assert origins(learner(summary=said, dataset="biq2021")) == {
        "trained_on": "koniq10k train",
        "trained_with": "more",
    }
    parts = parts_of("biq2021 train; koniq10k train+validation without fold 1 of 5; much")
    assert [str(part) for part in parts[:2]] == ["biq2021 train", "koniq10k train+validation without fold 1 of 5"]
    assert (parts[1].dataset, parts[1].split, parts[1].rule) == ("koniq10k", "train+validation", "fold 1 of 5")
    assert parts[2] is None and parts_of("") == [None]


def test_what_a_run_says_of_its_learners():
    recipe = Recipe(backbone="test_resnet", dataset="biq2021")
    assert training_summary(recipe, images("a")) == {"trained_on": "biq2021 train"}
    assert training_summary(Recipe(backbone="test_resnet", stage="pretrain"), images("a")) is None
    recipe = Recipe(backbone="test_resnet", dataset="folder")
    said = training_summary(recipe, images("a", "b"))
    assert said == training_summary(recipe, images("b", "a")) != training_summary(recipe, images("a", "c"))


@pytest.mark.parametrize(
    ("said", "split", "seen"),
    [
        ("biq2021 train", "train", 5),
        ("biq2021 train", "validation", 0),
        ("biq2021 train+validation", "validation", 1),
        ("biq2021 train[:2]", "train+validation", 2),
        ("biq2021 train+validation without a*", "train", 1),
        ("koniq10k train", "train", 0),
        ("koniq10k train; biq2021 train", "train", 5),
        ("whatever people wrote there", "train", 0),
    ],
)
def test_images_that_a_learner_has_seen_are_refused(said, split, seen, learner, splits):
    path, scored = learner("fused", summary={"trained_on": said}), splits(split)
    if not seen:
        refuse_seen(path, scored, dataset="biq2021")
        return
    with pytest.raises(MetaQAPError, match=rf"was trained on {seen} of the {len(scored)} images .* take images that"):
        refuse_seen(path, scored, dataset="biq2021")


def test_folders_of_images_are_told_apart_by_their_ids(learner, splits):
    recipe = Recipe(backbone="test_resnet", dataset="folder")
    same, other = (training_summary(recipe, learned) for learned in (splits("train"), images("a0", "x")))
    refuse_seen(learner(summary=other), splits("train"), dataset="folder")
    with pytest.raises(MetaQAPError, match="was trained on 5 of the 5 images"):
        refuse_seen(learner(summary=same), splits("train"), dataset="folder")
    both = {"trained_on": "folder train", "trained_on_sha256": f"0; {same['trained_on_sha256']}"}
    with pytest.raises(MetaQAPError, match="was trained on 5 of the 5 images"):
        refuse_seen(learner(summary=both), splits("train"), dataset="folder")
    # A folder that has no such split is another one; a data set has them all.
    refuse_seen(learner(summary=same | {"trained_on": "folder gone"}), splits("train"), dataset="folder")
    with pytest.raises(DataError):
        refuse_seen(learner(summary={"trained_on": "biq2021 gone"}), splits("train"), dataset="biq2021")
