"""What several sets in one training bring: the program that measures it."""

import json
from argparse import Namespace

import compare_mixtures
import numpy as np
from script_loader import exit_status
from study_tables import mixtures_table

from modeling_metaqap.evaluation.evaluating import Measurement
from modeling_metaqap.training.recipe import Recipe

RECIPE = Recipe(backbone="x", train_split="train[:9]", epochs=1)
OPTIONS = {"dataset": "biq2021", "sources": ["ss01*", "ss02*"], "data_dir": "biq", "other_dir": "other"}


def test_all_ways_to_mix_have_one_budget():
    args = Namespace(**OPTIONS, other="livec", other_weight=0.5)
    found = {name: (recipe, folders) for name, recipe, folders in compare_mixtures.mixtures(RECIPE, args)}
    assert list(found) == ["one set", "its sources", "with another"]
    assert found["one set"] == (RECIPE, "biq")
    sources, folders = found["its sources"]
    assert folders == "biq" and [(one.name, one.images, one.weight) for one in sources.sets] == [
        ("ss01", "ss01*", None),
        ("ss02", "ss02*", None),
    ]
    both, folders = found["with another"]
    assert folders == ["biq", "other"]
    assert [(one.dataset, one.train_split, one.weight) for one in both.sets] == [
        ("biq2021", "train[:9]", 1.0),
        ("livec", "train_0", 0.5),
    ]
    assert {one.validation_split for one in sources.sets} == {"validation"}
    assert all((recipe.epochs, recipe.seed) == (1, 0) for recipe, _ in found.values())
    alone = Namespace(**OPTIONS, other=None, other_weight=None)
    assert [name for name, _, _ in compare_mixtures.mixtures(RECIPE, alone)] == ["one set", "its sources"]


def test_every_run_is_measured_at_every_place(tmp_path, monkeypatch):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "mixtures.json"
    RECIPE.save(recipe)
    started = []

    class Run:
        def rows(self):
            return [{"line_slope_ss02": 0.5}, {"line_slope_ss02": 0.75}, {"loss": 1}]

    def finish_run(mixture, folder, *, launch, options):
        started.append((folder.name, mixture.seed, len(mixture.sets)))
        return Run()

    def evaluate(checkpoints, named, *, splits, cache_dir, n_bootstrap):
        ids = ["ss01 a", "ss01 b", "ss01 c", "ss02 a", "ss02 b", "ss02 c"]
        qualities = [0.1, 0.2, 0.3, 0.4, 0.6, 0.5]
        yield Measurement(row={}, image_ids=ids, predictions=np.arange(6.0), qualities=np.array(qualities))

    monkeypatch.setattr(compare_mixtures, "finish_run", finish_run)
    monkeypatch.setattr(compare_mixtures, "evaluate", evaluate)
    arguments = ["--recipe", recipe, "--sources", "ss01*", "ss02*", "--output_dir", tmp_path, "--output", output]
    assert exit_status(compare_mixtures.main, *arguments, "--other", "livec") == 0
    assert started == [
        (f"{name}_{seed}", seed, sets)
        for seed in (0, 1)
        for name, sets in (("one-set", 1), ("its-sources", 2), ("with-another", 2))
    ]
    result = json.loads(output.read_text())
    mean = result["mixtures"]["its sources"]["mean"]
    assert {place: round(figures["srocc"], 3) for place, figures in mean.items()} == {
        "validation split": 0.943,
        "ss01*": 1.0,
        "ss02*": 0.5,
        "livec": 0.943,
    }
    assert result["mixtures"]["its sources"]["runs"][1]["lines"] == {"line_slope_ss02": 0.75}
    table = mixtures_table(result)
    assert [row[0] for row in table.rows] == ["one set", "its sources", "with another"]
    assert table.headings[1:3] == ["validation split (n 6)", "ss01* (n 3)"]


def test_a_recipe_whose_heads_are_fitted_at_the_end_is_one_sentence(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("backbone: x\nrefit_head: true\n")
    arguments = ["--recipe", tmp_path / "recipe.yaml", "--output_dir", tmp_path]
    assert exit_status(compare_mixtures.main, *arguments) == 2
    assert "what is compared are gradient steps" in " ".join(capsys.readouterr().err.split())
