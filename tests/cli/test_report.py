"""`metaqap report`: what its page holds, from photographs and from finished results, and its answers to mistakes."""

import json
import re

import pytest
from PIL import Image


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
