"""How speed is measured."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from repository import ROOT
from rich.console import Console

pytest.importorskip("accelerate")

from modeling_metaqap.evaluation import benchmark
from modeling_metaqap.evaluation.benchmark_tables import TABLES

RESULTS = ROOT / "studies/results"


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


def shown(section: str, result: dict[str, Any]) -> str:
    """The table of a section, as text."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(TABLES[section](result))
    return " ".join(console.export_text().split())


@pytest.mark.parametrize("section", ["distortions", "pseudo_mos"])
def test_the_table_of_a_section_has_the_figures_that_were_measured(section: str) -> None:
    result = json.loads((RESULTS / "benchmark.json").read_text())[section]
    text = shown(section, result)
    if section == "distortions":
        assert f"The slowest, {result['slowest']}, takes {result['slowest_over_median']:.1f} x the median." in text
        names = result["images_per_second"]
    else:
        names = next(iter(result["sides"].values()))["milliseconds"]
    assert names and all(name in text for name in names)


#: Of a race: one that ran and one that did not.
CONTENDERS = {
    "fast": {
        "images_per_second": 9.0,
        "images_per_processor_second": 5.0,
        "share_of_peak": 0.8,
        "peak_memory_megabytes": 700,
    },
    "pyiqa dbcnn": {"error": "broken"},
}


def test_a_contender_that_did_not_run_is_named_and_the_peak_is_no_row() -> None:
    everybody = CONTENDERS | {"matrix product": {"images_per_second": 1.0}}
    text = shown("scoring", {"size": [512, 512], "threads": 2, "turns": 3, "contenders": everybody})
    assert "fast │ 9.00 │ 5.00 │ 80% │ 700" in text
    assert "pyiqa dbcnn │ did not run" in text and "matrix product" not in text


def test_the_table_of_training_has_a_second_one_with_reading() -> None:
    about = {"batch_size": 16, "crop_size": 320, "backbone": "resnet18", "threads": 2, "turns": 3}
    reading = {"processes_that_read": 2, "threads": 2, "turns": 3, "contenders": CONTENDERS}
    reading["ratios"] = {"beside timm": 1.25, "beside nobody": None}
    rates = {"images_per_second": {"timm": 20.0, "metaqap": 18.0}, "over_timm": 0.9, "with_reading": reading}
    text = shown("training", about | rates)
    assert "metaqap │ 18.00" in text and "90.0% of the bare loop" in text
    assert "fast │ 9.00 │ 5.00 │ 700" in text and "pyiqa dbcnn │ did not run" in text
    assert "beside timm 1.25; median of 3 turns" in text


def test_the_tables_of_engines_and_of_ray_say_what_stands_beside_what() -> None:
    engines = {
        "torch": {"crops_per_second": 4.0, "over_torch": 1.0},
        "onnx": {"crops_per_second": 6.0, "over_torch": 1.5},
    }
    about = {"checkpoint": "tiny", "side": 64, "threads": 1, "turns": 3, "parameters": 2e6, "macs": 3e9}
    text = shown("inference", about | {"weights_megabytes": 4.5, "peak_memory_megabytes": 700, "engines": engines})
    assert "onnx │ 6.00 │ 1.50 x" in text and "2.00 M parameters, 3.00 G multiply-adds" in text
    rates = {"Ray": {"images_per_second": 9.0, "start_up_seconds": 5.0}}
    ray = {"size": [512, 512], "workers": 2, "turns": 3, "ray_over_one_process": 0.93, "contenders": rates}
    assert "Ray │ 9.00 │ 5.0" in (text := shown("distributed", ray)) and "Ray 93.0% of one process" in text
