"""`load_iqa_dataset` and the base that all the builders share."""

import pytest

from modeling_metaqap.data.iqa_datasets import load_iqa_dataset
from modeling_metaqap.data.iqa_datasets.base import hashed_cut


def test_an_unknown_data_set_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"no data set 'biq'; choose from .*biq2021"):
        load_iqa_dataset("biq", split="train")


@pytest.mark.parametrize("split", ["training", "train_3", "test_10", "tset[:3]"])
def test_an_unknown_split_is_refused_with_the_known_names(split):
    with pytest.raises(
        ValueError, match="no split .* of BIQ2021; choose from train, validation, test, train_full, all"
    ):
        load_iqa_dataset("biq2021", split=split)


@pytest.mark.parametrize("split", ["", "train-test", "Train", "train[:3"])
def test_what_cannot_be_a_split_is_refused(split):
    with pytest.raises(ValueError, match="is not a split"):
        load_iqa_dataset("biq2021", split=split)


def test_a_composed_split_cannot_be_sliced():
    with pytest.raises(ValueError, match="'train_full' cannot be sliced; slice train and validation instead"):
        load_iqa_dataset("biq2021", split="train_full[:10]")


def test_a_hashed_cut_depends_on_nothing_but_the_names_and_the_key():
    names = [f"I{i:02d}.png" for i in range(50)]

    cut = hashed_cut(names, 0.2, key="a")

    assert len(cut) == 10
    assert cut == hashed_cut(reversed(names * 3), 0.2, key="a")
    assert cut != hashed_cut(names, 0.2, key="b")
