"""The Adapt tab without a browser: rated photographs are uploaded, and a checkpoint comes back in a zip archive."""

import csv
import io
import json
import logging
import re
import sys
import tempfile
import zipfile
from dataclasses import replace

import pytest

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")
pytest.importorskip("datasets")
pytest.importorskip("matplotlib")

from rated_photographs import QUICK, rate_photographs

from modeling_metaqap import MetaQAPModel, Scorer
from modeling_metaqap.data.rating_options import RatingOptions
from modeling_metaqap.demo import adapt_tab, adapting, figures
from modeling_metaqap.demo.adapting import Adapter
from modeling_metaqap.demo.app import build_app, make_adapter
from modeling_metaqap.demo.assessment import Assessor
from modeling_metaqap.demo.limits import Limits
from modeling_metaqap.demo.unpacking import Upload
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.adapting import adapt
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint

STARS = RatingOptions(mos_range=(1, 5))


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "before"
    save_checkpoint(make_model(), folder)
    return folder


@pytest.fixture(scope="module")
def scorer(checkpoint):
    return Scorer(checkpoint, device="cpu", max_pixels=1_000_000)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, scorer):
    return rate_photographs(tmp_path_factory.mktemp("rated"), scorer)


@pytest.fixture
def adapter(scorer, checkpoint):
    return Adapter(scorer, checkpoint, Limits(max_unpacked=10_000_000), settings=QUICK)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary files go; nothing of an upload may stay."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.glob("metaqap-adapt-*")) == []


def table(rows, header=("image", "mos")):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def archive(path, files):
    """A zip archive of photographs, by their names in it, and of texts."""
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content if isinstance(content, (str, bytes)) else content.read_bytes())
    return Upload(path, path.name)


def rows_of(photographs):
    return [(path.name, rating) for path, rating in photographs.items()]


@pytest.fixture(scope="module")
def adapted(scorer, checkpoint, photographs, tmp_path_factory):
    """What comes of a zip archive of a folder with a broken photograph in it, and the progress on the way."""
    folder = tmp_path_factory.mktemp("adapted")
    files = {f"mine/{path.name}": path for path in photographs} | {"mine/broken <b>.jpg": b"broken"}
    files["ratings.csv"] = table([*rows_of(photographs), ("broken <b>.jpg", 2)])
    progress = []
    made = Adapter(scorer, checkpoint, Limits(max_unpacked=10_000_000), settings=QUICK).adapt(
        [archive(folder / "mine.zip", files)],
        folder / "out.zip",
        options=STARS,
        on_progress=lambda *both: progress.append(both),
    )
    return made, folder / "out.zip", progress


def test_the_archive_holds_the_checkpoint_that_metaqap_adapt_makes(adapted, photographs, checkpoint, tmp_path):
    made, output, _ = adapted
    with zipfile.ZipFile(output) as opened:
        opened.extractall(tmp_path)
    folder = tmp_path / "my-metaqap"
    assert [path.name for path in tmp_path.iterdir() if path.name != "temporary"] == ["my-metaqap"]
    files = {path.name for path in folder.iterdir()}
    assert {"README.md", "adaptation.json", "learning_curve.png", "modeling_metaqap.py", "config.json"} <= files
    (tmp_path / "ratings.csv").write_text(table(rows_of(photographs)))
    other = adapt(
        next(iter(photographs)).parent,
        tmp_path / "ratings.csv",
        checkpoint=checkpoint,
        mos_range=(1, 5),
        settings=QUICK,
        cache_dir=tmp_path / "features",
        device="cpu",
    )
    record = json.loads((folder / "adaptation.json").read_text())
    assert record["settings"] == other.record["settings"]
    for name in ("n", "images_sha256", "started_from", "mos_range", "fitted", "slope", "offset", "gamma", "penalty"):
        assert record[name] == pytest.approx(other.record[name]), name
    assert record["figures"]["after"]["srocc"]["value"] == other.record["figures"]["after"]["srocc"]["value"]
    [found] = Scorer(folder, device="cpu", scale="raters").score([next(iter(photographs))])
    assert found.quality != pytest.approx(1 + 4 * next(Scorer(checkpoint).score([next(iter(photographs))])).quality)
    assert MetaQAPModel.from_pretrained(folder).config.mos_range == [1, 5]
    assert str(checkpoint.parent) not in (folder / "README.md").read_text() + json.dumps(record)


