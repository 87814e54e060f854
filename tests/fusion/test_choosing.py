"""Which learners are kept where fewer than all are wanted."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling_metaqap.evaluation.metrics import srocc
from modeling_metaqap.fusion.choosing import choose_learners
from modeling_metaqap.inference.predicting import interval_radii


@pytest.fixture
def scores_and_targets():
    """A good learner, its double, a second opinion of middling worth, and noise."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=400)
    good = quality + rng.normal(scale=0.10, size=400)
    double = good + rng.normal(scale=0.01, size=400)
    other = quality + rng.normal(scale=0.14, size=400)
    return np.column_stack([other, good, double, rng.normal(size=400)]), quality


def test_the_best_comes_first_and_then_what_adds_most(scores_and_targets):
    scores, quality = scores_and_targets
    chosen = choose_learners(scores, quality, np.zeros_like(scores))
    assert [len(one["learners"]) for one in chosen] == [1, 2, 3, 4]
    assert chosen[0]["learners"] in ([1], [2])
    # The double knows nothing new: the weaker learner with errors of its own adds more.
    assert chosen[1]["learners"] in ([0, 1], [0, 2])
    assert chosen[1]["srocc"] > chosen[0]["srocc"]
    assert chosen[1]["interval_radius"] < chosen[0]["interval_radius"]


def test_each_has_a_meta_learner_of_its_own(scores_and_targets):
    scores, quality = scores_and_targets
    distances = np.random.default_rng(1).normal(size=scores.shape)
    for one in choose_learners(2 * scores + 5, quality, distances):
        fused = (2 * scores + 5)[:, one["learners"]] @ one["weights"] + one["intercept"]
        assert fused.mean() == pytest.approx(quality.mean())
        assert srocc(fused, quality) == pytest.approx(one["srocc"], abs=0.02)
        config = SimpleNamespace(**one)
        columns = (2 * scores + 5)[:, one["learners"]], distances[:, one["learners"]]
        inside = np.abs(fused - quality) <= interval_radii(config, fused, *columns)
        assert inside.mean() == pytest.approx(0.9, abs=0.02)
        assert one["familiar_distances"][0] == pytest.approx(columns[1].mean(axis=1).min(), abs=1e-3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="base scores"):
        choose_learners(np.zeros((4, 2)), np.zeros(3), np.zeros((4, 2)))
