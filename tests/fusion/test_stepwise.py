"""Stepwise linear regression of opinion scores on base scores."""

import numpy as np
import pytest

from modeling_metaqap.fusion.stepwise import cross_fitted, fit_stepwise, shrink

#: Two predictors of ten images, of which the first is related to their numbers.
RISING = np.column_stack([np.arange(10.0) + np.eye(10)[3], np.eye(10)[5]])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=400)
    good = quality + 0.10 * rng.normal(size=400)
    other = quality + 0.12 * rng.normal(size=400)
    noise = rng.normal(size=400)
    return np.column_stack([good, other, noise]), quality


def test_related_learners_enter_best_first_and_noise_stays_out(data):
    scores, quality = data
    fit = fit_stepwise(scores, quality, names=["good", "other", "noise"])
    assert fit.selected == ["good", "other"]
    assert [(step.action, step.name) for step in fit.steps] == [("enter", "good"), ("enter", "other")]
    assert fit.weights[2] == 0


def test_the_weights_are_those_of_least_squares_on_the_selected_columns(data):
    scores, quality = data
    fit = fit_stepwise(scores, quality)
    design = np.column_stack([np.ones(len(quality)), scores[:, :2]])
    expected = np.linalg.lstsq(design, quality, rcond=None)[0]
    assert np.allclose([fit.intercept, *fit.weights[:2]], expected)
    assert np.allclose(fit.predict(scores), design @ expected)


def test_fusing_beats_the_best_single_learner(data):
    scores, quality = data
    fused = fit_stepwise(scores, quality).predict(scores)
    errors = [np.sqrt(np.mean((column - quality) ** 2)) for column in (fused, *scores.T)]
    assert errors[0] < min(errors[1:])


def test_a_predictor_that_later_ones_make_superfluous_is_removed():
    # The sum enters first, being closest to the target; with both of its parts in, nothing is left for it.
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(500, 2))
    target = parts @ [1.0, 0.8] + 0.05 * rng.normal(size=500)
    rough_sum = parts.sum(axis=1) + 0.3 * rng.normal(size=500)
    fit = fit_stepwise(np.column_stack([rough_sum, parts]), target, names=["sum", "first", "second"])
    assert [step.name for step in fit.steps if step.action == "remove"] == ["sum"]
    assert sorted(fit.selected) == ["first", "second"]


def test_a_significant_but_tiny_coefficient_does_not_enter():
    rng = np.random.default_rng(2)
    main, tiny = rng.normal(size=(2, 20_000))
    target = main + 0.03 * tiny + 0.1 * rng.normal(size=20_000)
    scores = np.column_stack([main, tiny])
    assert fit_stepwise(scores, target).weights[1] == 0
    assert fit_stepwise(scores, target, min_beta=0.01).weights[1] != 0


def test_a_copy_of_a_learner_does_not_enter_twice(data):
    scores, quality = data
    fit = fit_stepwise(np.column_stack([scores[:, 0], scores[:, 0] * 2 + 1]), quality)
    assert len(fit.selected) == 1


def test_constant_and_missing_columns_are_left_out_and_named(data):
    scores, quality = data
    missing = scores[:, 1].copy()
    missing[3] = np.nan
    columns = np.column_stack([scores[:, 0], np.full(400, 0.5), missing])
    fit = fit_stepwise(columns, quality, names=["good", "constant", "missing"])
    assert fit.selected == ["good"]
    assert set(fit.excluded) == {"constant", "missing"}
    assert np.isfinite(fit.predict(columns)).all()


def test_shrinkage_moves_the_selected_weights_to_equal_ones(data):
    scores, quality = data
    free, half, equal = (fit_stepwise(scores, quality, shrinkage=shrinkage) for shrinkage in (0, 0.5, 1))
    assert np.array_equal(free.weights, free.least_squares)
    mean = free.weights[:2].mean()
    assert np.allclose(equal.weights, [mean, mean, 0]), "what was not selected stays out"
    assert np.allclose(half.weights, (free.weights + equal.weights) / 2)
    for fit in (half, equal):
        assert np.array_equal(fit.least_squares, free.weights)
        assert fit.steps == free.steps
        assert fit.predict(scores).mean() == pytest.approx(quality.mean())


def test_with_sizes_it_is_the_learners_behind_a_predictor_that_get_equal_weights(data):
    scores, quality = data
    fit = fit_stepwise(scores[:, :2], quality, shrinkage=1, sizes=[1, 3])
    assert fit.weights[1] == pytest.approx(3 * fit.weights[0])
    assert fit.weights.sum() == pytest.approx(fit.least_squares.sum())


def test_shrinkage_goes_to_equal_weights_with_the_same_sum():
    assert shrink([0.6, 0.0, 0.2], 0).tolist() == [0.6, 0.0, 0.2]
    assert shrink([0.6, 0.0, 0.2], 0.5) == pytest.approx([0.5, 0.0, 0.3])
    assert shrink([0.6, 0.0, 0.2], 1, sizes=[1, 5, 3]) == pytest.approx([0.2, 0.0, 0.6])
    assert shrink([0.0, 0.0], 0.5).tolist() == [0.0, 0.0]
    for shrinkage in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="must lie in"):
            shrink([0.5, 0.5], shrinkage)
    for sizes in ([1, 1, 1], [0, 1]):
        with pytest.raises(ValueError, match="Need 2 sizes of at least 1"):
            shrink([0.5, 0.5], 0.5, sizes=sizes)


