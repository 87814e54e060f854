"""scripts/calibrate_pseudo_mos.py: the scale of the pseudo opinion score and the report on the order of the levels."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from repository import ROOT
from script_loader import call_script

from modeling_metaqap.data.distorted.loading import SETTINGS_FILE, features
from modeling_metaqap.data.distorted.pseudo_mos import METRICS, fuse
from modeling_metaqap.data.distortions import DISTORTION_NAMES, DISTORTIONS, LEVELS


def write_data_set(
    folder: Path,
    photographs: list[str],
    *,
    deviation: Callable[[str, int, int], float],
    metrics: tuple[str, ...] = tuple(METRICS),
    levels: tuple[int, ...] = LEVELS,
) -> Path:
    """A data set like scripts/distort.py's whose metrics are `deviation(name, level, photograph)` from identity."""
    rows = []
    for number, photograph in enumerate(photographs):
        for index, name in enumerate(DISTORTION_NAMES):
            for level in levels:
                away = deviation(name, level, number)
                values = {
                    metric: METRICS[metric].identity - away * (1 if METRICS[metric].higher_is_better else -1)
                    for metric in metrics
                }
                rows.append(
                    {
                        "image": {"bytes": b"", "path": None},
                        "distortion": index,
                        "level": level,
                        "pseudo_mos": 0.5,
                        "reference_id": photograph,
                        "metrics": values,
                    }
                )
    folder.mkdir()
    table = pyarrow.Table.from_pylist(rows, schema=features(metrics).arrow_schema)
    pyarrow.parquet.write_table(table, folder / "part-00000-of-00001.parquet")
    (folder / SETTINGS_FILE).write_text(json.dumps({"crop_size": 384, "shortest_edge": 512}))
    return folder


def steady(name: str, level: int, number: int) -> float:
    return 0.1 * level + 0.01 * number + 0.001 * DISTORTION_NAMES.index(name)


def run(tmp_path: Path, check: Path, *population: Path) -> int:
    """The exit status of scripts/calibrate_pseudo_mos.py."""
    options: list[Path | str] = ["--check", check, "--report", tmp_path / "report.json"]
    options += ["--output", tmp_path / "table.json", *(["--population", *population] if population else [])]
    return call_script("calibrate_pseudo_mos", *options).returncode


def test_the_table_puts_its_own_population_at_even_ranks(tmp_path: Path) -> None:
    population = write_data_set(tmp_path / "population", ["a", "b", "c"], deviation=steady)
    check = write_data_set(tmp_path / "check", ["d", "e"], deviation=steady)
    assert run(tmp_path, check, population) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["population"]["photographs"] == 3 and table["population"]["distorted_images"] == 375
    assert table["population"]["sides"] == [384]
    assert table["population"]["levels"]["jpeg_compression"] == list(DISTORTIONS["jpeg_compression"].levels)
    away = torch.tensor([steady(n, level, i) for n in DISTORTION_NAMES for level in LEVELS for i in range(3)])
    ranks = fuse({"gmsd": away}, quantiles=table["quantiles"]).sort().values
    assert torch.allclose(ranks, torch.linspace(0, 1, 375), atol=0.02)


def test_the_report_counts_what_is_in_order(tmp_path: Path) -> None:
    def swapped(name: str, level: int, number: int) -> float:
        # In one of two photographs, JPEG's levels 2 and 3 change places.
        if name == "jpeg_compression" and number == 0:
            level = {2: 3, 3: 2}.get(level, level)
        return steady(name, level, number)

    population = write_data_set(tmp_path / "population", ["a", "b", "c"], deviation=steady)
    assert run(tmp_path, write_data_set(tmp_path / "check", ["d", "e"], deviation=swapped), population) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["photographs"] == 2 and report["reference_population"]["photographs"] == 3
    rows = report["pseudo_mos"]["distortions"]
    assert list(rows) == list(DISTORTION_NAMES)
    assert rows["jpeg_compression"]["five_levels_in_order"] == 0.5
    assert rows["jpeg_compression"]["adjacent_levels_in_order"] == 7 / 8
    assert rows["white_noise"]["five_levels_in_order"] == 1 and rows["white_noise"]["mean_falls_with_level"]
    assert rows["mean_shift"]["signed"] and not rows["white_noise"]["signed"]
    summary = report["pseudo_mos"]["summary"]
    assert summary["unsigned"]["distortions"] == 23 and summary["signed"]["distortions"] == 2
    assert summary["unsigned"]["five_levels_in_order"] == pytest.approx(22.5 / 23, abs=1e-4)
    assert report["fast"]["srocc_with_full"] == pytest.approx(1, abs=1e-3)
    assert set(report["metrics"]) == set(METRICS)


def test_a_report_can_be_made_with_the_present_table(tmp_path: Path) -> None:
    population = write_data_set(tmp_path / "population", ["a", "b"], deviation=steady)
    check = write_data_set(tmp_path / "check", ["d"], deviation=steady)
    assert run(tmp_path, check, population) == 0
    table, report = (tmp_path / "table.json").read_bytes(), (tmp_path / "report.json").read_bytes()
    assert run(tmp_path, check) == 0
    assert (tmp_path / "table.json").read_bytes() == table
    assert (tmp_path / "report.json").read_bytes() == report


@pytest.mark.parametrize("mistake", ["same photograph", "few metrics", "few levels", "no data"])
def test_mistakes_get_one_sentence_and_status_2(mistake: str, tmp_path: Path) -> None:
    population = write_data_set(tmp_path / "population", ["a"], deviation=steady)
    check = tmp_path / "check"
    if mistake == "same photograph":
        message = "in both sets, such as a"
        write_data_set(check, ["a"], deviation=steady)
    elif mistake == "few metrics":
        message = "lack the metrics psnr, ms_ssim"
        write_data_set(check, ["b"], deviation=steady, metrics=("ssim",))
    elif mistake == "few levels":
        message = "all 125"
        write_data_set(check, ["b"], deviation=steady, levels=(1, 2))
    else:
        message = "no data set"
    options = ["--check", check, "--population", population, "--output", tmp_path / "table.json"]
    finished = call_script("calibrate_pseudo_mos", *options, "--report", tmp_path / "report.json")
    errors = finished.stderr
    assert finished.returncode == 2
    assert message in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "table.json").exists()


def test_the_committed_report_says_that_levels_are_ranked_as_they_should() -> None:
    report = json.loads((ROOT / "studies" / "results" / "distortions.json").read_text())
    assert report["photographs"] == 20
    unsigned = report["pseudo_mos"]["summary"]["unsigned"]
    assert unsigned["five_levels_in_order"] >= 0.95
    assert unsigned["mean_falls_with_level"] == unsigned["distortions"] == 23
    means = [row["mean_pseudo_mos"] for row in report["pseudo_mos"]["distortions"].values() if not row["signed"]]
    assert len(means) == 23 and all(sorted(row, reverse=True) == row for row in means)
