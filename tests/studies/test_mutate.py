"""Small changes of the code: they are made in memory, and each that the tests do not notice has a reason."""

import importlib
import json
import sys

import mutate

from modeling_metaqap import data
from modeling_metaqap.data import atomic


def test_the_committed_mutants_are_enough_and_those_that_survived_have_a_reason():
    results = json.loads(mutate.OUTPUT.read_text())
    assert set(results) == set(mutate.TARGETS)
    assert sum(result["mutants"] for result in results.values()) >= 80
    for target, result in results.items():
        assert result["killed"] + len(result["survived"]) == result["mutants"], target
        assert all(survivor["reason"] for survivor in result["survived"]), target


def test_a_mutant_is_imported_in_place_of_the_module_and_the_file_stays(monkeypatch):
    file = mutate.PACKAGE / "data/atomic.py"
    before = file.read_bytes()
    name = "modeling_metaqap.data.atomic"
    loader = mutate.MutantLoader(mutate.Mutant("data/atomic.py", 1, "", "", "VALUE = 'changed'\n"))
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(data, "atomic", atomic)  # both put the real one back
    monkeypatch.setattr(sys, "meta_path", [loader, *sys.meta_path])
    assert importlib.import_module(name).VALUE == "changed"
    assert file.read_bytes() == before


def test_type_annotations_are_found():
    source = "def f(x: int | None, y=1 | 2) -> str | None:\n    z: int | str = x | y\nKind = int | str\n"
    texts = [source.splitlines()[begin[0] - 1][begin[1] : end[1]] for begin, end in mutate.annotations(source)]
    assert sorted(texts) == ["int | None", "int | str", "int | str", "str | None"]


def test_results_are_merged_and_survivors_without_a_reason_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, "REASONS", tmp_path / "reasons.json")
    mutate.REASONS.write_text(json.dumps({"a.py: x = 2": "the same"}))
    survivors = [{"file": "a.py", "before": "x = 1", "after": after} for after in ("x = 2", "x = 3")]
    output = tmp_path / "mutation.json"
    assert mutate.merge(output, {"metrics": {"survived": []}}) == []
    assert mutate.merge(output, {"loss": {"survived": survivors}}) == ["a.py: x = 3"]
    merged = json.loads(output.read_text())
    assert list(merged) == ["loss", "metrics"]
    assert [survivor["reason"] for survivor in merged["loss"]["survived"]] == ["the same", None]
