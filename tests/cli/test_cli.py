"""The `metaqap` command: what it prints, writes and answers to mistakes."""

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from modeling_metaqap import MetaQAPConfig, MetaQAPModel, __version__, checkpoint_reading
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.scorer import Scorer

COLUMNS = (
    "path quality quality_low quality_high interval_coverage familiarity distortion distortion_probability width "
    "height error warning"
).split()
#: Only JSON Lines have lists.
FIELDS = [*COLUMNS, "base_scores", "distortion_probabilities"]


def test_a_folder_is_scored_to_a_table(metaqap, photos, checkpoint):
    status, out, _ = metaqap("score", photos, "--checkpoint", checkpoint)
    assert status == 0
    # No terminal, so no heading and no frame: cells between tabs, the path at the end.
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[-1].rsplit("/", 1)[1] for row in rows] == [f"[{index}].png" for index in range(3)]
    assert all(-5 < float(row[0]) < 5 for row in rows)


def test_the_configuration_is_read_once(metaqap, photos, checkpoint, monkeypatch):
    names, read = [], checkpoint_reading._read_json
    monkeypatch.setattr(
        checkpoint_reading, "_read_json", lambda folder, name: names.append(name) or read(folder, name)
    )
    assert metaqap("score", photos, "--checkpoint", checkpoint)[0] == 0
    assert names.count("config.json") == 1


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of any width shows it, without colours."""
    from modeling_metaqap.cli import printing

    monkeypatch.setattr(printing, "console", Console(force_terminal=True, width=60, color_system=None))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


def test_a_terminal_shows_a_heading_and_each_row_as_it_comes(metaqap, photos, checkpoint, monkeypatch, terminal):
    from modeling_metaqap.cli.score_table import ScoreTable

    (photos / "[1].png").write_bytes(b"broken")
    events, score, show = [], Scorer.score, ScoreTable.print

    def scored(self, images, **options):
        for record in score(self, images, **options):
            events.append("scored")
            yield record

    def shown(self, record):
        events.append("shown")
        show(self, record)

    monkeypatch.setattr(Scorer, "score", scored)
    monkeypatch.setattr(ScoreTable, "print", shown)
    status, out, _ = metaqap("score", photos, "--checkpoint", checkpoint)
    assert status == 1
    assert events == ["scored", "shown"] * 3
    heading, *rows = out.splitlines()
    assert heading.split() == ["quality", "image"]
    assert [row.split()[1].rsplit("/", 1)[1] for row in rows] == ["[0].png", "[1].png:", "[2].png"]
    assert rows[1].startswith("  error  ") and "not an image" in rows[1]


def test_a_warning_stands_behind_the_path(metaqap, photos, checkpoint):
    Image.new("RGB", (80, 64), "white").save(photos / "[1].png")
    _, out, _ = metaqap("score", photos, "--checkpoint", checkpoint)
    assert out.splitlines()[1].endswith("[1].png: there is nothing but one color to judge")


@pytest.mark.parametrize(("asked", "order"), [(["--json"], "input"), (["-o", "-"], "input"), (["--json"], "worst")])
def test_json_lines_are_all_that_goes_to_standard_output(metaqap, photos, checkpoint, tmp_path, asked, order):
    (photos / "broken.jpg").write_bytes(b"broken")
    command = ("score", photos, "--checkpoint", checkpoint, "--sort", order)
    status, out, err = metaqap(*command, *asked)
    assert status == 1 and "1 of 4 images could not be read" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 4 and all(list(row) == FIELDS for row in rows)
    metaqap(*command, "-o", tmp_path / "scores.jsonl")
    assert rows == [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_results_are_replaced_or_continued_on_request_only(metaqap, photos, checkpoint, tmp_path, suffix):
    output = tmp_path / f"scores.{suffix}"
    command = ("score", photos, "--checkpoint", checkpoint, "-o", output)
    assert metaqap(*command)[0] == 0
    (photos / "[0].png").unlink()
    before = output.read_bytes()
    status, _, err = metaqap(*command)
    assert status == 2 and output.read_bytes() == before
    assert f"There is a file {output}; replace it with --overwrite, continue it with --resume" in err
    assert metaqap(*command, "--overwrite")[0] == 0
    assert [path.rsplit("/", 1)[1] for path in paths_in(output)] == ["[1].png", "[2].png"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--json", "-o", "a.csv"], "--json writes to standard output and --output to a file; leave out one of them."),
        (["--resume", "-o", "-"], "--resume continues a file; name it with --output."),
        (["--resume", "--overwrite", "-o", "a.csv"], "--resume keeps the rows of the file and --overwrite drops them"),
    ],
)
def test_options_that_contradict_each_other_are_one_sentence(metaqap, photos, options, sentence):
    status, out, err = metaqap("score", photos, *options)
    assert (status, out) == (2, "") and sentence in err


def test_photographs_that_cannot_be_read_here_are_counted(metaqap, photos, checkpoint):
    for name in ("a.CR2", "b.cr2", "c.jxl"):
        (photos / name).touch()
    status, out, err = metaqap("score", photos, "--checkpoint", checkpoint)
    assert status == 0 and len(out.splitlines()) == 3
    left_out = f"Photographs that cannot be read here are left out: 2 .cr2, 1 .jxl; the first is {photos / 'a.CR2'}."
    assert left_out in err
    for path in photos.glob("*.png"):
        path.unlink()
    status, _, err = metaqap("score", photos, "--checkpoint", checkpoint)
    assert status == 2 and left_out in err


@pytest.mark.parametrize("command", ["score", "report"])
def test_photographs_of_an_archive_that_cannot_be_read_here_are_counted(
    metaqap, photos, checkpoint, tmp_path, command
):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(photos / "[0].png", "a.png")
        file.writestr("a.CR2", b"raw")
    options = ["-o", tmp_path / "report.html", "--no-maps"] if command == "report" else []
    status, _, err = metaqap(command, archive, "--checkpoint", checkpoint, "--engine", "torch", *options)
    left_out = f"Photographs that cannot be read here are left out: 1 .cr2; the first is {archive}::a.CR2."
    assert status == 0 and left_out in err.splitlines()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_output_format_holds_the_same_columns_and_values(metaqap, photos, checkpoint, tmp_path, suffix):
    broken = photos / "broken.jpg"
    broken.write_bytes(b"broken")
    output = tmp_path / f"scores.{suffix}"
    status, _, err = metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, "--sort", "path")
    assert status == 1
    assert "1 of 4 images could not be read" in err
    if suffix == "csv":
        with output.open(newline="") as file:
            rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet output needs pyarrow")
        rows = parquet.read_table(output).to_pylist()
    assert all(list(row) == (FIELDS if suffix == "jsonl" else COLUMNS) for row in rows)
    assert [row["path"].rsplit("/", 1)[1] for row in rows] == ["[0].png", "[1].png", "[2].png", "broken.jpg"]
    assert all(float(row["quality"]) for row in rows[:3])
    assert rows[3]["quality"] is None
    assert rows[3]["error"] == "not an image, or of a format that is not read; save it as JPEG or PNG"
    # Not calibrated and without a distortion head: nothing is invented.
    assert all(row["quality_low"] is None and row["distortion"] is None for row in rows)


def test_scores_on_another_scale_say_so_and_are_not_mixed_with_others(metaqap, photos, checkpoint, tmp_path):
    def qualities(*options):
        _, out, _ = metaqap("score", photos, "--checkpoint", checkpoint, "--json", *options)
        return [json.loads(line)["quality"] for line in out.splitlines()]

    assert qualities("--scale", 1, 5) == pytest.approx([1 + 4 * quality for quality in qualities()], abs=1e-5)
    output = tmp_path / "scores.csv"
    command = ("score", photos, "--checkpoint", checkpoint, "-o", output)
    assert metaqap(*command, "--scale", 1, 5)[0] == 0
    assert json.loads((tmp_path / "scores.csv.run.json").read_text())["scale"] == "1 to 5"
    status, _, err = metaqap(*command, "--resume")
    assert status == 2 and "it was made with the scale 1 to 5, and now it is 0 to 1" in err
    assert metaqap(*command, "--resume", "--scale", 1, 5)[0] == 0
    for wrong, message in (
        (("--scale", 5, 1), "--scale must be the lowest and the highest score"),
        (
            ("--raters-scale",),
            "does not say which ratings its raters could give; name the lowest and the highest",
        ),
        (("--raters-scale", "--scale", 1, 5), "Choose one of --scale and --raters-scale."),
    ):
        status, out, err = metaqap(*command, "--overwrite", *wrong)
        assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1


def test_results_are_sorted_by_quality_on_request(metaqap, photos, checkpoint, tmp_path):
    orders = {}
    for order in ("best", "worst"):
        output = tmp_path / f"{order}.jsonl"
        metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, "--sort", order)
        orders[order] = [json.loads(line)["quality"] for line in output.read_text().splitlines()]
    assert orders["worst"] == sorted(orders["worst"])
    assert orders["best"] == orders["worst"][::-1]


def test_a_list_on_standard_input_is_scored(metaqap, photos, checkpoint, tmp_path):
    listed = [str(photos / "[1].png"), str(photos / "gone.png"), str(photos / "[0].png")]
    output = tmp_path / "out.jsonl"
    status, _, _ = metaqap("score", "-", "-o", output, "--checkpoint", checkpoint, stdin="\n".join(listed) + "\n\n")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert status == 1
    assert [row["path"] for row in rows] == listed
    assert [row["error"] for row in rows] == [None, "no such file or directory", None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "no-such-photo.jpg"], "There is no file or folder no-such-photo.jpg"),
        (["score", "."], "holds no images"),
        (["score", "-"], "standard input is empty"),
        (["score", "photos", "--wrong-option"], "No such option: --wrong-option"),
        (["score", "photos", "--batch-size", "0"], "--batch-size"),
        (["score", "photos", "--device", "abacus"], "abacus"),
        (["score", "photos", "--dtype", "int3"], "int3"),
        (["score", "photos", "-o", "scores.txt"], "must end in .csv, .jsonl or .parquet"),
        (["score", "photos", "-o", "absent/scores.csv"], "Cannot write absent/scores.csv: there is no folder absent"),
        (["score", "photos", "--checkpoint", "photos"], "not a MetaQAP checkpoint"),
        (["flatter"], "flatter"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(metaqap, photos, monkeypatch, arguments, message):
    monkeypatch.chdir(photos.parent)
    status, out, err = metaqap(*arguments)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_version_and_help(metaqap):
    assert metaqap("--version")[:2] == (0, f"metaqap {__version__}\n")
    status, out, _ = metaqap("score", "--help")
    assert status == 0
    assert all(f"--{name}" in out for name in "checkpoint device dtype batch-size recursive sort output".split())


def test_info_says_at_which_scales_learners_see_a_picture(metaqap, tmp_path):
    learners = ["test_resnet", {"backbone": "test_resnet", "name": "twice", "scales": [1, 2]}]
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=learners)), tmp_path / "scales")
    _, out, _ = metaqap("info", "--checkpoint", tmp_path / "scales")
    assert re.search(r"test_resnet .* 1 .* 0\.500", out) and re.search(r"twice .* 1, 2 .* 0\.500", out)


def test_info_describes_the_checkpoint(metaqap, checkpoint):
    status, out, _ = metaqap("info", "--checkpoint", checkpoint)
    assert status == 0
    assert "test_resnet" in out
    assert "not calibrated" in out
    assert "test_resnet: fine-tuned on live train\n" in out
    assert "all together: fused on live validation\n" in out
    status, out, _ = metaqap("info", "--checkpoint", checkpoint, "--json")
    assert status == 0
    [learner] = json.loads(out)["base_learners"]
    assert learner["weight"] == 1.0 and learner["scales"] == [1]
    assert learner["lineage"] == [{"kind": "finetune", "dataset": "live", "split": "train"}]


def test_the_interval_is_called_by_what_it_is_calibrated_to_hold(metaqap, photos, tmp_path, terminal):
    config = MetaQAPConfig(base_learners=["test_resnet"], interval_radius=0.2, interval_coverage=0.75)
    save_checkpoint(MetaQAPModel(config), tmp_path / "calibrated")
    _, table, _ = metaqap("score", photos, "--checkpoint", tmp_path / "calibrated")
    assert "75 % interval" in table.splitlines()[0]
    assert all(re.search(r"\d  -?\d+\.\d\d to -?\d+\.\d\d  ", row) for row in table.splitlines()[1:])
    _, description, _ = metaqap("info", "--checkpoint", tmp_path / "calibrated")
    assert "75 % prediction interval: quality ± 0.200" in description


def test_large_photographs_are_scored_without_pillows_warning(metaqap, photos, checkpoint, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        status, _, _ = metaqap("score", photos, "--checkpoint", checkpoint)
    assert status == 0 and [str(one.message) for one in caught if "pixels" in str(one.message)] == []


def test_the_progress_bar_stays_out_of_redirected_output(metaqap, photos, checkpoint):
    _, out, err = metaqap("score", *[photos] * 2, "--checkpoint", checkpoint)
    assert not re.search(r"\x1b", out + err)


@pytest.mark.parametrize(
    ("options", "in_a_pipe", "has_bar"), [([], True, True), (["--json"], False, True), (["--json"], True, False)]
)
def test_no_progress_bar_runs_into_json_lines_that_the_next_program_shows(
    metaqap, photos, checkpoint, monkeypatch, options, in_a_pipe, has_bar
):
    from modeling_metaqap.cli import printing

    for number in range(16):
        shutil.copy(photos / "[2].png", photos / f"{number}.png")
    seen = io.StringIO()
    monkeypatch.setattr(printing, "errors", Console(file=seen, force_terminal=True))
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe, open(os.devnull, "w") as file:
        monkeypatch.setattr("sys.stdout.fileno", (pipe if in_a_pipe else file).fileno)
        metaqap("score", photos, "--checkpoint", checkpoint, *options)
    os.close(reading)
    assert ("scoring" in seen.getvalue()) == has_bar


def test_the_grid_of_all_distortions_is_drawn(tmp_path, metaqap):
    pytest.importorskip("skimage")
    photo, grid = tmp_path / "photo.png", tmp_path / "grid.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)).save(photo)
    status, _, err = metaqap("distort", photo, "--output", grid, "--cell", 32)
    assert status == 0
    with Image.open(grid) as picture:
        assert picture.height > 25 * 90 and picture.width > 6 * 32
    assert "Wrote" in err


@pytest.mark.parametrize(
    ("photo", "grid", "message"),
    [
        ("nowhere.png", "grid.png", "nowhere.png cannot be distorted: no such file or directory."),
        (
            "text.png",
            "grid.png",
            "text.png cannot be distorted: not an image, or of a format that is not read; save it as JPEG or PNG.",
        ),
        ("tiny.png", "grid.png", "tiny.png cannot be distorted"),
        ("photo.png", "grid.txt", "must end in .png, .jpg or .webp"),
        ("photo.png", "nowhere/grid.png", "Cannot write"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_one_sentence_and_status_2(
    tmp_path, monkeypatch, metaqap, photo, grid, message
):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    status, _, err = metaqap("distort", photo, "--output", grid, "--cell", 32)
    assert status == 2
    assert message in " ".join(err.split())


@pytest.fixture
def with_head(tmp_path):
    torch.manual_seed(0)
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"])), tmp_path / "with-head")
    return tmp_path / "with-head"


def pictures_below(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_scores_are_explained_with_a_picture_for_each_image(tmp_path, metaqap, photos, with_head, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (photos / "broken.png").write_text("no image")
    other = tmp_path / "other"
    other.mkdir()
    (other / "[0].png").write_bytes((photos / "[0].png").read_bytes())
    folder, output = tmp_path / "why" / "here", tmp_path / "scores.jsonl"
    status, out, _ = metaqap("score", photos, other, "--checkpoint", with_head, "--explain", folder, "-o", output)
    assert status == 1  # of the broken one
    drawn = pictures_below(folder)
    assert sorted(drawn) == ["other/[0].png.png", *(f"photos/[{index}].png.png" for index in range(3))]
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    scored = [row for row in rows if row["error"] is None]
    labels = MetaQAPConfig().distortion_labels
    assert all(row["distortion"] in labels and 1 / 25 <= row["distortion_probability"] <= 1 for row in scored)
    assert all("quality_map" not in row for row in rows)
    # The same photograph gives the same picture but for its name; another one does not.
    pictures = {name: np.asarray(Image.open(path).convert("L")) for name, path in drawn.items()}
    first, again, another = (pictures[f"{name}.png"] for name in ("photos/[0].png", "other/[0].png", "photos/[2].png"))
    assert np.abs(first[:60].astype(int) - again[:60]).max() == 0
    assert np.abs(first[:60].astype(int) - another[:60]).max() > 50


def test_explanations_of_files_of_the_same_name_are_all_kept(tmp_path, metaqap, photos, with_head, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, elsewhere = tmp_path / "why", tmp_path.parent / f"{tmp_path.name}-elsewhere"
    for place in (photos / "2020", photos / "2021", elsewhere):
        place.mkdir()
        (place / "[0].png").write_bytes((photos / "[0].png").read_bytes())
    (photos / "[0].jpg").write_bytes((photos / "[0].png").read_bytes())
    # Several commands write to one folder.
    for paths in ([photos / "2020"], ["photos/2021"], ["photos"], [elsewhere], [f"../{elsewhere.name}"]):
        assert metaqap("score", *paths, "--checkpoint", with_head, "--explain", folder)[0] == 0
    expected = {f"photos/{name}.png" for name in ("[0].png", "[1].png", "[2].png", "[0].jpg")}
    expected |= {"photos/2020/[0].png.png", "photos/2021/[0].png.png", f"{elsewhere}/[0].png.png"[1:]}
    assert set(pictures_below(folder)) == expected


def test_an_explanation_never_overwrites_a_photograph(tmp_path, metaqap, photos, with_head, monkeypatch):
    monkeypatch.chdir(photos)
    for path in list(photos.iterdir()):
        path.with_name(f"{path.name}.png").write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    assert metaqap("score", ".", "--checkpoint", with_head, "--explain", photos)[0] == 0
    assert all((photos / name).read_bytes() == content for name, content in before.items())
    assert len(list(photos.iterdir())) == 2 * len(before)


@pytest.mark.parametrize(
    "options",
    [
        ["--checkpoint", "no-such-checkpoint"],
        ["--checkpoint", "tiny", "--engine", "onnx"],
        ["--checkpoint", "tiny", "--engine", "onnx", "--explain", "why"],
        ["--checkpoint", "tiny", "--device", "abacus"],
        ["--checkpoint", "tiny", "--explain", "good.csv"],
    ],
)
def test_a_mistake_leaves_the_results_of_an_earlier_run(metaqap, photos, checkpoint, monkeypatch, options):
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # nobody waits for the Hub to have it
    (photos.parent / "tiny").symlink_to(checkpoint)
    (photos.parent / "good.csv").write_text("path,quality\nphoto.jpg,0.5\n")
    status, _, _ = metaqap("score", "photos", "-o", "good.csv", *options)
    assert status == 2
    assert (photos.parent / "good.csv").read_text() == "path,quality\nphoto.jpg,0.5\n"


def paths_in(output):
    return [record.path for record in open_records_again(output)]


def open_records_again(output):
    """The records of a finished or interrupted output, as `--resume` reads them."""
    from modeling_metaqap.inference.record_files import RecordFile

    run = json.loads(output.with_name(f"{output.name}.run.json").read_text())
    file = RecordFile(output, run=run, resume=True)
    file.close()
    return list(file.records())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_names_in_any_bytes_are_scored_and_survive_the_output(metaqap, checkpoint, tmp_path, monkeypatch, suffix):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [b"\xff caf\xe9.png", b"new\nline.png", b"=1+1.png", b"-1.png", b"file:a%20.png", b"'a.png", b" b .png"]
    for name in names:
        path = folder / os.fsdecode(name)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(folder)
    output = tmp_path / f"scores.{suffix}"
    command = ("score", "-", "-0", "--checkpoint", checkpoint)
    status, _, err = metaqap(*command, "-o", output, stdin=b"\0".join(names))
    assert (status, "Traceback" in err) == (0, False)
    assert [os.fsencode(path) for path in paths_in(output)] == names
    if suffix == "csv":
        status, out, _ = metaqap(*command, stdin=b"\0".join(names))
        assert status == 0 and ("\\xe9.png" in out or "\\udce9.png" in out)
        with output.open(newline="", encoding="utf-8") as file:
            cells = [row["path"] for row in csv.DictReader(file)]
        assert cells == [
            "file:%FF%20caf%E9.png",
            "new\nline.png",
            "'=1+1.png",
            "'-1.png",
            "file:file%3Aa%2520.png",
            "''a.png",
            " b .png",
        ]


def test_a_list_of_lines_keeps_spaces_and_bytes(metaqap, photos, checkpoint, tmp_path):
    name = os.fsencode(photos) + b"/ sp\xe9ce .png"
    (photos / "[0].png").rename(os.fsdecode(name))
    output = tmp_path / "scores.jsonl"
    assert metaqap("score", "-", "-o", output, "--checkpoint", checkpoint, stdin=name + b"\r\n\n")[0] == 0
    assert paths_in(output) == [os.fsdecode(name)]


def test_an_argument_longer_than_a_name_may_be_is_one_sentence(metaqap, checkpoint):
    status, _, err = metaqap("score", "x" * 300, "--checkpoint", checkpoint)
    assert status == 2 and "There is no file or folder" in err and "Traceback" not in err


def test_what_is_no_file_gets_an_error_and_the_rest_its_scores(metaqap, photos, checkpoint, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to("nowhere")
    output = tmp_path / "scores.jsonl"
    assert metaqap("score", photos, "-o", output, "--checkpoint", checkpoint)[0] == 1
    errors = {record.path.rsplit("/", 1)[1]: record.error for record in open_records_again(output)}
    assert errors["pipe.jpg"] == "it is a named pipe, not a file"
    assert errors["gone.jpg"] == "no such file or directory"
    assert [errors[f"[{index}].png"] for index in range(3)] == [None] * 3


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_interrupted_run_is_continued_without_scoring_anything_twice(
    metaqap, photos, checkpoint, tmp_path, monkeypatch, suffix
):
    (photos / "broken.png").write_text("no image")
    expected, output = tmp_path / f"whole.{suffix}", tmp_path / f"scores.{suffix}"
    metaqap("score", photos, "--checkpoint", checkpoint, "-o", expected)
    score, asked = Scorer.score, []

    def interrupted(self, images, **options):
        yield from score(self, itertools.islice(images, 2), **options)
        raise KeyboardInterrupt

    def counted(self, images, **options):
        asked.extend(images := list(images))
        return score(self, images, **options)

    monkeypatch.setattr(Scorer, "score", interrupted)
    status, _, err = metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, "--resume")
    assert status == 130 and "keeps 2 rows; the same command with --resume goes on." in err
    torn = output.with_name(f"{output.name}.part") if suffix == "parquet" else output
    with torn.open("ab") as file:
        file.write(b'"half a row')
    monkeypatch.setattr(Scorer, "score", counted)
    status, out, _ = metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, "--resume")
    assert (status, out) == (1, "")
    assert len(asked) == 2
    assert output.read_bytes() == expected.read_bytes()
    asked.clear()
    assert metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, "--resume")[0] == 1
    assert asked == [] and output.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("scores*")) == [output.name, f"{output.name}.run.json"]


def test_an_interrupted_run_over_an_archive_is_continued_within_it(metaqap, photos, checkpoint, tmp_path, monkeypatch):
    (photos / "broken.png").write_text("no image")
    place, expected, output = tmp_path / "photos.zip", tmp_path / "whole.csv", tmp_path / "scores.csv"
    with zipfile.ZipFile(place, "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, path.name)
    assert metaqap("score", place, "--checkpoint", checkpoint, "-o", expected)[0] == 1
    score, asked = Scorer.score, []

    def interrupted(self, images, **options):
        yield from score(self, itertools.islice(images, 2), **options)
        raise KeyboardInterrupt

    def counted(self, images, **options):
        for image in images:
            asked.append(image.name)
            yield from score(self, [image], **options)

    monkeypatch.setattr(Scorer, "score", interrupted)
    assert metaqap("score", place, "--checkpoint", checkpoint, "-o", output)[0] == 130
    monkeypatch.setattr(Scorer, "score", counted)
    assert metaqap("score", place, "--checkpoint", checkpoint, "-o", output, "--resume")[0] == 1
    assert asked == [f"{place}::[2].png", f"{place}::broken.png"]
    rows, whole = [list(csv.DictReader(path.open(newline=""))) for path in (output, expected)]
    assert rows == whole and len(rows) == 4


def test_web_addresses_are_scored_as_files_are_and_private_ones_only_on_request(
    metaqap, photos, checkpoint, tmp_path, served
):
    names = ["[0].png", "[1].png"]
    addresses = [f"{served}/photos/{name}" for name in names]
    scores = {}
    for run, arguments in {
        "files": [photos / name for name in names],
        "allowed": [*addresses, "--allow-private"],
        "refused": addresses,
    }.items():
        output = tmp_path / f"{run}.jsonl"
        status, _, _ = metaqap("score", *arguments, "--checkpoint", checkpoint, "-o", output)
        assert status == (1 if run == "refused" else 0)
        scores[run] = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["quality"] for row in scores["allowed"]] == [row["quality"] for row in scores["files"]]
    assert [row["path"] for row in scores["allowed"]] == addresses
    assert all("private network, which may not be fetched" in row["error"] for row in scores["refused"])


def test_what_is_no_file_is_not_explained(metaqap, photos, checkpoint, tmp_path):
    status, _, err = metaqap(
        "score", "https://example.org/a.jpg", "--checkpoint", checkpoint, "--explain", tmp_path / "explained"
    )
    assert status == 2 and "--explain needs photographs that are files of this machine" in err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_output_of_other_weights_or_options_is_not_continued(
    metaqap, photos, checkpoint, tmp_path, with_head, suffix
):
    output = tmp_path / f"scores.{suffix}"
    metaqap("score", photos, "--checkpoint", checkpoint, "-o", output)
    before = output.read_bytes()
    for options in (["--checkpoint", with_head], ["--checkpoint", checkpoint, "--dtype", "bfloat16"]):
        status, _, err = metaqap("score", photos, "-o", output, "--resume", *options)
        assert status == 2 and "cannot be continued: it was made with" in err and len(err.splitlines()) == 1
    output.with_name(f"{output.name}.run.json").unlink()
    status, _, err = metaqap("score", photos, "-o", output, "--resume", "--checkpoint", checkpoint)
    assert status == 2 and "cannot be continued, as there is no" in err
    assert output.read_bytes() == before


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_continued_run_takes_the_engine_that_it_was_begun_with(
    metaqap, photos, checkpoint, tmp_path, monkeypatch, suffix
):
    """Not what auto stands for now: with more photographs, or another package installed, that is another one."""
    from modeling_metaqap.inference import engines, sharing

    output, asked = tmp_path / f"scores.{suffix}", []
    run = output.with_name(f"{output.name}.run.json")
    command = ("score", photos, "--checkpoint", checkpoint, "-o", output)
    assert metaqap(*command, "--dtype", "auto")[0] == 0
    begun = json.loads(run.read_text())
    assert begun["engine"] == "torch" and begun["number format"] in ("float32", "bfloat16")
    assert metaqap(*command, "--overwrite", "--engine", "torch")[0] == 0

    def asked_for(options):
        asked.append((options.engine, options.num_images))
        return make(options)

    make = sharing.ScoringOptions.make_scorer
    monkeypatch.setattr(sharing.ScoringOptions, "make_scorer", asked_for)
    assert metaqap(*command, "--resume")[0] == 0
    assert metaqap(*command, "--resume", "--engine", "torch")[0] == 0
    # As if it had been begun with ONNX Runtime, which few photographs would not get: now it is there no more.
    run.write_text(run.read_text().replace('"torch"', '"onnx"'))
    monkeypatch.setattr("modeling_metaqap.inference.engines.cached_onnx", lambda *_, make, **__: None)
    before = output.read_bytes()
    status, _, err = metaqap(*command, "--resume")
    assert status == 2 and len(err.splitlines()) == 1 and output.read_bytes() == before
    assert "it was made with the engine onnx, and now it is torch" in err
    assert asked == [("torch", 3), ("torch", 3), ("auto", None)]
    assert engines.Engine.auto not in begun.values()


def test_two_commands_do_not_write_one_output(metaqap, photos, checkpoint, tmp_path):
    from modeling_metaqap.data.locking import only_writer

    output = tmp_path / "scores.csv"
    with only_writer(output):
        for options in ([], ["--resume"], ["--overwrite"]):
            status, out, err = metaqap("score", photos, "--checkpoint", checkpoint, "-o", output, *options)
            assert (status, out) == (2, "") and not output.exists()
            assert err.startswith(f"metaqap: Another process is writing {output}; wait until it has ended")
            assert len(err.splitlines()) == 1


def test_sorted_results_are_written_as_they_come_too(metaqap, photos, checkpoint, tmp_path, monkeypatch):
    score = Scorer.score

    def interrupted(self, images, **options):
        yield from score(self, itertools.islice(images, 2), **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "score", interrupted)
    metaqap("score", photos, "--checkpoint", checkpoint, "-o", tmp_path / "scores.csv", "--sort", "worst")
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 2


def test_a_score_that_is_no_number_is_the_error_of_its_image(metaqap, photos, tmp_path):
    model = MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"]))
    with torch.no_grad():
        model.base_learners[0].quality_head.weight.fill_(float("nan"))
    save_checkpoint(model, tmp_path / "nan")
    output = tmp_path / "scores.jsonl"
    status, _, err = metaqap("score", photos, "--checkpoint", tmp_path / "nan", "-o", output)
    if status != 2:  # the checkpoint may be refused as a whole
        assert status == 1
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["error"] for row in rows] == ["the model gave it no finite score"] * 3


def test_a_photograph_that_vanishes_before_it_is_explained_does_not_end_the_run(
    metaqap, photos, with_head, tmp_path, monkeypatch
):
    score = Scorer.score

    def vanishing(self, images, **options):
        for record in score(self, images, **options):
            if "[1]" in record.path:
                (photos / "[1].png").unlink()
            yield record

    monkeypatch.setattr(Scorer, "score", vanishing)
    status, _, err = metaqap("score", photos, "--checkpoint", with_head, "--explain", tmp_path / "why")
    assert status == 0
    assert "1 images have no picture, the first: " in err and "[1].png: no such file" in err


@pytest.mark.parametrize("command", ["score", "recipes"])  # one writes as it goes, the other at its end
def test_an_output_that_nobody_reads_any_more_ends_the_command_in_silence(photos, checkpoint, command):
    options = ["--json", photos, "--checkpoint", checkpoint, "--engine", "torch"] if command == "score" else []
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does when it has enough
    arguments = [sys.executable, "-m", "modeling_metaqap", command, *options]
    with open(writer, "wb") as closed:
        done = subprocess.run(arguments, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_results_appear_as_they_come_so_that_an_interrupted_run_keeps_them(
    metaqap, photos, checkpoint, tmp_path, monkeypatch
):
    score = Scorer.score

    def interrupted(self, images, **options):
        yield from score(self, itertools.islice(images, 2), **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "score", interrupted)
    status, _, err = metaqap("score", photos, "--checkpoint", checkpoint, "-o", tmp_path / "scores.csv")
    kept = f"{tmp_path / 'scores.csv'} keeps 2 rows; the same command with --resume goes on."
    assert (status, err) == (130, f"{kept}\nmetaqap: interrupted.\n")
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 2


def test_a_grid_does_not_overwrite_its_photograph(metaqap, photos):
    pytest.importorskip("skimage")
    before = (photos / "[0].png").read_bytes()
    status, _, err = metaqap("distort", photos / "[0].png", "--output", photos / "[0].png", "--cell", 32)
    assert status == 2
    assert "is the photograph itself; write to another file." in err
    assert (photos / "[0].png").read_bytes() == before


def test_a_folder_for_explanations_that_cannot_be_made_is_one_sentence_and_status_2(metaqap, photos, checkpoint):
    status, _, err = metaqap("score", photos, "--checkpoint", checkpoint, "--explain", photos / "[0].png" / "x")
    assert status == 2
    assert "Cannot write" in err


@pytest.fixture
def ratings(photos):
    (photos.parent / "ratings.csv").write_text(
        "file_name,mos\n" + "".join(f"[{index}].png,{rating}\n" for index, rating in enumerate((1.5, 4.5, 3)))
    )
    return photos.parent / "ratings.csv"


def test_evaluate_measures_a_folder_of_rated_images(metaqap, photos, ratings, checkpoint, tmp_path):
    pytest.importorskip("datasets", reason="needs the train extra")
    output = tmp_path / "report"
    options = ["--mos-range", 1, 5, "--checkpoint", checkpoint, "--output-dir", output]
    options += ["--worst", 2, "--bootstrap", 20]
    status, out, err = metaqap("evaluate", photos, "--csv", ratings, *options)
    assert status == 0, err
    names = {path.name for path in output.iterdir()}
    assert names == {"results.json", "report.md", "predictions.csv", "scatter.png", "residuals.png"}
    [row] = json.loads((output / "results.json").read_text())["results"]
    assert (row["n"], row["checkpoint"], row["split"]) == (3, "tiny", "all")
    assert f"{row['srocc']['value']:.3f}" in out
    assert " ".join(out.split()).count("; opinions and scores from 0 to 1") == 2
    with (output / "predictions.csv").open(newline="") as file:
        qualities = {line["image_id"]: float(line["quality"]) for line in csv.DictReader(file)}
    assert qualities == {"[0].png": 0.125, "[1].png": 0.875, "[2].png": 0.5}
    # The two worst disagreements, in both places.
    report = (output / "report.md").read_text()
    assert sum(f"[{index}].png" in out for index in range(3)) == 2
    assert sum(f"[{index}].png" in report for index in range(3)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone does not exist"),
        (["photos"], "must hold one CSV file (found: none)"),
        (["photos", "--csv", "gone.csv"], "gone.csv does not exist"),
        (["photos", "--csv", "ratings.csv"], "say with --mos-range which lowest"),
        (["photos", "--csv", "ratings.csv", "--mos-range", "5", "1"], "lowest and the highest score"),
        (["photos", "--csv", "ratings.csv", "--mos-column", "stars"], "no column 'stars'"),
        (["photos", "--csv", "one.csv"], "At least two images"),
        (["photos", "--csv", "absent.csv"], "[9].png"),
        (["photos", "--csv", "ratings.csv", "--mos-range", "1", "5", "--output-dir", "ratings.csv"], "Cannot write"),
    ],
)
def test_a_mistake_with_a_rated_folder_is_one_sentence_and_status_2(
    metaqap, ratings, checkpoint, monkeypatch, arguments, message
):
    pytest.importorskip("datasets", reason="needs the train extra")
    monkeypatch.chdir(ratings.parent)
    ratings.with_name("one.csv").write_text("file_name,mos\n[0].png,0.5\n")
    ratings.with_name("absent.csv").write_text("file_name,mos\n[0].png,0.5\n[9].png,0.5\n")
    status, out, err = metaqap("evaluate", *arguments, "--checkpoint", checkpoint, "--bootstrap", 0)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_decompression_bomb_is_not_distorted_but_told_in_one_sentence(metaqap, photos, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    status, _, err = metaqap("distort", photos / "[0].png", "--output", tmp_path / "grid.png")
    assert status == 2
    assert "cannot be distorted: it has more pixels than the limit of 2,000" in " ".join(err.split())


# adapt and suggest


@pytest.fixture
def cheap_adaptation(monkeypatch, tmp_path):
    """Few draws, and a cache of features that only this test has."""
    from modeling_metaqap.fusion import adapting

    settings = adapting.AdaptationSettings
    monkeypatch.setattr(adapting, "AdaptationSettings", lambda seed: settings(seed=seed, draws=2, n_bootstrap=20))
    monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / "cache"))


def rate(folder, score):
    """Ratings from 1 to 5 that rise with the scores."""
    names = [path.name for path in sorted(folder.glob("*.png"))]
    rows = [f"{name},{3 + np.clip(score[name], -2, 2):.3f}" for name in names]
    (folder / "ratings.csv").write_text("\n".join(["image,rating", *rows]) + "\n")


def test_a_checkpoint_is_adapted_and_says_what_to_expect(
    metaqap, rated_sources, checkpoint, tmp_path, cheap_adaptation, monkeypatch
):
    from modeling_metaqap.fusion import adapting

    adapt, runs = adapting.adapt, tmp_path / "runs"
    monkeypatch.setattr(adapting, "adapt", lambda *args, **options: replace(adapt(*args, **options), runs=runs))
    runs.mkdir()
    status, _, _ = metaqap("score", rated_sources, "--checkpoint", checkpoint, "--output", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        scores = {row["path"].rsplit("/", 1)[-1]: float(row["quality"]) for row in csv.DictReader(file)}
    rate(rated_sources, {name: (score - np.mean([*scores.values()])) * 50 for name, score in scores.items()})
    call = ("adapt", rated_sources, "--csv", rated_sources / "ratings.csv", "--checkpoint", checkpoint)
    status, out, err = metaqap(*call, "--output", tmp_path / "mine")
    assert status == 2
    assert "say with --mos-range" in err
    status, out, err = metaqap(*call, "--mos-range", 1, 5, "--output", tmp_path / "mine")
    assert status == 0, err
    assert "30 ratings, each predicted by the others, on a scale from 0 to 1" in " ".join(out.split())
    assert not runs.exists()
    assert "on ratings that were left out" in out
    assert "`metaqap score --raters-scale` gives them on your scale, 1 to 5." in err
    assert {"adaptation.json", "learning_curve.png", "LICENSE", "README.md"} < {
        path.name for path in (tmp_path / "mine").iterdir()
    }
    status, out, _ = metaqap("info", "--checkpoint", tmp_path / "mine")
    assert "adapted to folder all, n 30, rated from 1 to 5" in out
    assert "raters' scale: 1 to 5, for `metaqap score --raters-scale`" in out
    status, _, err = metaqap(*call, "--mos-range", 1, 5, "--output", tmp_path / "mine")
    assert status == 2
    assert "is there already" in err


def test_gradient_steps_are_asked_for(metaqap, rated_sources, checkpoint, tmp_path, monkeypatch):
    from modeling_metaqap.fusion import adapting

    given = {}

    def adapted(folder, csv, **options):
        given.update(options)
        options["on_run"]("mobilenet fine-tuned", 1, 5)
        raise MetaQAPError("stopped here")

    monkeypatch.setattr(adapting, "adapt", adapted)
    call = ("adapt", rated_sources, "--output", tmp_path / "mine", "--runs-dir", tmp_path / "runs")
    status, _, err = metaqap(*call, "--finetune", "--finetune-learners", 3)
    assert (status, given["finetune"].learners, given["runs_dir"]) == (2, 3, tmp_path / "runs")
    assert "Training mobilenet fine-tuned, fold 1 of 5 ..." in err
    metaqap(*call)
    assert given["finetune"] is False


def test_photographs_to_rate_next_are_named_in_a_csv(metaqap, rated_sources, checkpoint, tmp_path, cheap_adaptation):
    output = tmp_path / "to-rate.csv"
    (rated_sources / "labels.csv").write_text("image,mos\na0.png,0.5\nb1.png,0.6\n")
    call = ("suggest", rated_sources, "--checkpoint", checkpoint, "--output", output)
    status, _, err = metaqap(*call, "-n", 5, "--csv", rated_sources / "labels.csv")
    assert status == 0, err
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["image"] for row in rows} - {"a0.png", "b1.png"}) == 5
    assert all(row["mos"] == "" for row in rows)
    status, _, err = metaqap(*call, "-n", 50)
    assert status == 2
    assert "to-rate.csv is there already" in err
