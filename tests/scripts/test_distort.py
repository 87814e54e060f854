"""scripts/distort.py: the data set that it makes, and that it survives whatever happens to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from script_loader import SCRIPTS, exit_status, load_script

from modeling_metaqap.data.distorted import building as build_module
from modeling_metaqap.data.distorted.building import BuildSettings, draw_distortions, parse_shard
from modeling_metaqap.data.distorted.loading import load_distorted
from modeling_metaqap.data.distortions import DISTORTION_NAMES, DISTORTIONS, LEVELS
from modeling_metaqap.errors import DataError

distort = load_script("distort")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small colourful pictures, one of them in a sub-directory."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    for number, name in enumerate(["a.png", "b.png", "c.png", "d.png", "more/e.png"]):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((56, 48), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def run(pristine: Path, output: Path, *options: str) -> int:
    defaults = ["--metrics", "psnr,gmsd", "--shortest_edge", "64", "--per_image", "4", "--images_per_part", "2"]
    return exit_status(distort.main, "--pristine_dir", pristine, "--output_dir", output, *defaults, *options)


def contents(*outputs: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for output in outputs for path in sorted(output.iterdir())}


def load(output: Path) -> datasets.Dataset:
    files = sorted(str(path) for path in output.glob("*.parquet"))
    return datasets.Dataset.from_parquet(files, cache_dir=str(output.parent / f"{output.name}-cache"))


@pytest.fixture(scope="module")
def single_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("single") / "output"
    assert run(photographs, output) == 0
    return output


def test_the_data_set_has_the_columns_and_labels_it_promises(single_run: Path, photographs: Path) -> None:
    dataset = load(single_run)
    assert dataset.column_names == ["image", "distortion", "level", "pseudo_mos", "reference_id", "metrics"]
    assert dataset.features["distortion"].names == list(DISTORTION_NAMES)
    assert Counter(dataset["reference_id"]) == dict.fromkeys(["a.png", "b.png", "c.png", "d.png", "more/e.png"], 4)
    for row in dataset:
        assert 0 < row["pseudo_mos"] < 1 and row["level"] in LEVELS
        assert set(row["metrics"]) == {"psnr", "gmsd"}
        assert row["image"].mode == "RGB" and row["image"].size == (56, 48)
        reference = np.asarray(Image.open(photographs / row["reference_id"])).astype(float)
        error = np.mean((np.asarray(row["image"]) - reference) ** 2) / 255**2
        assert row["metrics"]["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.01)


def test_images_are_what_their_labels_say(single_run: Path, photographs: Path) -> None:
    certain = {"gaussian_blur", "brighten", "darken", "pixelate", "quantization", "jpeg_compression", "high_sharpen"}
    checked = 0
    for row in load(single_run):
        name = DISTORTION_NAMES[row["distortion"]]
        if name in certain:  # no chance in these
            expected = DISTORTIONS[name](Image.open(photographs / row["reference_id"]), row["level"], 0)
            assert np.array_equal(np.asarray(row["image"]), np.asarray(expected))
            checked += 1
    assert checked


def test_shards_together_are_the_single_run_byte_for_byte(single_run: Path, photographs: Path, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert run(photographs, tmp_path / shard[0], "--shard", shard) == 0
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert set(first) & set(second) == {"settings.json"}
    assert first | second == contents(single_run)
    assert len(first) == 3 and len(second) == 2


def test_a_run_that_was_cut_off_goes_on_where_it_was(
    single_run: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails after the first part, in the middle of writing the second."""
    output = tmp_path / "output"
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name.startswith("part-00001"):
            self.write_bytes(self.read_bytes()[:100])
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    assert run(photographs, output) == 130
    monkeypatch.undo()
    assert len(list(output.glob("part-*"))) == 1
    kept = next(output.glob("part-*")).stat().st_mtime_ns
    built = []
    build_part = build_module.build_part
    monkeypatch.setattr(build_module, "build_part", lambda *args: built.append(args[2].name) or build_part(*args))
    assert run(photographs, output) == 0
    assert built == ["part-00001-of-00003.parquet", "part-00002-of-00003.parquet"]
    assert contents(output) == contents(single_run)
    assert (output / "part-00000-of-00003.parquet").stat().st_mtime_ns == kept