def test_progress_comes_every_few_photographs(adapted):
    _, _, progress = adapted
    assert progress == [(0, 31), (8, 31), (16, 31), (24, 31), (31, 31)]


def test_the_page_says_what_to_expect_and_what_was_left_out(adapted):
    made, _, _ = adapted
    assert made.left_out == {
        "mine/broken <b>.jpg": "not an image, or of a format that is not read; save it as JPEG or PNG"
    }
    shown = figures.adaptation(made.record, made.left_out)
    command = "metaqap score photographs --checkpoint my-metaqap"
    assert f"{command} --raters-scale</code>" in shown
    for scale in ([0, 1], None):
        assert f"{command}</code>" in figures.adaptation(made.record | {"mos_range": scale}, {})
    assert "A photograph that cannot be read was left out:" in shown
    assert "<li>mine/broken &lt;b&gt;.jpg: not an image" in shown
    cells = re.findall(r"<td>([-\d.]+) <small>\[([-\d.]+), ([-\d.]+)\]</small></td>", shown)
    figures_of = made.record["figures"]
    assert cells == [
        tuple(f"{figures_of[when][name][key]:.3f}" for key in ("value", "low", "high"))
        for name in ("plcc", "srocc", "rmse")
        for when in ("before", "after")
    ]
    curve = made.record["learning_curve"]
    assert shown.count("<circle") == len(curve) - 1
    assert f"SROCC by number of ratings: {curve[0]['srocc']:.2f} without any, {curve[1]['srocc']:.2f} with 15" in shown
    for scale, words in ((None, "."), ([1.0], " on average, and wider where scores are less sure.")):
        told = figures.adaptation(made.record | {"interval_scale": scale, "interval_radius": 0.25}, {})
        assert f"±&nbsp;0.25{words}</p>" in told
    flat = [{"n": number, "srocc": 1.0, "srocc_sd": 0.0} for number in (0, 15, 24)]
    assert "with 15, 1.00 with 24" in figures.adaptation(made.record | {"learning_curve": flat}, {})
    one_point = figures.adaptation(made.record | {"learning_curve": flat[:2]}, {})
    assert "A fit on 15 ratings predicts the others" in one_point and "<svg" not in one_point
    many = figures.adaptation(
        made.record | {"learning_curve": []}, {f"{number}.jpg": "too big" for number in range(9)}
    )
    assert "9 photographs that cannot be read were left out:" in many and many.count("too big") == 5
    assert "and 4 more" in many and "<svg" not in many


def test_photographs_and_a_csv_file_need_no_archive(adapter, photographs, tmp_path, monkeypatch):
    """Names that Gradio has changed on disk count as they were."""
    fitted = []
    monkeypatch.setattr(adapting, "adapt_to_ratings", lambda scorer, ratings, **_: fitted.append(ratings))
    monkeypatch.setattr(adapting, "_save", lambda *_: None)
    (tmp_path / "stars.csv").write_text(
        table([(f"a&{path.name}", 3 + index % 2) for index, path in enumerate(photographs)], ("photo", "stars"))
    )
    uploads = [Upload(path, f"a&{path.name}") for path in photographs]
    with pytest.raises(AttributeError):  # nothing was fitted here
        adapter.adapt(
            [*uploads, Upload(tmp_path / "stars.csv", "stars.csv")],
            tmp_path / "out.zip",
            options=replace(STARS, image_column="photo", mos_column="stars"),
        )
    assert fitted[0].names == [f"a&{path.name}" for path in photographs]
    assert set(fitted[0].quality) == {0.5, 0.75}


