"""What it costs to decode in processes of their own."""

import json

import compare_decoding
import compare_isolation
import pytest
from corpus import photograph
from kill_scoring import write_checkpoint

from modeling_metaqap import Scorer
from modeling_metaqap.errors import MetaQAPError


def test_it_is_measured_in_turns_and_nothing_is_left_out(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "checkpoint")
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        photograph(seed=number).save(path)
    monkeypatch.setattr(compare_decoding, "SIDE", 8)
    large = compare_isolation.make_large(paths, tmp_path)
    scorers = {name: Scorer(tmp_path / "checkpoint", device="cpu") for name in ("plain", "isolated")}
    found = compare_isolation.compare(scorers, large, turns=2)
    assert (found["photographs"], found["turns"]) == (1, 2) and found["seconds_over_plain"] > 0
    paths[0].write_bytes(b"broken")
    with pytest.raises(MetaQAPError, match="not an image"):
        compare_isolation.score(scorers["plain"], paths)


def test_it_costs_so_little_that_it_is_done_by_itself():
    results = json.loads(compare_isolation.OUTPUT.read_text())
    for name in ("as they are", "12.6 megapixels"):
        assert results[name]["processor_seconds_over_plain"] < 1.05
