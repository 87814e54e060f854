"""How speed is measured."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("accelerate")

from modeling_metaqap.evaluation import benchmark


def test_turns_take_every_engine_once_and_leave_the_first_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    calls = []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def work(name: str, durations: Any) -> None:
        calls.append(name)
        clock[0] += next(durations)

    works = {
        "a": functools.partial(work, "a", iter([9.0, 2.0, 3.0])),
        "b": functools.partial(work, "b", iter([9.0, 1.0, 1.0])),
    }
    assert benchmark.in_turns(works, seconds=2) == {"a": [2.0, 3.0], "b": [1.0, 1.0]}
    assert calls == ["a", "b"] * 3


def test_a_figure_is_the_fastest_repetition_without_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    durations = iter([9.0, 3.0, 2.0, 4.0, 1.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += next(durations)

    assert benchmark.Bench([], seconds=8.5).fastest(work) == 2.0  # 3 + 2 + 4 seconds, then time is up


def test_photographs_are_cut_to_the_asked_side(tmp_path: Path) -> None:
    Image.new("L", (90, 50), 200).save(tmp_path / "photograph.png")
    images: list[Any] = benchmark.load_photographs(tmp_path, side=40, count=3)
    assert [image.shape for image in images] == [(40, 40, 3)]
    assert [image.shape for image in benchmark.load_photographs(None, side=40, count=2)] == [(40, 40, 3)] * 2


def test_files_larger_than_the_photographs_keep_their_fine_detail(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pictures = {}
    for size in ((64, 64), (160, 100), (32, 32)):
        [file] = benchmark._jpeg_files(benchmark.Bench([noise], seconds=0, size=size), tmp_path)
        pictures[size] = np.asarray(Image.open(file)).astype(float)
        assert pictures[size].shape == (*size[::-1], 3)
    assert pictures[160, 100].std() == pytest.approx(pictures[64, 64].std(), rel=0.05)
    assert abs(pictures[160, 100][:56, :56] - pictures[64, 64][:56, :56]).max() < 1  # the same blocks
    assert np.diff(pictures[160, 100], axis=1).std() == pytest.approx(
        np.diff(pictures[64, 64], axis=1).std(), rel=0.05
    )
