"""Contenders take turns, each in a process of its own."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation.racing import Contender, contenders, race, ratio, worker_protocol
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


WORKER = """
import json, sys
options = json.loads(sys.argv[1])
print("words of a library", flush=True)
for number, line in enumerate(sys.stdin):
    task = json.loads(line)
    open(options["log"], "a").write(f"{options['name']} {len(task['files'])} {task['seconds']}\\n")
    if options.get("ends") == number:
        break
    values = {"images": options["images"] * (number + 1), "seconds": 2.0, "peak_memory_megabytes": 50}
    values["processor_seconds"] = 4.0
    print(json.dumps({"error": "broken"} if options.get("broken") else values), flush=True)
"""


def test_contenders_are_asked_in_turn_and_the_first_turn_does_not_count(tmp_path):
    """Programs that compute nothing stand in for the scorers."""
    (tmp_path / "worker.py").write_text(WORKER)

    def contender(name, images, macs=None, **more):
        options = {"name": name, "log": str(tmp_path / "log"), "images": images, **more}
        return Contender(name, str(tmp_path / "worker.py"), options, macs=macs)

    taking_part = [
        contender("matrix product", 100),
        contender("a", 2, macs=10**9),
        contender("broken", 1, broken=True),
        contender("ends", 1, ends=1),
    ]
    results = race(taking_part, ["x.jpg", "y.jpg"], threads=1, seconds=0.5, turns=2)
    assert results["a"]["rates"] == [2.0, 3.0]  # 4 and 6 images in 2 seconds; the 2 of the first turn are left out
    assert (results["a"]["images_per_second"], results["a"]["peak_memory_megabytes"]) == (2.5, 50)
    assert (results["a"]["processor_rates"], results["a"]["images_per_processor_second"]) == ([1.0, 1.5], 1.25)
    assert ratio(results, "matrix product", "a", of="processor_rates") == 50
    assert results["matrix product"]["gigamacs_per_second"] == 125
    assert results["a"]["share_of_peak"] == pytest.approx(2.5 / 125)
    assert results["broken"] == {"error": "broken"} and results["ends"] == {"error": "the process has ended"}
    turns = [["matrix product", "a", "broken", "ends"], ["matrix product", "a", "ends"], ["matrix product", "a"]]
    expected = [f"{name} 2 {0.5 if turn else 0}" for turn, names in enumerate(turns) for name in names]
    assert (tmp_path / "log").read_text().splitlines() == expected


def test_one_that_ends_before_it_is_asked_costs_the_others_nothing_and_its_reason_is_kept(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "dead.py").write_text('print(\'{"error": "no weights"}\')')
    (tmp_path / "waits.py").write_text("import time; time.sleep(1)\n" + WORKER)
    options = {"name": "waits", "log": str(tmp_path / "log"), "images": 2}
    taking_part = [
        Contender("waits", str(tmp_path / "waits.py"), options),
        Contender("dead", str(tmp_path / "dead.py")),
    ]
    results = race(taking_part, ["x.jpg"], threads=1, seconds=0, turns=1)
    assert results["dead"] == {"error": "no weights"}
    assert results["waits"]["rates"] == [2.0]


def test_a_program_of_a_race_keeps_to_its_cores_and_answers_each_task_with_a_line(monkeypatch, capsys):
    cores = []
    monkeypatch.setattr(worker_protocol.os, "sched_setaffinity", lambda _, own: cores.append(own), raising=False)
    lines = [{"files": ["a"], "cores": [0, 1]}, {"files": ["b"], "cores": []}]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    for task in worker_protocol.tasks():
        watch = worker_protocol.Watch()
        watch.seconds, watch.processor_seconds = 0.5, 0.25
        worker_protocol.answer(len(task["files"]), watch)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["images"], one["seconds"]) for one in answers] == [(1, 0.5), (1, 0.5)]
    assert {one["processor_seconds"] for one in answers} == {0.25}
    assert cores == [[0, 1]] and all(one["peak_memory_megabytes"] >= 0 for one in answers)


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