ROWS = [(f"{number}.png", 1 + number % 5) for number in range(20)]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "The upload has no CSV file; it takes the photographs and one CSV file with their ratings."),
        ({"b.csv": "", "a.csv": ""}, "The upload has 2 CSV files, b.csv, a.csv;"),
        ({"a.csv": ""}, "a.csv has no rows."),
        ({"a.csv": b"image,mos\n\0,\x80"}, "a.csv is not a CSV file"),
        ({"a.csv": "photo,mos\n1.png,3"}, "a.csv has none of the columns file_name, "),
        ({"a.csv": "image,mos\n../../etc/x,3"}, "a.csv names a photograph outside of the upload: ../../etc/x."),
        (
            {"a.csv": table([*ROWS, ("x.png", 3)])},
            "1 of its 21 photographs that are not in the upload, such as x.png.",
        ),
        ({"a.csv": table([*ROWS, ("x.png", 9)])}, "outside of the range 1 to 5; say with `mos_range`"),
        ({"a.csv": table([(name, 3) for name, _ in ROWS])}, "All ratings in a.csv are 3; nothing can be learned"),
        ({"a.csv": table([*ROWS, ROWS[0]])}, "a.csv has more than one row for 0.png; keep one"),
        ({"a.csv": table(ROWS[:3])}, "There are ratings of 3 photographs; it takes 15 to adapt to them."),
        ({"a.csv": table(ROWS)}, "None of the photographs can be read; of 0.png: not an image"),
        ({"a.csv": table(ROWS), "0.png": "of twins"}, "0.png and 1.png are the same photograph"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_one_sentence_without_a_path(adapter, photographs, tmp_path, files, sentence):
    if "0.png" in files:  # photographs that can be read, the first two of them the same
        shown = [next(iter(photographs)), *photographs]
        files |= {name: path for (name, _), path in zip(ROWS, shown, strict=False)}
    else:
        files = {name: f"broken {name}" for name, _ in ROWS} | files
    with pytest.raises(MetaQAPError) as refusal:
        adapter.adapt([archive(tmp_path / "mine.zip", files)], tmp_path / "out.zip", options=STARS)
    assert sentence in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value) and "/temporary" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out.zip").exists()


