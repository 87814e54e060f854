"""What weights were made of is not measured on."""

import datasets
import pytest

from modeling_metaqap.data import seen
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import DataError, MetaQAPError
from modeling_metaqap.lineage import DistortedImages, Stage, rated_images

IDS = {"train": ["a0", "a1", "a2", "a3", "b0"], "validation": ["b1"], "train[:2]": ["a0", "a1"]}


def images(*ids):
    return datasets.Dataset.from_dict({"image_id": ids, "reference_id": [None] * len(ids)})


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    """Stand in for the data sets: images of the training split are a0 to a3 and b0, of the validation split b1."""

    def load(name, *, split, data_dir, cache_dir, **options):
        if split == "gone":
            raise DataError("There is no such split.")
        return images(*sum((IDS[one] for one in split.split("+")), []))

    monkeypatch.setattr(seen, "load_training_split", load)
    return lambda split: load("", split=split, data_dir=None, cache_dir=None)


def learned(dataset, split, *ids, kind="finetune", rule=None):
    return Stage(kind=kind, **rated_images(dataset, split, ids, hold_out=rule))


@pytest.mark.parametrize(
    ("stages", "split", "count"),
    [
        ([learned("biq2021", "train")], "train", 5),
        ([learned("biq2021", "train")], "validation", 0),
        ([learned("biq2021", "train+validation")], "validation", 1),
        ([learned("biq2021", "train[:2]")], "train+validation", 2),
        ([learned("biq2021", "train+validation", rule="a*")], "train", 1),
        ([learned("koniq10k", "train")], "train", 0),
        ([learned("koniq10k", "train"), learned("biq2021", "train")], "train", 5),
        # In whatever stage, and however often.
        ([learned("biq2021", "train[:2]", kind="heads")], "train", 2),
        ([learned("biq2021", "validation", kind="fusion")], "validation", 1),
        ([learned("biq2021", "train"), learned("biq2021", "validation", kind="fusion")], "train+validation", 6),
        # Pretraining knows no opinions.
        ([Stage(kind="pretrain", distorted=DistortedImages.of(["a0"], dataset="biq2021"))], "train", 0),
        ([], "train", 0),
    ],
)
def test_images_that_any_stage_has_learned_from_are_refused(stages, split, count, splits):
    measured = splits(split)
    if not count:
        refuse_seen(stages, measured, weights="runs/one", dataset="biq2021")
        return
    with pytest.raises(MetaQAPError, match=rf"^runs/one has learned from {count} of the {len(measured)} images .*;"):
        refuse_seen(stages, measured, weights="runs/one", dataset="biq2021")


def test_the_message_says_by_which_stage(splits):
    stages = [learned("biq2021", "train"), learned("biq2021", "train+validation", rule="a*")]
    with pytest.raises(MetaQAPError, match=r"\(biq2021 train; biq2021 train\+validation without a\*\); take images"):
        refuse_seen(stages, splits("train"), weights="runs/one", dataset="biq2021")


def test_folders_of_images_are_told_apart_by_their_ids(splits):
    same, other = learned("folder", "train", *IDS["train"]), learned("folder", "train", "a0", "x")
    refuse_seen([other], splits("train"), weights="it", dataset="folder")
    for stages in ([same], [other, same]):
        with pytest.raises(MetaQAPError, match="learned from 5 of the 5 images"):
            refuse_seen(stages, splits("train"), weights="it", dataset="folder")
    with pytest.raises(MetaQAPError, match="learned from 5 of the 6 images"):
        refuse_seen([same], splits("train+validation"), weights="it", dataset="folder")


def test_a_folder_without_such_a_split_is_another_one_unless_it_has_just_these_images(splits):
    refuse_seen([learned("folder", "gone", "x")], splits("train"), weights="it", dataset="folder")
    with pytest.raises(MetaQAPError, match="learned from 5 of the 5"):
        refuse_seen([learned("folder", "gone", *IDS["train"])], splits("train"), weights="it", dataset="folder")
    # A data set has all its splits, so something is missing.
    with pytest.raises(DataError):
        refuse_seen([learned("biq2021", "gone", "x")], splits("train"), weights="it", dataset="biq2021")
