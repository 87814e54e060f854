"""What a learner was trained on, told by its run folder or its checkpoint, is not measured on."""

import datasets
import pytest

from modeling_metaqap.training import Recipe, RecipeError, data_sets_of, provenance, refuse_seen, trained_on


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


@pytest.fixture
def splits(monkeypatch):
    """Stand in for the data sets: images of the training split are a0 to a3 and b0, of the validation split b1."""
    ids = {"train": ["a0", "a1", "a2", "a3", "b0"], "validation": ["b1"], "train[:2]": ["a0", "a1"]}

    def load(name, *, split, data_dir, cache_dir):
        found = sum((ids[part] for part in split.split("+")), [])
        return datasets.Dataset.from_dict({"image_id": found, "reference_id": [None] * len(found)})

    monkeypatch.setattr(provenance, "load_training_split", load)
    return lambda split: load("", split=split, data_dir=None, cache_dir=None)


def test_a_run_folder_tells_what_its_learners_were_trained_on(learner):
    assert trained_on(learner("outside/learner")) is None
    assert trained_on(learner("plain/last", dataset="biq2021")) == "biq2021 train"
    assert trained_on(learner("cut/last", dataset="biq2021", train_split="train[:2]")) == "biq2021 train[:2]"
    held_out = learner("held-out/last", dataset="biq2021", hold_out="ss01*")
    assert trained_on(held_out) == "biq2021 train+validation without ss01*"
    assert trained_on(learner("pretrained/last", stage="pretrain")) is None, "no opinions"


def test_a_checkpoint_tells_it_itself(learner):
    assert trained_on(learner("fused", summary={"trained_on": "biq2021 train"})) == "biq2021 train"
    assert data_sets_of("biq2021 train and koniq10k train_full and biq2021 train without a*") == [
        "biq2021",
        "koniq10k",
    ]
    assert data_sets_of("") == []


@pytest.mark.parametrize(
    ("said", "split", "seen"),
    [
        ("biq2021 train", "train", 5),
        ("biq2021 train", "validation", 0),
        ("biq2021 train+validation", "validation", 1),
        ("biq2021 train[:2]", "train+validation", 2),
        ("biq2021 train+validation without a*", "train", 1),
        ("koniq10k train", "train", 0),
        ("koniq10k train and biq2021 train", "train", 5),
        ("whatever people wrote there", "train", 0),
    ],
)
def test_images_that_a_learner_has_seen_are_refused(said, split, seen, learner, splits):
    path, images = learner("fused", summary={"trained_on": said}), splits(split)
    if not seen:
        refuse_seen(path, images, dataset="biq2021")
        return
    with pytest.raises(RecipeError, match=rf"was trained on {seen} of the {len(images)} images .* take images that"):
        refuse_seen(path, images, dataset="biq2021")


def test_a_folder_of_images_is_known_by_the_run_alone(learner, splits):
    images = splits("train")
    # Two folders have the same name.
    refuse_seen(learner("fused", summary={"trained_on": "folder train"}), images, dataset="folder")
    with pytest.raises(RecipeError, match="was trained on 5 of the 5 images"):
        refuse_seen(learner(dataset="folder"), images, dataset="folder")
