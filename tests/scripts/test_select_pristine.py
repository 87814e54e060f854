"""scripts/select_pristine.py: which photographs become sources of distorted images."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_loader import exit_status, load_script

pytest.importorskip("datasets")

select = load_script("select_pristine")
SCORES = {"c.png": 0.9, "a.png": 0.4, "b.png": 0.9, "d.png": 0.95, "e.png": 0.1}


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    folder = tmp_path / "rated"
    folder.mkdir()
    for number, name in enumerate([*SCORES, "validation.png", "test.png"]):
        pixels = np.random.default_rng(number).integers(256, size=(40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [[name, score, "train"] for name, score in SCORES.items()]
        csv.writer(file).writerows(
            [["file_name", "mos", "split"], *rows, *([f"{name}.png", 1.0, name] for name in ("validation", "test"))]
        )
    return folder


def run(rated: Path, output: Path, count: int, split: str = "train") -> int:
    options = ["--dataset", "folder", "--split", split, "--data_dir", str(rated), "--count", str(count)]
    return exit_status(select.main, *options, "--cache_dir", rated.parent / "cache", "--output_dir", output)


def test_the_best_rated_training_images_are_copied_byte_for_byte(rated: Path, tmp_path: Path) -> None:
    output = tmp_path / "pristine"
    assert run(rated, output, 2) == 0
    # b and c have the same score, and b comes first.
    assert sorted(path.name for path in output.iterdir()) == ["b.png", "d.png"]
    assert all(path.read_bytes() == (rated / path.name).read_bytes() for path in output.iterdir())


@pytest.mark.parametrize("count", [0, 6])
def test_more_photographs_than_there_are_is_one_sentence(rated, tmp_path, capsys, count) -> None:
    assert run(rated, tmp_path / "pristine", count) == 2
    assert f"The split has 5 images; {count} of them cannot be chosen" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "pristine").exists()


def test_the_test_split_is_refused(rated, tmp_path, capsys) -> None:
    assert run(rated, tmp_path / "pristine", 1, split="test") == 2
    assert "holds test images" in " ".join(capsys.readouterr().err.split())


def test_a_folder_with_other_files_is_left_alone(rated, tmp_path, capsys) -> None:
    output = tmp_path / "pristine"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    assert run(rated, output, 1) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in output.iterdir()] == ["mine.txt"]
