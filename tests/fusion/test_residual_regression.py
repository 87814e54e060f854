"""Kriging on what scores leave over, against what the formulas in closed form stand for."""

import numpy as np
import pytest

from modeling_metaqap.fusion.expectation import choose_fit, cross_validated, learning_curve
from modeling_metaqap.fusion.residual_regression import draw_centers, fit_basis, fit_line, fit_residual, functions_of


@pytest.fixture
def made_up():
    """Features by two learners, scores, and ratings that are a line of the scores and a curve of the features."""
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(120, 9)) * 3.0 ** -np.arange(9), rng.normal(size=(120, 5))]
    scores = rng.uniform(0.2, 0.9, size=120)
    ratings = 0.1 + 0.7 * scores + 0.1 * np.sin(features[0][:, 0]) + 0.01 * rng.normal(size=120)
    return features, scores, ratings


def functions_at(features, *, centers=1000):
    drawn = draw_centers(len(features[0]), most=centers, seed=0)
    return functions_of([fit_basis(rows, drawn) for rows in features], features)


def test_the_functions_span_the_mean_of_the_learners_gaussians(made_up):
    features, _, _ = made_up
    functions = functions_at(features)[0.3]
    kernels = []
    for rows in features:
        apart = np.square(rows[:, None] - rows[None]).sum(axis=2)
        kernels.append(np.exp(-0.3 * apart / rows.var(axis=0).sum()))
    # The components and centres are rounded to half precision.
    np.testing.assert_allclose(functions.values @ functions.values.T, np.mean(kernels, axis=0), atol=5e-3)


@pytest.mark.parametrize("centers", [1000, 20])
@pytest.mark.parametrize("group_size", [1, 3])
def test_left_out_ratings_are_predicted_as_by_a_fit_without_them(made_up, centers, group_size):
    features, scores, ratings = made_up
    functions, rows = functions_at(features, centers=centers), np.arange(60)
    groups = rows // group_size
    fit = fit_residual(scores[rows], ratings[rows], functions, rows, groups=groups)
    line = fit_line(scores[rows], ratings[rows], groups=groups)
    for group in (0, 7, 19):
        out, others = rows[groups == group], rows[groups != group]
        again = fit_residual(
            scores[others], ratings[others], {fit.gamma: functions[fit.gamma]}, others, penalties=[fit.penalty]
        )
        np.testing.assert_allclose(fit.left_out[out], again.predict(scores[out], functions, out), atol=1e-9)
        lines = fit_line(scores[others], ratings[others]).predict(scores[out], functions, out)
        np.testing.assert_allclose(line.left_out[out], lines, atol=1e-9)


def test_photographs_that_are_there_twice_are_borne(made_up):
    features, scores, ratings = (np.repeat(part, 2, axis=-2 if np.ndim(part) == 3 else 0) for part in made_up[1:2] * 3)
    features = [np.repeat(rows, 2, axis=0) for rows in made_up[0]]
    ratings = np.repeat(made_up[2], 2)
    functions, rows = functions_at(features), np.arange(240)
    fit = fit_residual(scores, ratings, functions, rows, groups=rows // 2)
    assert np.isfinite(fit.left_out).all()
    assert np.abs(fit.left_out - ratings).mean() < 0.06


def test_gaussians_are_taken_where_they_help_and_not_where_ratings_are_noise(made_up):
    features, scores, ratings = made_up
    functions, rows = functions_at(features), np.arange(120)
    assert choose_fit(scores, ratings, functions, rows).gamma is not None
    shuffled = np.random.default_rng(1).permutation(ratings)
    chosen = choose_fit(scores, shuffled, functions, rows)
    assert chosen is None or chosen.slope > 0
    # Scores that agree perfectly stay as they are.
    assert choose_fit(scores, scores, functions, rows) is None or np.allclose(
        choose_fit(scores, scores, functions, rows).left_out, scores
    )


def test_the_expectation_grows_with_the_ratings(made_up):
    features, scores, ratings = made_up
    functions, groups = functions_at(features), np.arange(120)
    cross = cross_validated(scores, ratings, functions, groups=groups)
    curve = learning_curve(scores, ratings, functions, groups=groups, draws=4)
    assert [point["n"] for point in curve] == [0, 15, 25, 50, 96]
    assert curve[-1]["srocc"] > curve[0]["srocc"] + 0.02
    assert np.corrcoef(cross, ratings)[0, 1] > np.corrcoef(scores, ratings)[0, 1] + 0.02
    assert np.array_equal(cross, cross_validated(scores, ratings, functions, groups=groups))


def test_versions_of_a_photograph_are_never_torn_apart(made_up, monkeypatch):
    features, scores, ratings = made_up
    functions, groups = functions_at(features), np.arange(120) // 4
    from modeling_metaqap.fusion import expectation

    choose = expectation.choose_fit

    def checked(scores, ratings, functions, rows, *, groups):
        others = np.setdiff1d(np.arange(120), rows)
        torn.append(len(np.intersect1d(rows // 4, others // 4)))
        return choose(scores, ratings, functions, rows, groups=groups)

    torn = []
    monkeypatch.setattr(expectation, "choose_fit", checked)
    cross_validated(scores, ratings, functions, groups=groups, folds=5)
    assert torn == [0] * 5