def test_a_finished_run_makes_nothing_again(
    single_run: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in single_run.iterdir()}
    assert run(photographs, single_run) == 0
    assert {path: path.stat().st_mtime_ns for path in single_run.iterdir()} == before
    assert "Made 0 distorted images (20 more were there)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_loses_and_doubles_nothing(single_run: Path, photographs: Path, tmp_path: Path) -> None:
    """SIGKILL as soon as the first part appears, with two workers in the middle of others; then go on with two."""
    output = tmp_path / "output"
    command = [
        sys.executable,
        str(SCRIPTS / "distort.py"),
        "--pristine_dir",
        str(photographs),
        "--output_dir",
        str(output),
    ]
    command += ["--metrics", "psnr,gmsd", "--shortest_edge", "64", "--per_image", "4", "--images_per_part", "2"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    process = subprocess.Popen([*command, "--num_workers", "2"], env=environment, start_new_session=True)
    while not list(output.glob("part-*")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The workers notice that they are alone: after a while nothing of the process group is left.
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("Workers outlive the run that was killed.")
    subprocess.run([*command, "--num_workers", "2"], env=environment, check=True)
    assert contents(output) == contents(single_run)


def test_rows_of_a_photograph_do_not_depend_on_the_others(single_run: Path, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("d.png\n\nmore/e.png\n")
    assert run(photographs, tmp_path / "output", "--list", str(tmp_path / "list.txt")) == 0
    few = load(tmp_path / "output").to_list()
    many = [row for row in load(single_run).to_list() if row["reference_id"] in ("d.png", "more/e.png")]
    assert few == many


def test_chance_differs_between_photographs_and_not_between_levels(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("first.png", "second.png"):
        Image.new("RGB", (48, 48), (128, 90, 128)).save(folder / name)
    assert run(folder, tmp_path / "output", "--per_image", "125") == 0
    noise = DISTORTION_NAMES.index("white_noise")
    images = {
        (row["reference_id"], row["level"]): np.asarray(row["image"]).astype(float) - [128, 90, 128]
        for row in load(tmp_path / "output")
        if row["distortion"] == noise
    }
    assert len(images) == 10
    first, second = images["first.png", 1].ravel(), images["second.png", 1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert np.corrcoef(first, images["first.png", 2].ravel())[0, 1] > 0.95


def test_another_seed_draws_other_images(single_run: Path, photographs: Path, tmp_path: Path) -> None:
    assert run(photographs, tmp_path / "output", "--seed", "1") == 0
    first, second = load(single_run), load(tmp_path / "output")
    assert list(first["reference_id"]) == list(second["reference_id"])
    assert list(first["distortion"]) != list(second["distortion"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "1"], "seed = 0"),
        (["--per_image", "5"], "per_image = 4"),
        (["--metrics", "psnr"], "metrics = "),
        (["--list", "LIST"], "other photographs"),
    ],
)
def test_another_data_set_is_not_mixed_in(
    options: list[str],
    message: str,
    single_run: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "list").write_text("a.png\n")
    before = contents(single_run)
    assert run(photographs, single_run, *[str(tmp_path / "list") if o == "LIST" else o for o in options]) == 2
    assert message in capsys.readouterr().err
    assert contents(single_run) == before


def test_broken_and_too_small_photographs_are_skipped_and_named(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    whole = (photographs / "a.png").read_bytes()
    (folder / "whole.png").write_bytes(whole)
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("no image's name")
    Image.new("RGB", (20, 90)).save(folder / "small.png")
    assert run(folder, tmp_path / "output") == 0
    errors = capsys.readouterr().err
    assert all(f"Skipped {name}" in errors for name in ("cut.png", "text.jpg", "small.png"))
    assert "20 x 90 pixels are too few" in errors and "notes.txt" not in errors
    # Two parts, of which the first has nothing in it.
    assert set(load(tmp_path / "output")["reference_id"]) == {"whole.png"}
    assert run(folder, tmp_path / "output") == 0
    assert "Made 0 distorted images (4 more were there)" in capsys.readouterr().err


def test_photographs_are_shrunk_cropped_and_brought_to_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.effect_noise((200, 120), 80).save(folder / "grey.png")
    assert run(folder, tmp_path / "shrunk") == 0
    assert {row["image"].size for row in load(tmp_path / "shrunk")} == {(107, 64)}
    assert run(folder, tmp_path / "cropped", "--crop_size", "40") == 0
    assert {(row["image"].size, row["image"].mode) for row in load(tmp_path / "cropped")} == {((40, 40), "RGB")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "i/n"),
        (["--shard", "0/2"], "i/n"),
        (["--shard", "half"], "i/n"),
        (["--per_image", "0"], "1 to 125"),
        (["--per_image", "126"], "1 to 125"),
        (["--num_workers", "0"], "worker"),
        (["--seed", "-1"], "negative"),
        (["--images_per_part", "0"], "at least one photograph"),
        (["--metrics", "lpips"], "Unknown metric"),
        (["--metrics", "full"], "at least 161 pixels, but the shortest edge is 64"),
        (["--crop_size", "65"], "larger than the shortest edge"),
        (["--list", "nowhere.txt"], "no file nowhere.txt"),
        (["--pristine_dir", "nowhere"], "no directory nowhere"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(
    options: list[str], message: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photographs, tmp_path / "output", *options) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_an_empty_directory_and_a_missing_photograph_are_mistakes(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "output") == 2
    assert "no images" in capsys.readouterr().err
    (tmp_path / "list").write_text("a.png\nz.png\n")
    assert run(photographs, tmp_path / "output", "--list", str(tmp_path / "list")) == 2
    assert "no file z.png" in capsys.readouterr().err


def test_draws_cover_the_distortions_evenly_and_never_repeat() -> None:
    rng = np.random.default_rng(0)
    once = draw_distortions(DISTORTION_NAMES, 25, rng)
    assert sorted(name for name, _ in once) == sorted(DISTORTION_NAMES)
    everything = draw_distortions(DISTORTION_NAMES, 125, rng)
    assert len(set(everything)) == 125
    some = Counter(name for name, _ in draw_distortions(DISTORTION_NAMES, 40, rng))
    assert set(some.values()) == {1, 2}


def test_settings_file_records_what_the_data_set_depends_on(single_run: Path) -> None:
    settings = json.loads((single_run / "settings.json").read_text())
    assert settings["per_image"] == 4 and settings["seed"] == 0 and settings["photographs"] == 5
    assert settings["metrics"] == ["psnr", "gmsd"]


def test_shards_are_read_and_settings_checked() -> None:
    assert parse_shard("2/4") == (2, 4)
    with pytest.raises(DataError, match="crop size is 100"):
        BuildSettings(per_image=1, crop_size=100)


def test_a_data_set_is_read_back_as_training_reads_it(single_run: Path, tmp_path: Path) -> None:
    table = load_distorted(single_run, cache_dir=str(tmp_path))
    assert set(table.column_names) == {"image", "quality", "distortion", "level", "reference_id"}
    assert len(table) == 4 * 5
    assert all(0 <= quality <= 1 for quality in table["quality"])


def test_a_data_set_that_is_not_complete_is_not_read(single_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no distorted data set in"):
        load_distorted(tmp_path)
    copy = shutil.copytree(single_run, tmp_path / "copy")
    total = len(list(copy.glob("part-*")))
    next(copy.glob("part-*.parquet")).unlink()
    with pytest.raises(DataError, match=f"holds {total - 1} of {total} parts"):
        load_distorted(copy)
