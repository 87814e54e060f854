"""Ray's workers beside one process."""

import pytest
from PIL import Image

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation import distributed_speed


def test_the_rate_leaves_the_start_up_out(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    calls = []

    def seconds(contender, folder, checkpoint, workers):
        count = len(list(folder.iterdir()))
        calls.append((contender, count))
        return 5 + count / 10 if contender == "one process" else 20 + count / 9

    monkeypatch.setattr(distributed_speed, "_seconds", seconds)
    monkeypatch.setattr(distributed_speed, "cached_onnx", lambda checkpoint, config: None)
    monkeypatch.setattr(distributed_speed, "check_ray", lambda: None)
    measured = distributed_speed.distributed_speed(
        DEFAULT_CHECKPOINT, [tmp_path / "a.jpg"], workers=2, photographs=50, turns=2
    )
    assert calls[:2] == [("one process", 10), ("Ray", 10)]  # do not count
    assert calls[2:] == [("one process", 10), ("one process", 60), ("Ray", 10), ("Ray", 60)] * 2
    assert measured["contenders"]["one process"] == {
        "rates": [10.0, 10.0],
        "images_per_second": 10.0,
        "start_up_seconds": 5.0,
    }
    assert measured["contenders"]["Ray"]["start_up_seconds"] == 20.0
    assert measured["images_per_second_and_core"] == 4.5
    assert measured["ray_over_one_process"] == 0.9


def test_times_that_say_nothing_are_one_sentence(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(distributed_speed, "_seconds", lambda *arguments: 5.0)
    monkeypatch.setattr(distributed_speed, "cached_onnx", lambda checkpoint, config: None)
    monkeypatch.setattr(distributed_speed, "check_ray", lambda: None)
    with pytest.raises(MetaQAPError, match="measure more of them with --scored"):
        distributed_speed.distributed_speed(
            DEFAULT_CHECKPOINT, [tmp_path / "a.jpg"], workers=1, photographs=5, turns=1
        )
