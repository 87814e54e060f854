"""Which photographs to rate next."""

import numpy as np

from modeling_metaqap.fusion.residual_regression import USUAL, draw_centers, fit_basis, functions_of
from modeling_metaqap.fusion.suggesting import most_instructive


def functions_at(features):
    drawn = draw_centers(len(features))
    return functions_of([fit_basis(features, drawn)], [features])[USUAL[0]].values


def test_each_kind_of_photograph_is_named_before_any_kind_comes_again():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(4), 15)
    features = np.eye(4)[kinds] * 10 + rng.normal(size=(60, 4)) * 0.1
    chosen = most_instructive(np.zeros(60), functions_at(features), np.array([], dtype=int), 4)
    assert sorted(kinds[chosen]) == [0, 1, 2, 3]


def test_what_is_rated_is_neither_named_again_nor_forgotten():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(3), 15)
    features = np.eye(3)[kinds] * 10 + rng.normal(size=(45, 3)) * 0.1
    rated = np.flatnonzero(kinds < 2)
    chosen = most_instructive(np.zeros(45), functions_at(features), rated, 1)
    assert kinds[chosen[0]] == 2


def test_the_first_choice_is_the_one_that_lowers_the_variance_most():
    rng = np.random.default_rng(1)
    features, scores = rng.normal(size=(20, 3)), rng.uniform(size=20)
    values = functions_at(features)
    line = np.column_stack([np.ones(20), (scores - scores.mean()) / scores.std()])
    kernel = values @ values.T + line @ line.T
    left = [np.trace(kernel) - np.square(kernel[row]).sum() / (kernel[row, row] + USUAL[1]) for row in range(20)]
    assert most_instructive(scores, values, np.array([], dtype=int), 1) == [int(np.argmin(left))]
