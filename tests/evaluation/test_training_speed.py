"""Training with reading, beside an older version."""

import multiprocessing
import time

import pytest

pytest.importorskip("accelerate")

import numpy as np
from PIL import Image

from modeling_metaqap.evaluation import training_speed as module
from modeling_metaqap.evaluation.racing import worker_protocol
from modeling_metaqap.evaluation.training_speed import BEFORE, HEADS, LOOP, STEP, VALIDATION, training_speed


def test_each_part_is_compared_with_that_of_the_older_version(tmp_path, monkeypatch):
    speeds = {STEP: 10.0, LOOP: 9.0, HEADS: 8.0, VALIDATION: 8.0, LOOP + BEFORE: 6.0, STEP + BEFORE: 8.0}
    asked = {}

    def race(contenders, files, **options):
        asked.update({one.name: one for one in contenders}, files=files)
        rates = {name: {"rates": [speeds.get(name, 4.0)] * 2} for name in asked if name != "files"}
        return {name: values | {"processor_rates": [1.0, 1.0]} for name, values in rates.items()}

    monkeypatch.setattr(module, "race", race)
    options = {"threads": 2, "seconds": 1, "turns": 2}
    found = training_speed("test_resnet", [tmp_path / "a.jpg"], before=tmp_path, **options)
    assert found["ratios"][f"{LOOP} over {STEP}"] == 0.9
    assert found["ratios"][f"{LOOP} over version before"] == 1.5
    assert found["ratios"][f"{VALIDATION} over version before"] == 2.0
    assert set(found["processor_ratios"].values()) == {1.0}
    assert asked["files"] == [str(tmp_path / "a.jpg")]
    # The older version runs as it comes: with its own package and the C library's own way with memory.
    assert asked[LOOP].options["keep_memory"] and not asked[LOOP + BEFORE].options["keep_memory"]
    # On two cores the one reads between its steps, and the older one by two processes, its own default.
    assert [asked[name].options["num_workers"] for name in (LOOP, LOOP + BEFORE)] == [0, 2]
    assert (found["processes_that_read"], found["processes_that_read_before"]) == (0, 2)
    assert (asked[LOOP].package, asked[LOOP + BEFORE].package) == (None, str(tmp_path))
    alone = training_speed("test_resnet", [tmp_path / "a.jpg"], **options)
    assert list(alone["ratios"]) == [f"{LOOP} over {STEP}"]


@pytest.mark.slow
def test_training_is_measured_with_reading(tmp_path):
    for number in range(2):
        Image.fromarray(np.full((300, 300, 3), 99 * number, np.uint8)).save(tmp_path / f"{number}.jpg")
    files = [tmp_path / "0.jpg", tmp_path / "1.jpg"]
    found = training_speed("test_resnet", files, threads=1, seconds=0.2, turns=2)
    for name in (STEP, LOOP, HEADS, VALIDATION):
        assert "error" not in found["contenders"][name], found["contenders"][name]
        assert len(found["contenders"][name]["rates"]) == 2 and min(found["contenders"][name]["processor_rates"]) > 0


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_watch_counts_what_other_processes_compute_for_this_one():
    context = multiprocessing.get_context("fork")
    watch = worker_protocol.Watch()
    for process in [context.Process(target=work, args=(0.1,)), running := context.Process(target=work, args=(60,))]:
        process.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and watch.stop().processor_seconds < 0.3:
        time.sleep(0.02)
    running.kill()
    running.join()
    assert watch.processor_seconds >= 0.3, "one that has ended counts, and so does one that goes on"
