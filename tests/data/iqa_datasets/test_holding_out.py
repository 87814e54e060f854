import datasets
import numpy as np
import pytest

from modeling_metaqap.data.iqa_datasets import hold_out
from modeling_metaqap.data.iqa_datasets.holding_out import fold_of
from modeling_metaqap.errors import DataError


@pytest.fixture
def rated():
    ids = [f"ss0{1 + index % 3} ({index}).jpg" for index in range(60)]
    return datasets.Dataset.from_dict({"image_id": ids, "reference_id": [None] * 60, "quality": [0.5] * 60})


def test_folds_are_disjoint_of_one_size_and_together_everything(rated):
    held_out = []
    for fold in (1, 2, 3, 4):
        rest, held = hold_out(rated, f"fold {fold} of 4", name="biq2021")
        assert len(held) == 15 and sorted([*rest["image_id"], *held["image_id"]]) == sorted(rated["image_id"])
        assert not set(rest["image_id"]) & set(held["image_id"])
        held_out += held["image_id"]
    assert sorted(held_out) == sorted(rated["image_id"])


def test_a_fold_depends_on_the_images_alone(rated):
    shuffled = rated.shuffle(seed=1)
    _, held = hold_out(rated, "fold 1 of 3", name="biq2021")
    assert set(hold_out(shuffled, "fold 1 of 3", name="biq2021")[1]["image_id"]) == set(held["image_id"])
    assert set(hold_out(rated, "fold 1 of 3", name="other")[1]["image_id"]) != set(held["image_id"])


def test_versions_of_one_photograph_stay_together():
    groups = [f"photograph {index // 5}" for index in range(100)]
    folds = fold_of(groups, 4, key="x")
    assert len(set(zip(groups, folds, strict=True))) == 20
    assert np.bincount(folds).tolist() == [25, 25, 25, 25]


def test_a_pattern_holds_out_the_images_of_one_source(rated):
    rest, held = hold_out(rated, "ss02*", name="biq2021")
    assert {image_id[:4] for image_id in held["image_id"]} == {"ss02"} and len(held) == 20
    assert {image_id[:4] for image_id in rest["image_id"]} == {"ss01", "ss03"}


@pytest.mark.parametrize("rule", ["fold 0 of 5", "fold 6 of 5", "fold 1 of 1", "ss04*", "*"])
def test_a_rule_that_leaves_one_side_empty_is_refused(rule, rated):
    with pytest.raises(DataError, match=r"There is no|holds out (none|all) of the 60 images"):
        hold_out(rated, rule, name="biq2021")
