"""Intervals as wide as errors turned out to be."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling_metaqap.fusion.conformal import conformal_radius
from modeling_metaqap.fusion.widths import FEWEST_IMAGES, SHARES, fit_widths, recalibrated_widths
from modeling_metaqap.inference.predicting import interval_radii


def photographs(n, *, seed, sureness=1.0):
    """Predictions, opinions, base scores, distances; far photographs are scored worse, as much as `sureness` says."""
    rng = np.random.default_rng(seed)
    quality, distance = rng.uniform(size=n), rng.normal(size=n)
    size = 0.05 * np.exp(0.6 * sureness * distance)
    predictions = np.clip(quality, 0, 1) + size * rng.normal(size=n)
    base_scores = predictions[:, None] + 0.02 * rng.normal(size=(n, 3))
    distances = distance[:, None] + 0.1 * rng.normal(size=(n, 3))
    return predictions, quality, base_scores, distances


def held(widths, predictions, quality, base_scores, distances):
    radii = interval_radii(SimpleNamespace(**vars(widths)), predictions, base_scores, distances)
    return np.abs(predictions - quality) <= radii, radii


def test_new_photographs_are_covered_as_promised_near_and_far_with_narrower_intervals():
    known, new = photographs(1000, seed=0), photographs(20_000, seed=1)
    widths = fit_widths(*known)
    inside, radii = held(widths, *new)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    away = new[3].mean(axis=1)
    order = np.argsort(away)
    assert radii[order[-4000:]].mean() > 3 * radii[order[:4000]].mean()
    for rows in np.array_split(order, 5):
        assert inside[rows].mean() == pytest.approx(0.9, abs=0.07)
    constant = conformal_radius(*known[:2])
    equally_wide = np.abs(new[0] - new[1]) <= constant
    assert equally_wide[order[-4000:]].mean() < 0.75  # what the far ones had before
    assert radii.mean() < 0.9 * constant


def test_a_scale_that_explains_nothing_costs_no_coverage():
    rng = np.random.default_rng(2)
    known, new = photographs(300, seed=3, sureness=0.0), photographs(20_000, seed=4, sureness=0.0)
    widths = fit_widths(*known[:3], rng.normal(size=(300, 3)))
    inside, radii = held(widths, *new[:3], rng.normal(size=(20_000, 3)))
    assert inside.mean() == pytest.approx(0.9, abs=0.035)
    assert radii.mean() == pytest.approx(conformal_radius(*known[:2]), rel=0.15)


def test_distance_and_disagreement_never_make_an_interval_narrower():
    predictions, quality, base_scores, distances = photographs(400, seed=5)
    scale = fit_widths(predictions, quality, base_scores, -distances).interval_scale
    assert scale["distance"] == pytest.approx(0, abs=1e-6) and scale["spread"] >= 0
    assert fit_widths(predictions, quality, base_scores, distances).interval_scale["distance"] > 0.4


def test_few_images_get_intervals_of_one_width():
    few = photographs(FEWEST_IMAGES - 1, seed=6)
    widths = fit_widths(*few)
    assert widths.interval_scale is None
    assert widths.interval_radius == conformal_radius(*few[:2])
    assert len(widths.familiar_distances) == SHARES
    mean = few[3].mean(axis=1)
    assert widths.familiar_distances[0] == pytest.approx(mean.min(), abs=1e-3)
    assert widths.familiar_distances[-1] == pytest.approx(mean.max(), abs=1e-3)
    assert widths.familiar_distances[SHARES // 2] == pytest.approx(np.median(mean), abs=1e-3)


def test_one_learner_has_no_spread():
    predictions, quality, base_scores, distances = photographs(400, seed=7)
    widths = fit_widths(predictions, quality, base_scores[:, :1], distances[:, :1])
    assert widths.interval_scale["spread"] == 0 and widths.interval_scale["distance"] > 0.3


def test_a_few_ratings_from_elsewhere_bring_the_widths_to_what_they_should_be():
    config = SimpleNamespace(**vars(fit_widths(*photographs(1000, seed=8))))
    predictions, quality, base_scores, distances = photographs(4000, seed=9)
    elsewhere = predictions, predictions + 1.8 * (quality - predictions), base_scores, distances
    shares, before = [], held(config, *elsewhere)[0].mean()
    for draw in range(20):
        rated = np.random.default_rng(draw).permutation(4000)[:50]
        widths = recalibrated_widths(config, *(elsewhere[column][rated] for column in (0, 1, 3)))
        inside, radii = held(widths, *elsewhere)
        shares.append(inside.mean())
        assert np.corrcoef(radii, distances.mean(axis=1))[0, 1] > 0.5
        assert widths.interval_scale["spread"] == 0
        assert widths.familiar_distances[0] == pytest.approx(distances[rated].mean(axis=1).min(), abs=1e-3)
    assert before < 0.8 and np.mean(shares) == pytest.approx(0.9, abs=0.03)
    config.interval_scale = None
    assert recalibrated_widths(config, *(elsewhere[column] for column in (0, 1, 3))).interval_scale is None
