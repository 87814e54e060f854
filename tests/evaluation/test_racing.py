"""Contenders take turns, each in a process of its own."""

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation.racing import Contender, contenders, race, ratio
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(make_model("test_resnet"), folder)
    MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)
    return folder


def test_the_ratio_is_the_median_over_turns_in_which_both_met():
    results = {"a": {"rates": [2.0, 9.0, 4.0]}, "b": {"rates": [1.0, 1.0, 2.0]}, "c": {"error": "broken"}}
    assert ratio(results, "a", "b") == 2.0
    assert ratio(results, "a", "c") is None
    assert ratio(results, "a", "absent") is None


def test_an_older_version_and_pyiqa_take_part_only_where_they_are(checkpoint, tmp_path):
    names = [one.name for one in contenders(checkpoint, macs={1: 10})]
    assert "version before" not in names and not any("pyiqa" in name for name in names)
    everybody = contenders(checkpoint, macs={1: 10, 2: 20, 4: 40}, before=tmp_path, pyiqa_python="python")
    by_name = {one.name: one for one in everybody}
    assert by_name["version before"].package == str(tmp_path)
    assert by_name["pyiqa musiq"].python == "python"
    for name, learners in (("fast, 1 of 4 learners", 1), ("fast, 2 of 4 learners", 2)):
        assert by_name[name].macs == 10 * learners and by_name[name].options["scorer"]["learners"] == learners
    assert by_name["fast"].macs == 40 and "learners" not in by_name["fast"].options["scorer"]
    chosen = contenders(checkpoint, macs={1: 10}, chosen=["fast"])
    assert [one.name for one in chosen] == ["matrix product", "fast"]
    with pytest.raises(MetaQAPError, match="no contender 'abacus'"):
        contenders(checkpoint, macs={1: 10}, chosen=["abacus"])


@pytest.mark.slow
def test_processes_take_turns_and_one_that_cannot_run_says_why(checkpoint, tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photo.jpg")
    options = {"checkpoint": str(checkpoint), "keep_memory": True, "bare": False, "scorer": {"device": "cpu"}}
    taking_part = [
        Contender("matrix product", "scorer_worker.py", {"matrices": True}),
        Contender("scorer", "scorer_worker.py", options, macs=1000),
        Contender("bare", "scorer_worker.py", options | {"bare": True}, macs=1000),
        Contender("one at a time", "scorer_worker.py", options | {"one_at_a_time": True}, macs=1000),
        Contender("broken", "scorer_worker.py", options | {"checkpoint": str(tmp_path)}),
    ]
    results = race(taking_part, [str(tmp_path / "photo.jpg")], threads=1, seconds=0.2, turns=2)
    for name in ("scorer", "bare", "one at a time"):
        assert len(results[name]["rates"]) == 2 and min(results[name]["rates"]) > 0
        assert len(results[name]["processor_rates"]) == 2 and min(results[name]["processor_rates"]) > 0
        assert results[name]["peak_memory_megabytes"] > 100
        assert results[name]["share_of_peak"] >= 0
    assert results["matrix product"]["gigamacs_per_second"] > 0
    assert "not a MetaQAP checkpoint" in results["broken"]["error"]
