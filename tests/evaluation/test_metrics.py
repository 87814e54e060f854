"""The published figures: values worked out by hand, and defined behaviour at the edges."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from modeling_metaqap.evaluation.evaluate_metric import IQAMetric
from modeling_metaqap.evaluation.metrics import (
    METRICS,
    LogisticFit,
    bootstrap_interval,
    evaluate_scores,
    fit_logistic,
    krocc,
    plcc,
    plcc_logistic,
    rmse,
    srocc,
)

CORRELATIONS = [plcc, srocc, krocc, plcc_logistic]


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.random(200)
    return targets + 0.1 * rng.standard_normal(200), targets


def test_values_worked_out_by_hand():
    predictions, targets = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 6.0]

    # Deviations (-1.5, -.5, .5, 1.5) and (-2, 0, -1, 3): 7 / sqrt(5 * 14).
    assert plcc(predictions, targets) == pytest.approx(7 / math.sqrt(70))
    # Rank differences (0, 1, 1, 0): 1 - 6 * 2 / (4 * 15).
    assert srocc(predictions, targets) == pytest.approx(0.8)
    # Five concordant pairs and one discordant: (5 - 1) / 6.
    assert krocc(predictions, targets) == pytest.approx(4 / 6)
    # Errors (0, 1, 1, 2): sqrt(6 / 4).
    assert rmse(predictions, targets) == pytest.approx(math.sqrt(1.5))


def test_ties_get_their_mean_rank():
    # Ranks (1.5, 1.5, 3, 4) and (1, 2, 3, 4): covariance 4.5, variances 4.5 and 5.
    assert srocc([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # Tau-b: five concordant pairs of six, one tied: 5 / sqrt(5 * 6).
    assert krocc([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(5 / math.sqrt(30))


@pytest.mark.parametrize("direction", [1, -1])
def test_the_logistic_recovers_the_curve_that_made_the_data(direction):
    curve = LogisticFit(beta1=90.0, beta2=10.0, beta3=direction * 0.4, beta4=0.15)
    x = np.linspace(-1.0, 1.0, 101)
    y = curve(x)

    fit = fit_logistic(direction * x, y if direction == 1 else LogisticFit(90.0, 10.0, 0.4, 0.15)(x))

    np.testing.assert_allclose(fit(direction * x), y if direction == 1 else fit(-x), atol=1e-6)
    assert fit.beta4 == pytest.approx(0.15, rel=1e-4)
    assert {round(fit.beta1, 3), round(fit.beta2, 3)} == {90.0, 10.0}
    assert fit.beta3 == pytest.approx(direction * 0.4, abs=1e-4)


def test_the_logistic_undoes_a_saturating_scale():
    x = np.linspace(0.0, 1.0, 100)
    y = LogisticFit(beta1=1.0, beta2=0.0, beta3=0.5, beta4=0.05)(x)

    assert plcc(x, y) < 0.96
    assert plcc_logistic(x, y) == pytest.approx(1.0, abs=1e-6)


def test_the_logistic_figure_is_never_worse_than_the_linear_one(scores):
    assert plcc_logistic(*scores) >= plcc(*scores)
    assert plcc_logistic([0.0, 1.0], [3.0, 5.0]) == pytest.approx(1.0)


def test_the_logistic_does_not_turn_a_wrong_direction_into_a_good_figure(scores):
    predictions, targets = scores

    assert plcc_logistic(-predictions, targets) == pytest.approx(-plcc_logistic(predictions, targets), abs=1e-6)


@pytest.mark.parametrize("statistic", CORRELATIONS)
def test_correlations_ignore_the_scale_and_follow_the_direction(statistic, scores):
    predictions, targets = scores
    value = statistic(predictions, targets)

    assert 0.7 < value < 1
    assert statistic(100 * predictions + 7, targets) == pytest.approx(value, abs=1e-5)
    assert statistic(predictions, -targets) == pytest.approx(-value, abs=1e-5)


@pytest.mark.parametrize("statistic", CORRELATIONS)
@pytest.mark.parametrize(("predictions", "targets"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [0.1, 0.1, 0.1])])
@pytest.mark.filterwarnings("error")
def test_a_correlation_with_a_constant_is_nan(statistic, predictions, targets):
    assert math.isnan(statistic(predictions, targets))


def test_the_error_of_a_constant_is_defined():
    assert rmse([2, 2], [1, 3]) == 1.0


@pytest.mark.parametrize("statistic", METRICS.values())
def test_a_column_of_logits_is_accepted(statistic, scores):
    predictions, targets = scores

    assert statistic(predictions[:, None], targets) == statistic(predictions, targets)


@pytest.mark.parametrize("statistic", METRICS.values())
@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([0.1, math.nan, math.inf], [1, 2, 3], r"2 of 3 predictions are not finite \(at 1, 2\)"),
        ([math.nan] * 9, [1] * 9, r"9 of 9 predictions are not finite \(at 0, 1, 2, 3, 4, \.\.\.\)"),
        ([1, 2], [0.5, -math.inf], r"1 of 2 targets are not finite \(at 1\)"),
        ([1, 2], [1, 2, 3], "2 predictions but 3 targets"),
        ([[1, 2], [3, 4]], [1, 2], r"predictions must have the shape \(n,\) or \(n, 1\), not \(2, 2\)"),
        ([1], [1], "At least two images"),
        ([], [], "At least two images"),
    ],
)
def test_wrong_input_is_one_clear_error(statistic, predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        statistic(predictions, targets)


def test_nothing_can_be_fitted_to_constant_predictions():
    with pytest.raises(ValueError, match="all the same"):
        fit_logistic([1, 1, 1], [1, 2, 3])


def test_the_bootstrap_interval_is_seeded_and_brackets_the_figure(scores):
    interval = bootstrap_interval(*scores, plcc, seed=3, n_bootstrap=200)

    assert interval == bootstrap_interval(*scores, plcc, seed=3, n_bootstrap=200)
    assert interval != bootstrap_interval(*scores, plcc, seed=4, n_bootstrap=200)
    assert interval[0] < plcc(*scores) < interval[1]


def test_the_bootstrap_interval_agrees_with_fishers(scores):
    value = plcc(*scores)
    # Fisher's interval for normal data: tanh(atanh(r) -+ 1.96 / sqrt(n - 3)).
    fisher = np.tanh(np.arctanh(value) + np.array([-1.96, 1.96]) / math.sqrt(197))

    np.testing.assert_allclose(bootstrap_interval(*scores, plcc, seed=0), fisher, atol=0.01)


def test_a_narrower_confidence_gives_a_narrower_interval(scores):
    wide = bootstrap_interval(*scores, srocc, seed=0, n_bootstrap=200)
    narrow = bootstrap_interval(*scores, srocc, seed=0, n_bootstrap=200, confidence=0.5)

    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_draws_without_a_value_are_left_out():
    # With two images, half of the draws are constant.
    assert bootstrap_interval([0, 1], [0, 1], plcc, seed=0, n_bootstrap=50) == (1.0, 1.0)
    assert np.isnan(bootstrap_interval([1, 1], [0, 1], plcc, seed=0, n_bootstrap=5)).all()


@pytest.mark.parametrize("options", [{"n_bootstrap": 0}, {"confidence": 0.0}, {"confidence": 95}])
def test_wrong_bootstrap_options_are_refused(options, scores):
    with pytest.raises(ValueError, match="n_bootstrap must be at least 1"):
        bootstrap_interval(*scores, plcc, seed=0, **options)


def test_evaluate_scores_gives_every_figure_with_its_interval(scores):
    figures = evaluate_scores(*scores, seed=5, n_bootstrap=50)

    assert (figures["n"], figures["seed"], figures["n_bootstrap"], figures["confidence"]) == (200, 5, 50, 0.95)
    for name, statistic in METRICS.items():
        assert figures[name]["value"] == statistic(*scores)
        assert figures[name]["low"] < figures[name]["value"] < figures[name]["high"]
    assert json.loads(json.dumps(figures)) == figures


def test_a_thousand_draws_are_made_unless_another_number_is_asked_for():
    assert evaluate_scores([0, 1], [0, 1])["n_bootstrap"] == 1000  # of two images none is


def test_evaluate_scores_can_leave_the_intervals_out(scores):
    assert evaluate_scores(*scores, n_bootstrap=0)["srocc"].keys() == {"value"}


def test_the_evaluate_metric_gathers_batches(scores):
    predictions, targets = scores
    metric = IQAMetric()
    for start in range(0, 200, 64):
        batch = slice(start, start + 64)
        metric.add_batch(predictions=predictions[batch], references=targets[batch])

    assert metric.compute() == {name: statistic(*scores) for name, statistic in METRICS.items()}


@pytest.mark.slow
def test_the_evaluate_metric_works_offline(tmp_path):
    program = (
        "from modeling_metaqap.evaluation.evaluate_metric import IQAMetric\n"
        "print(IQAMetric().compute(predictions=[1, 2, 3], references=[1, 3, 2])['srocc'])"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert float(done.stdout) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-20, 1e20, 1e150])
@pytest.mark.parametrize("target_scale", [1e-300, 1.0, 1e150])
def test_the_unit_of_scores_and_opinions_does_not_matter_to_the_logistic(scale, target_scale):
    rng = np.random.default_rng(0)
    scores = rng.uniform(-3, 3, 50)
    opinions = 1 / (1 + np.exp(-2 * scores)) + 0.05 * rng.normal(size=50)
    expected = plcc_logistic(scores, opinions)
    assert plcc_logistic(scale * scores, target_scale * opinions) == pytest.approx(expected, abs=1e-6)
    fitted = fit_logistic(scale * scores, target_scale * opinions)(scale * scores) / target_scale
    np.testing.assert_allclose(fitted, fit_logistic(scores, opinions)(scores), atol=1e-5)
