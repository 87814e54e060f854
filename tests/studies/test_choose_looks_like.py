"""The limits below which a photograph is said to look like a distortion."""

import json

import pytest
from repository import ROOT

from modeling_metaqap import ScoreRecord
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference.wording import MAX_QUALITY, MIN_PROBABILITY


def record(quality, probability, name="lens_blur"):
    return ScoreRecord(path="", quality=quality, distortion=name, distortion_probability=probability)


def test_the_limits_show_most_right_names_of_those_that_are_right_often_enough():
    choose = pytest.importorskip("choose_looks_like").choose
    # Four blurred ones that are named rightly; a good photograph that is named, surely, and one of unknown truth.
    records = [record(0.2, 0.95), record(0.3, 0.85), record(0.42, 0.55), record(0.52, 0.95)]
    records += [record(0.55, 0.95), record(0.2, 0.95)]
    names = ["lens_blur"] * 4 + [None, None]
    tried, kept = choose(records, names, [0.9, 0.9, 0.9, 0.9, 0.7, 0.3])
    # Up to a quality of 0.55 all four are shown and nothing else. The good one follows with 0.6: four names in five
    # are right then too, but every good photograph has one.
    assert kept["right"] == kept["named"] == 4 and kept["precision"] == 1 and kept["max_quality"] == 0.55
    assert kept["min_probability"] <= 0.5 and kept["share_of_good_named"] == 0
    [wider] = [one for one in tried if (one["max_quality"], one["min_probability"]) == (0.6, 0.5)]
    assert (wider["named"], wider["right"], wider["share_of_good_named"]) == (5, 4, 1)
    many = [*records, *[record(0.9, 0.3)] * 99]
    _, kept = choose(many, [*names, *[None] * 99], [0.9] * 4 + [0.7, 0.3] + [0.9] * 99)
    assert (kept["named"], kept["right"]) == (4, 4), "more good photographs allow no name for one more"
    with pytest.raises(MetaQAPError, match="No pair"):
        choose(records, ["jitter"] * 4 + [None, None], [0.9, 0.9, 0.9, 0.9, 0.7, 0.3])


def test_the_words_have_the_limits_that_were_chosen():
    results = json.loads((ROOT / "studies/results/looks_like.json").read_text())
    kept = results["kept"]
    assert (MAX_QUALITY, MIN_PROBABILITY) == (kept["max_quality"], kept["min_probability"])
    assert kept["precision"] >= results["wanted_precision"] and results["photographs"] == 1000
    assert kept["share_of_good_named"] <= results["false_alarms"]
    assert kept == max(
        (
            one
            for one in results["tried"]
            if (one["precision"] or 0) >= results["wanted_precision"]
            and one["share_of_good_named"] <= results["false_alarms"]
        ),
        key=lambda one: (one["right"], one["precision"]),
    )
