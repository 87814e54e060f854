"""Intervals at home, on strangers and elsewhere: the program that measures them."""

import json

import choose_interval
import numpy as np
import pytest
from repository import ROOT
from study_tables import elsewhere_table, groups_table, strangers_table, widths_table

from modeling_metaqap.inference.wording import MIN_FAMILIARITY


class Place(choose_interval.Rated):
    """Photographs that are scored worse the farther away they are; no pictures."""

    def __init__(self, n, *, seed, away=0.0):
        rng = np.random.default_rng(seed)
        self.ids = [f"{source} ({number})" for number in range(n // 2) for source in ("a", "b")]
        self.opinions, distance = rng.uniform(size=n), away + rng.normal(size=n)
        self.quality = self.opinions + 0.05 * np.exp(0.6 * distance) * rng.normal(size=n)
        self.base_scores = self.quality[:, None] + 0.02 * rng.normal(size=(n, 2))
        self.distances = distance[:, None] + 0.1 * rng.normal(size=(n, 2))
        self.standardized = [rng.normal(size=(n, 6)) for _ in range(2)]
        self.errors = np.abs(self.quality - self.opinions)


def test_widths_are_measured_at_home_and_elsewhere_before_and_after_ratings(monkeypatch):
    monkeypatch.setattr(choose_interval, "DRAWS", 3)
    home, place = Place(600, seed=0), Place(300, seed=1, away=1.0)
    found = choose_interval.at_home(home)
    own, equal = (found["width_depends_on"][name] for name in ("quality, distance and spread", "nothing"))
    assert own["covered"] == pytest.approx(0.9, abs=0.03) and own["width"] < 0.95 * equal["width"]
    without = found["width_depends_on"]["quality and spread"]
    assert without["width"] > own["width"]
    far = found["groups"]["the farthest fifth"]
    assert far["own width"]["covered"] > far["constant"]["covered"] + 0.05

    rows = np.arange(300)
    moved = choose_interval.elsewhere(place, rows, home, np.arange(600), seed=0)
    assert moved["median_familiarity"] < 0.3
    before, after = moved["as it is"], moved["after 50 ratings"]
    assert before["constant"]["covered"] < 0.8 < after["own width"]["covered"]
    result = {"home": found, "strangers": {}, "elsewhere": {"there": moved}}
    assert [len(table(result).rows) for table in (widths_table, groups_table, strangers_table, elsewhere_table)] == [
        5,
        6,
        1,
        2,
    ]


def test_pictures_that_are_no_photographs_are_drawn_anew_from_a_seed():
    for draw in (choose_interval.noise, choose_interval.drawing, choose_interval.screenshot):
        one, same, other = (np.asarray(draw(np.random.default_rng(seed))) for seed in (0, 0, 1))
        assert np.array_equal(one, same)
        assert one.shape[0] == 512 and (one.shape != other.shape or (one != other).any())


def test_what_is_published_has_widths_that_keep_the_promise():
    result = json.loads((ROOT / "studies/results/interval.json").read_text())
    own, equal = (result["home"]["width_depends_on"][name] for name in ("quality, distance and spread", "nothing"))
    assert 0.88 <= own["covered"] <= 0.92 and own["width"] <= equal["width"]
    assert result["min_familiarity"] == MIN_FAMILIARITY
    for found in (*result["strangers"].values(), *result["elsewhere"].values()):
        assert found["median_familiarity"] < 0.5
    for found in result["elsewhere"].values():
        assert found["after 50 ratings"]["own width"]["covered"] >= 0.85
