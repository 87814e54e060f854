"""Split-conformal intervals."""

import numpy as np
import pytest

from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.conformal import conformal_radius


def test_the_radius_is_the_order_statistic_of_the_definition():
    # n = 9, coverage 0.8: the ceil(10 * 0.8) = 8th smallest of 0.1 ... 0.9.
    residuals = np.arange(1, 10) / 10
    assert conformal_radius(np.zeros(9), residuals * [1, -1, 1, -1, 1, -1, 1, -1, 1], coverage=0.8) == pytest.approx(
        0.8
    )


def test_it_is_about_the_distance_of_predictions_and_targets_and_nine_in_ten_of_them():
    predictions = np.linspace(0.3, 0.7, 19)
    signs = np.resize([1, -1], 19)
    # ceil(20 * 0.9) = 18.
    assert conformal_radius(predictions, predictions + signs * np.arange(1, 20) / 100) == pytest.approx(0.18)


@pytest.mark.parametrize("coverage", [0, -0.5, 1, 1.5])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(MetaQAPError, match=f"between 0 and 1, got {coverage}"):
        conformal_radius(np.zeros(50), np.arange(50), coverage=coverage)


def test_new_images_are_covered_as_often_as_promised():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        residuals = rng.standard_t(3, size=100)
        radius = conformal_radius(np.zeros(100), residuals, coverage=0.9)
        covered.append(np.mean(np.abs(rng.standard_t(3, size=100)) <= radius))
    # The expected coverage is ceil(101 * 0.9) / 101 = 0.901; 400 x 100 draws have a standard error near 0.002.
    assert np.mean(covered) == pytest.approx(0.901, abs=0.01)


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        (np.zeros(5), np.zeros(5), "90 % takes 9 images or more, not 5"),
        (np.zeros(50), np.full(50, np.nan), "finite"),
        (np.zeros((50, 1)), np.zeros((50, 1)), "one length"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        conformal_radius(predictions, targets)
