"""A scoring that is killed and continued equals one that nobody killed. The study does the same a hundred times."""

import json

import pytest
from repository import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_nothing_is_lost_or_doubled_by_kills(tmp_path, suffix):
    kill_scoring = pytest.importorskip("kill_scoring")
    kill_scoring.write_checkpoint(tmp_path / "checkpoint")
    kill_scoring.write_images(tmp_path / "images", 150)
    outcome = kill_scoring.run(tmp_path, suffix, images=150, kills=4, seed=1)
    assert outcome["killed"] >= 2 and outcome["last_exit_status"] == 1
    assert (outcome["rows"], outcome["lost"], outcome["doubled"], outcome["unknown"]) == (150, 0, 0, 0)
    assert outcome["with_another_error"] == 0 and outcome["in_order"]
    assert outcome["largest_difference_of_scores"] < 1e-6
    assert outcome["files"] == [f"killed.{suffix}", f"killed.{suffix}.run.json"]


def test_the_committed_outcomes_lost_nothing():
    results = json.loads((ROOT / "studies/results/kill_scoring.json").read_text())
    runs = {name: outcome for name, outcome in results.items() if name != "peak_memory_mb"}
    assert sum(outcome["killed"] for outcome in runs.values()) >= 100
    assert all(outcome["lost"] == outcome["doubled"] == 0 for outcome in runs.values())
