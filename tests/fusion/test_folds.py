"""Parts of images that are held out in turn."""

import numpy as np

from modeling_metaqap.fusion.folds import random_folds


def test_each_row_is_held_out_once_and_never_among_those_that_are_fitted():
    for number, folds in ((23, 5), (3, 10)):
        parts = list(random_folds(np.arange(number), folds=folds, seed=0))
        assert len(parts) == min(folds, number)
        assert sorted(np.concatenate([rows for _, rows in parts])) == list(range(number))
        assert max(len(rows) for _, rows in parts) - min(len(rows) for _, rows in parts) <= 1
        for others, rows in parts:
            assert sorted([*others, *rows]) == list(range(number))


def test_the_cut_is_drawn_from_the_seed():
    one, same, other = (
        [rows.tolist() for _, rows in random_folds(np.arange(20), folds=4, seed=seed)] for seed in (0, 0, 1)
    )
    assert one == same != other