@pytest.mark.parametrize(
    ("scores", "targets", "options", "message"),
    [
        (np.zeros((10, 2)), np.arange(9.0), {}, "targets"),
        (np.ones((10, 1)), np.ones(10), {}, "not all the same"),
        (np.ones((10, 1)), np.arange(10.0), {}, "of these 10 images well enough to be selected .p at most 0.05"),
        (np.eye(4), np.arange(4.0), {}, "too few"),
        (np.eye(10)[:, :2], np.arange(10.0), {"p_enter": 0.2}, "p_enter"),
        (np.eye(10)[:, :2], np.arange(10.0), {"names": ["one"]}, "names"),
        (RISING, np.arange(10.0), {"shrinkage": 1.5}, r"shrinkage must lie in \[0, 1\], got 1.5"),
        (RISING, np.arange(10.0), {"sizes": [1]}, "2 sizes"),
        (RISING, np.arange(10.0), {"sizes": [1, 0]}, "2 sizes of at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(scores, targets, options, message):
    with pytest.raises(ValueError, match=message):
        fit_stepwise(scores, targets, **options)


def test_three_images_more_than_predictors_are_enough():
    targets = np.arange(5.0)
    assert fit_stepwise(np.column_stack([targets + 0.1 * np.eye(5)[2], np.eye(5)[1]]), targets).selected == [
        "learner 0"
    ]


def test_each_image_is_fused_by_a_meta_learner_that_has_not_seen_it():
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=30)
    scores = np.column_stack([quality + 0.1 * rng.normal(size=30), rng.normal(size=30)])
    fused = cross_fitted(scores, quality, folds=5, seed=3)
    changed = quality.copy()
    changed[7] += 1.0
    others = cross_fitted(scores, changed, folds=5, seed=3)
    same = fused == others
    assert same[7] and same.sum() == 6, "the one fold that its image is in"
    inside = fit_stepwise(scores, quality).predict(scores)
    assert ((fused - quality) ** 2).mean() > ((inside - quality) ** 2).mean()
    assert ((fused - quality) ** 2).mean() < quality.var() / 4
    both = np.column_stack([scores[:, 0], quality + 0.3 * rng.normal(size=30)])
    free, equal = (cross_fitted(both, quality, shrinkage=shrinkage) for shrinkage in (0, 1))
    assert np.corrcoef(equal, both.mean(axis=1))[0, 1] > np.corrcoef(free, both.mean(axis=1))[0, 1]
    weighted = cross_fitted(both, quality, shrinkage=1, sizes=[1, 3])
    assert np.corrcoef(weighted, both @ [1, 3])[0, 1] > np.corrcoef(equal, both @ [1, 3])[0, 1]
    assert np.array_equal(cross_fitted(scores, quality, folds=99), cross_fitted(scores, quality, folds=30))


def test_images_whose_other_folds_select_no_learner_get_the_mean_of_those():
    """With few images a weak learner may be selected on all of them, and not on each nine tenths."""
    rng = np.random.default_rng(2)
    quality = rng.uniform(size=30)
    scores = (quality + 0.7 * rng.normal(size=30))[:, None]
    assert fit_stepwise(scores, quality).selected == ["learner 0"]
    order = np.random.default_rng(0).permutation(30)  # as they are cut into ten folds
    folds = np.array_split(order, 10)
    means = np.repeat([np.delete(quality, fold).mean() for fold in folds], 3)
    of_the_mean = np.isclose(cross_fitted(scores, quality)[order], means).reshape(10, 3)
    assert of_the_mean.all(axis=1).sum() == of_the_mean.any(axis=1).sum() == 4


def test_a_good_predictor_stays_where_a_constant_one_has_its_name(data):
    scores, quality = data
    both = np.column_stack([np.ones(len(quality)), scores[:, 0]])
    fit = fit_stepwise(both, quality, names=["twin", "twin"])
    assert fit.weights[0] == 0 and fit.weights[1] > 0.5
    assert fit.excluded == {"twin": "its scores are constant"}


def test_a_learner_with_one_missing_score_is_left_out_of_every_fold(data):
    scores, quality = data
    spoilt = scores.copy()
    spoilt[7, 0] = np.nan
    fused = cross_fitted(spoilt, quality)
    assert np.isfinite(fused).all()
    np.testing.assert_array_equal(fused, cross_fitted(np.delete(scores, 0, axis=1), quality))


@pytest.mark.parametrize("difference", [1e-2, 1e-3, 1e-5])
def test_near_duplicates_get_no_huge_weights(difference):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        quality = rng.uniform(size=150)
        learner = quality + 0.2 * rng.normal(size=150)
        twins = [learner + difference * 0.2 * rng.normal(size=150) for _ in range(3)]
        fit = fit_stepwise(np.column_stack([learner, *twins]), quality)
        assert np.abs(fit.least_squares).max() < 10, seed