def test_what_the_server_cannot_keep_is_a_sentence_too(adapter, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/srv/secret")

    monkeypatch.setattr(adapting, "unpack_uploads", full)
    with pytest.raises(MetaQAPError, match="^The server cannot keep these files: No space left on device.$"):
        adapter.adapt([Upload(tmp_path, "mine.zip")], tmp_path / "out.zip", options=STARS)


def test_no_upload_is_a_sentence(adapter, tmp_path):
    with pytest.raises(MetaQAPError, match="choose photographs and a CSV file with their ratings first"):
        adapter.adapt([], tmp_path / "out.zip", options=STARS)


def test_so_many_broken_ones_that_too_few_are_left_are_named_as_well(adapter, photographs, tmp_path):
    few = dict(list(photographs.items())[:14])
    files = {path.name: path for path in few} | {"x.png": b"x", "y.png": b"y"}
    files["a.csv"] = table([*rows_of(few), ("x.png", 1), ("y.png", 2)])
    with pytest.raises(
        MetaQAPError, match=r"of 14 different .* Of the photographs 2 cannot be read, such as x.png: not an"
    ):
        adapter.adapt([archive(tmp_path / "mine.zip", files)], tmp_path / "out.zip", options=STARS)


class TestLimits:
    def refusal(self, scorer, checkpoint, upload, output, **limits):
        with pytest.raises(MetaQAPError) as refusal:
            Adapter(scorer, checkpoint, Limits(**{"max_unpacked": 10**7} | limits)).adapt(
                [upload], output, options=STARS
            )
        return str(refusal.value)

    def test_ratings_bytes_pixels_and_time(self, scorer, checkpoint, photographs, tmp_path, monkeypatch):
        files = {path.name: path for path in photographs} | {"a.csv": table(rows_of(photographs))}
        upload = archive(tmp_path / "mine.zip", files)
        arguments = (scorer, checkpoint, upload, tmp_path / "out.zip")
        assert "a.csv rates 30 photographs; this server adapts to 20 at most" in self.refusal(
            *arguments, max_ratings=20
        )
        assert "more than the limit of 9,999 bytes" in self.refusal(*arguments, max_unpacked=9999)
        assert "larger than the limit of 99 bytes" in self.refusal(*arguments, max_bytes=99)
        monkeypatch.setattr(scorer, "seen", replace(scorer.seen, max_pixels=1000))
        assert "it has more pixels than the limit of 1,000" in self.refusal(*arguments)
        monkeypatch.setattr(scorer, "seen", replace(scorer.seen, max_pixels=None))
        now = iter([0, *[0] * 2, *[901] * 9])
        monkeypatch.setattr(adapting.time, "monotonic", lambda: next(now))
        assert "Only 16 of the 30 photographs could be read in the 900 seconds" in self.refusal(*arguments)

    def test_a_table_that_would_take_much_memory(self, scorer, checkpoint, tmp_path, monkeypatch):
        arguments = (scorer, checkpoint)
        # A header of 300 columns that a quoted line break and a line separator of Unicode hide, and 5,000 short rows.
        header = '"im\nage",' + ",".join(f"c\u2028{number}" for number in range(300))
        wide = archive(tmp_path / "wide.zip", {"a.csv": header + "\nx" * 5000})
        monkeypatch.setattr(adapting, "rated_names", lambda *_, **__: pytest.fail("it was read"))
        refusal = self.refusal(*arguments, wide, tmp_path / "out.zip")
        assert refusal == "a.csv has more than 1,000,000 cells; keep the columns that matter."
        monkeypatch.setattr(adapting, "_MAX_CSV_BYTES", 10)
        assert "a.csv has more than 10 bytes" in self.refusal(*arguments, wide, tmp_path / "out.zip")

    def test_a_full_disk(self, scorer, checkpoint, tmp_path):
        upload = archive(tmp_path / "mine.zip", {})
        refusal = self.refusal(scorer, checkpoint, upload, tmp_path / "out.zip", max_unpacked=10**18)
        assert refusal == "The server has no room for more photographs now; try again in an hour."


class TestTab:
    def tabs(self, app):
        return [block.label for block in app.blocks.values() if block.get_block_name() == "tabitem"]

    def test_an_operator_switches_it_off(self, scorer, checkpoint):
        assert make_adapter(scorer, checkpoint, Limits(max_ratings=0)) is None
        assert self.tabs(build_app(Assessor(scorer))) == ["Score", "Compare", "Distort", "Batch"]
        with pytest.raises(MetaQAPError, match=r"max_ratings must be 0, .*, or at least 15, got 3"):
            make_adapter(scorer, checkpoint, Limits(max_ratings=3))

    @pytest.mark.parametrize("package", ["datasets", "matplotlib"])
    def test_without_a_package_it_is_left_out_and_the_log_says_so(
        self, scorer, checkpoint, monkeypatch, caplog, package
    ):
        rooms = ("modeling_metaqap.demo.adapt", "modeling_metaqap.fusion", "modeling_metaqap.data.")
        modules = {name: module for name, module in sys.modules.items() if name.startswith((*rooms, f"{package}."))}
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if hasattr(sys.modules[parent], child):  # an import sets it to the new module: have it put back
                monkeypatch.setattr(sys.modules[parent], child, module)
        for name in modules:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        with caplog.at_level(logging.WARNING):
            assert make_adapter(scorer, checkpoint, Limits()) is None
        assert f"The Adapt tab is left out. This needs {package}, which is not installed" in caplog.text

    @pytest.fixture
    def show(self, adapter, scorer):
        """The function behind the button."""
        app = build_app(Assessor(scorer), adapter=adapter)
        assert self.tabs(app)[-1] == "Adapt"
        [function] = [one for one in app.fns.values() if one.name == "show_adaptation"]
        # One after the other, and those who want a score need not wait for it. Programs have `metaqap adapt`.
        assert (function.concurrency_id, function.concurrency_limit) == ("adapt", 1)
        assert function.api_visibility == "private" and len(app.get_api_info()["named_endpoints"]) == 5
        yield function.fn
        app.close()

    def test_a_mistake_is_said_with_the_names_of_the_fields(self, show, photographs, tmp_path):
        files = {path.name: path for path in photographs} | {"<a>.csv": table(rows_of(photographs))}
        uploads = [archive(tmp_path / "mine.zip", files)]
        shown, download = show(uploads, "", False, "", "")
        assert "such as “Lowest and highest rating” 1 5." in shown and "&lt;a&gt;.csv" in shown
        assert not download["visible"]
        for text in ("5 to 1", "1", "one to five", "1 to 5 to 9", "nan 5"):
            assert "“Lowest and highest rating”" in show(uploads, text, False, "", "")[0], text
        assert "choose “Column with the names” from" in show(uploads, "1-5", False, " photo ", "")[0]
        assert "set “Lower ratings are better”" in show(uploads, "1;5", True, None, None)[0].replace(
            "ratings fall where the scores rise; if lower ratings are better ones, ", ""
        )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, None),
        ("  ", None),
        ("1 to 5", (1, 5)),
        ("1-5", (1, 5)),
        ("0, 100", (0, 100)),
        ("-3 – 3.5", (-3, 3.5)),
        ("-3 -1", (-3, -1)),
    ],
)
def test_a_scale_can_be_typed_in_several_ways(text, numbers):
    assert adapt_tab._numbers(text) == numbers
