"""`metaqap report`: what its page holds, from photographs and from finished results, and its answers to mistakes."""

import json
import re

import pytest
from PIL import Image

from modeling_metaqap import ScoreRecord
from modeling_metaqap.data.image_units import ImageUnit
from modeling_metaqap.inference import shards
from modeling_metaqap.inference.record_files import open_records


def rows(page):
    """The rows of a page, by file."""
    parts = re.findall(r'<script type="application/json" class="rows">(.*?)</script>', page.read_text(), re.DOTALL)
    return {row["file"]: row for part in parts for row in json.loads(part)}


def test_photographs_become_a_page_with_pictures_and_maps(metaqap, photos, checkpoint, tmp_path):
    (photos / "broken.jpg").write_bytes(b"broken")
    output = tmp_path / "report.html"
    status, out, err = metaqap("report", photos, "-o", output, "--checkpoint", checkpoint, "--thumbnail", 40)
    assert (status, out) == (1, "")
    size = f"{output.stat().st_size / 1e6:.1f} MB"
    assert err == f"Wrote 4 photographs to {output}, {size}.\n1 of 4 images could not be read.\n"
    page = rows(output)
    assert list(page) == ["[0].png", "[1].png", "[2].png", "broken.jpg"]
    assert page["[0].png"]["folder"] == str(photos) and page["broken.jpg"]["error"].startswith("not an image")
    for name in ("[0].png", "[1].png", "[2].png"):
        assert page[name]["picture"][1:] == [40, 32] and page[name]["map"][1:] == [32, 26]
    _, table, _ = metaqap("score", photos, "--checkpoint", checkpoint, "--engine", "torch")
    scores = {line.rsplit("/", 1)[1]: line.split("\t")[0] for line in table.splitlines() if "error" not in line}
    assert {name: f"{row['quality']:.3f}" for name, row in page.items() if "quality" in row} == scores


def test_maps_can_be_left_out_and_another_engine_has_none(metaqap, photos, checkpoint, tmp_path):
    output = tmp_path / "report.html"
    assert metaqap("report", photos, "-o", output, "--checkpoint", checkpoint, "--no-maps")[0] == 0
    assert not any("map" in row for row in rows(output).values())
    assert 'id="maps"' not in output.read_text()
    status, _, err = metaqap("report", photos, "-o", output, "--overwrite", "--maps", "--engine", "onnx")
    assert status == 2 and "--maps needs --engine torch" in err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_finished_results_are_shown_with_the_photographs_that_are_found(
    metaqap, photos, checkpoint, tmp_path, monkeypatch, suffix
):
    results, output = photos.parent / f"scores.{suffix}", tmp_path / "report.html"
    monkeypatch.chdir(photos.parent)
    metaqap("score", photos.name, "-o", results, "--checkpoint", checkpoint)
    (photos / "[1].png").unlink()
    Image.new("RGB", (9, 9)).save(photos / "[2].png")
    # From another folder: paths are also looked for beside the results.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, _, err = metaqap("report", results, "-o", output)
    assert status == 0
    assert "Wrote 3 photographs" in err and "2 of them have no picture" in " ".join(err.split())
    page = rows(output)
    assert ["picture" in page[f"[{index}].png"] for index in range(3)] == [True, False, False]
    assert all(0 < len(row["shown"]) and row["folder"] == "photos" for row in page.values())
    assert "<dt>number format</dt><dd>float32</dd>" in output.read_text()
    status, _, err = metaqap("report", results, "-o", output, "--overwrite", "--checkpoint", checkpoint)
    assert status == 2 and "holds finished scores, which are shown as they are" in err


def test_a_page_has_the_scale_that_score_has(metaqap, photos, checkpoint, tmp_path):
    output, results = tmp_path / "report.html", tmp_path / "scores.jsonl"
    common = ("--checkpoint", checkpoint, "--engine", "torch", "--scale", 1, 5)
    assert metaqap("report", photos, "-o", output, "--no-maps", *common)[0] == 0
    assert metaqap("score", photos, "-o", results, *common)[0] == 0
    expected = {
        row["path"].rsplit("/", 1)[1]: f"{row['quality']:.2f}"
        for row in map(json.loads, results.open(encoding="utf-8"))
    }
    assert {name: row["shown"] for name, row in rows(output).items()} == expected
    assert "<dt>scale</dt><dd>1 to 5</dd>" in output.read_text()
    # Finished results as well, and from 0 to 1 where nothing is asked for.
    assert metaqap("report", results, "-o", output, "--overwrite", "--scale", 1, 5)[0] == 0
    assert {name: row["shown"] for name, row in rows(output).items()} == expected
    assert metaqap("report", results, "-o", output, "--overwrite")[0] == 0
    assert {name: 1 + 4 * float(row["shown"]) for name, row in rows(output).items()} == pytest.approx(
        {name: float(shown) for name, shown in expected.items()}, abs=0.03
    )
    for options, message in (
        (["--scale", 5, 1], "--scale must be the lowest and the highest score"),
        (["--raters-scale"], "leave out the options of scoring"),
    ):
        status, _, err = metaqap("report", results, "-o", output, "--overwrite", *options)
        assert status == 2 and message in err and len(err.splitlines()) == 1


