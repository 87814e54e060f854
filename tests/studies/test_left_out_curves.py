"""What own ratings bring to learners that have not seen the photographs' source: the program that measures it."""

import json

import pytest
from script_loader import exit_status

pytest.importorskip("datasets")

import left_out_curves
from study_tables import left_out_curves_table


def test_each_source_is_measured_with_heads_of_the_others(rated_sources, tmp_path, make_model, monkeypatch):
    monkeypatch.setattr(left_out_curves, "new_base_learner", lambda recipe: make_model(recipe.backbone))
    monkeypatch.setattr(left_out_curves, "HEADS", left_out_curves.HEADS[:1])
    fitted = []
    real = left_out_curves.without_source
    monkeypatch.setattr(left_out_curves, "without_source", lambda *args: fitted.append(args) or real(*args))
    options = {"--dataset": "folder", "--data_dir": rated_sources, "--cache_dir": tmp_path / "cache"}
    options |= {"--backbones": "test_resnet", "--sizes": 10, "--draws": 2, "--output": tmp_path / "curves.json"}
    words = [str(word) for option in options.items() for word in option]
    assert exit_status(left_out_curves.main, *words, "--sources", "a*", "b*") == 0
    result = json.loads((tmp_path / "curves.json").read_text())
    assert {source: one["n"] for source, one in result["sources"].items()} == {"a*": [15, 15], "b*": [15, 15]}
    (_, known, unseen), (_, known_of_b, unseen_of_b) = fitted
    assert known.features.equal(unseen_of_b.features) and unseen.features.equal(known_of_b.features)
    assert not known.features.equal(unseen.features)
    for one in result["sources"].values():
        methods = one["curves"]["10"]
        assert set(methods) == {"adapted", "scale alone", "fusion fitted anew", "from ImageNet weights"}
        assert abs(methods["scale alone"]["plcc"]["value"]) == pytest.approx(abs(one["before"]["plcc"]["value"]))
    table = left_out_curves_table(result)
    assert [row[:2] for row in table.rows[:2]] == [["a*", "adapted"], ["a*", "scale alone"]]
    assert len(table.rows) == 8