def test_results_without_their_run_file_are_on_the_scale_that_is_said(metaqap, tmp_path):
    results, output = tmp_path / "scores.csv", tmp_path / "report.html"
    with open_records(results) as file:
        for path, quality in (("a.jpg", 1.9), ("b.jpg", 1.1)):
            file.write(ScoreRecord(path=path, quality=quality))
    status, _, err = metaqap("report", results, "-o", output)
    assert status == 2 and not output.exists() and len(err.splitlines()) == 1
    assert f"{results} has the score 1.9, which cannot be on the scale from 0 to 1; say with --scale which" in err
    assert metaqap("report", results, "-o", output, "--scale", 1, 5)[0] == 0
    shown = {name: (row["shown"], row["grade"]) for name, row in rows(output).items()}
    assert shown == {"a.jpg": ("1.90", "poor"), "b.jpg": ("1.10", "bad")}
    assert "<dt>scale</dt><dd>1 to 5</dd>" in output.read_text()


def test_a_folder_that_several_processes_have_written_is_shown_as_one_table(metaqap, photos, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    scores, output = tmp_path / "scores", tmp_path / "report.html"
    shards.begin_shards(scores, run={"scale": "1 to 5", "engine": "onnx"}, resume=False)
    for position, name in enumerate(("photos/[0].png", "photos/[1].png", "gone.jpg")):
        task = shards.ShardTask(position, ImageUnit((name,)))
        record = ScoreRecord(path=name, quality=4.6, width=80, height=64)
        shards.score_task(scores, task, lambda done, record=record: [record])
    complete = sorted(scores.iterdir())
    shards.begin_try(scores, task)
    (scores / f".{complete[0].name}").write_bytes(b"PAR1")  # what a kill has left
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # photographs are looked for beside the folder too
    for places in ([scores], complete, [scores / "*.parquet"]):
        status, _, err = metaqap("report", *places, "-o", output, "--overwrite")
        assert status == 0 and "Wrote 3 photographs" in err and "1 of them have no picture" in " ".join(err.split())
        page = rows(output)
        assert {name: row["shown"] for name, row in page.items()} == dict.fromkeys(page, "0.90")
        assert [name for name, row in page.items() if "picture" in row] == ["[0].png", "[1].png"]
        for fact in ("<dt>results</dt><dd>scores</dd>", "<dt>engine</dt><dd>onnx</dd>"):
            assert fact in output.read_text()


def test_results_of_several_runs_are_one_page_that_says_what_they_have_in_common(metaqap, tmp_path):
    output = tmp_path / "report.html"
    for name, scale, quality in (("a", "0 to 1", 0.75), ("b", "1 to 5", 4)):
        with open_records(tmp_path / f"{name}.csv", run={"engine": "onnx", "weights": name, "scale": scale}) as file:
            file.write(ScoreRecord(path=f"{name}.jpg", quality=quality))
    assert metaqap("report", tmp_path / "a.csv", tmp_path / "b.csv", "-o", output)[0] == 0
    assert {name: row["shown"] for name, row in rows(output).items()} == {"a.jpg": "0.75", "b.jpg": "0.75"}
    assert "<dt>results</dt><dd>a.csv and 1 more</dd>" in output.read_text()
    assert "<dt>engine</dt>" in output.read_text() and "<dt>weights</dt>" not in output.read_text()


def test_a_page_is_replaced_only_when_that_is_asked_for(metaqap, photos, checkpoint, tmp_path):
    output = tmp_path / "report.html"
    output.write_text("before")
    status, _, err = metaqap("report", photos, "-o", output, "--checkpoint", checkpoint)
    assert status == 2 and "replace it with --overwrite, or write to another." in err
    assert output.read_text() == "before"
    assert metaqap("report", photos, "-o", output, "--checkpoint", checkpoint, "--overwrite")[0] == 0
    assert len(rows(output)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "Missing option"),
        (["photos", "-o", "report.pdf"], "The page report.pdf must end in .html."),
        (["photos", "-o", "absent/report.html"], "there is no folder absent"),
        (["no-such-photo.jpg", "-o", "report.html"], "There is no file or folder no-such-photo.jpg"),
        (["photos", "-o", "report.html", "--fast", "--maps"], "gives no quality maps"),
        (["ratings.csv", "-o", "report.html"], "ratings.csv holds no results of `metaqap score`"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(metaqap, photos, monkeypatch, arguments, message):
    (photos.parent / "ratings.csv").write_text("file_name,mos\na.jpg,3\n")
    monkeypatch.chdir(photos.parent)
    status, out, err = metaqap("report", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("metaqap: ") and message in err and err.count("\n") == 1
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos", "ratings.csv"]
