"""What the demo computes and draws, its limits and its files; no server is started."""

import csv
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPConfig, MetaQAPModel
from modeling_metaqap.cli import app as cli
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.inference.wording import GRADES, distortion_title, heading

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")

import gradio as gr
from repository import ROOT

from modeling_metaqap.demo import app as demo_app
from modeling_metaqap.demo import assessment, figures
from modeling_metaqap.demo.app import Demo, build_app, serve
from modeling_metaqap.demo.assessment import Assessor, probability_better
from modeling_metaqap.demo.examples import find_examples, originals_of, pairs_of
from modeling_metaqap.demo.limits import Limits
from modeling_metaqap.demo.links import PAPER, page_links
from modeling_metaqap.inference.decoding import read_as_seen
from modeling_metaqap.inference.isolation import IsolatedDecoder
from modeling_metaqap.inference.record_files import COLUMNS

LABELS = ["gaussian_blur", "jpeg_compression", "white_noise"]


def make_assessor(folder, **config):
    torch.manual_seed(0)
    save_checkpoint(MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet"], **config)), folder)
    return Assessor(Scorer(folder, device="cpu", max_pixels=1_000_000, max_crops=4))


@pytest.fixture(scope="module")
def assessor(tmp_path_factory):
    return make_assessor(
        tmp_path_factory.mktemp("head") / "tiny",
        interval_radius=0.2,
        interval_coverage=0.75,
        distortion_labels=LABELS,
    )


@pytest.fixture(scope="module")
def plain_assessor(tmp_path_factory):
    """Neither calibrated nor with a distortion head."""
    return make_assessor(tmp_path_factory.mktemp("plain") / "tiny", distortion_labels=[])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(3):
        small = Image.fromarray(rng.integers(0, 255 >> index, (20, 30, 3), dtype=np.uint8))
        paths.append(folder / f"photo <{index}>.png")
        small.resize((300, 200), Image.Resampling.BICUBIC).save(paths[-1])
    return [str(path) for path in paths]


def record(quality, radius=None, coverage=0.9):
    if radius is None:
        return ScoreRecord(path="", quality=quality)
    low, high = quality - radius, quality + radius
    return ScoreRecord(path="", quality=quality, quality_low=low, quality_high=high, interval_coverage=coverage)


class TestComparison:
    def test_equal_scores_are_a_coin_toss(self):
        assert probability_better(record(0.5, 0.1), record(0.5, 0.3)) == pytest.approx(0.5)

    def test_the_probability_is_that_of_a_normal_difference(self):
        # Both standard deviations are .2 / 1.6449; a difference of .2 is 1.6449 / sqrt(2) = 1.1631 of theirs together,
        # and the normal distribution's table gives 0.8776 there.
        assert probability_better(record(0.7, 0.2), record(0.5, 0.2)) == pytest.approx(0.8776, abs=1e-4)

    def test_an_interval_that_holds_fewer_opinions_means_larger_errors(self):
        # As above with standard deviations of .2 / .6745: .6745 / sqrt(2) = .4769, where the table gives .6833.
        first, second = (record(quality, 0.2, coverage=0.5) for quality in (0.7, 0.5))
        assert probability_better(first, second) == pytest.approx(0.6833, abs=1e-4)
        verdict = figures.verdict(assessment.Comparison(first, second, 0.6833))
        assert "Quality and 50 % interval" in verdict and "opinion for 50 % of photographs" in verdict

    def test_it_is_the_counter_probability_for_the_photographs_exchanged(self):
        one, other = record(0.8, 0.15), record(0.45, 0.25)
        assert probability_better(one, other) + probability_better(other, one) == pytest.approx(1)

    def test_without_an_interval_nothing_is_invented(self):
        assert probability_better(record(0.9), record(0.1, 0.1)) is None

    def test_the_verdict_names_the_better_one_and_how_sure(self):
        verdict = figures.verdict(assessment.Comparison(record(0.3, 0.1), record(0.8, 0.1), 0.03))
        assert "The right photograph is better" in verdict
        assert "left better: <b>3 %" in verdict
        assert "Too close" in figures.verdict(assessment.Comparison(record(0.5, 0.1), record(0.5, 0.1), 0.5))
        uncalibrated = figures.verdict(assessment.Comparison(record(0.9), record(0.1), None))
        assert "The left photograph scores higher" in uncalibrated and "cannot say how sure" in uncalibrated


class TestScore:
    def test_it_is_the_score_of_the_file_and_the_api_says_the_same(self, assessor, photos):
        [expected] = assessor.scorer.score([photos[0]])
        found = Demo(assessor).score(photos[0])
        assert found["quality"] == pytest.approx(expected.quality, abs=1e-6)
        assert found["quality_high"] - found["quality_low"] == pytest.approx(0.4, abs=1e-5)
        assert found["distortion_probabilities"] == pytest.approx(expected.distortion_probabilities, abs=1e-6)
        assert sum(found["distortion_probabilities"]) == pytest.approx(1)
        assert (found["file"], found["width"], found["height"]) == ("photo <0>.png", 300, 200)

    def test_a_blank_picture_gets_a_warning(self, assessor, photos, tmp_path):
        Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
        expected = "there is nothing but one color to judge"
        demo = Demo(assessor)
        assert demo.score(str(tmp_path / "blank.png"))["warning"] == expected
        gauge = demo.show_score(str(tmp_path / "blank.png"))[0]
        assert f"Careful: {expected}." in gauge and '<span class="mq-word"></span>' in gauge
        assert not any(f", {word}" in gauge for word in GRADES)
        compared = demo.show_comparison(str(tmp_path / "blank.png"), photos[0])
        assert "<h2>There is too little to judge</h2>" in compared and "better" not in compared
        assert f"Careful with the left one: {expected}." in compared and "the right one" not in compared
        assert "Careful" not in demo.show_score(photos[0])[0]
        [row, _], _ = demo.batch([str(tmp_path / "blank.png"), photos[0]])
        assert row["warning"] == expected
        _, table, *_ = demo.show_batch([str(tmp_path / "blank.png")])
        assert table["value"]["headers"][-1] == "note" and table["value"]["data"][0][-1] == expected

    def test_a_poor_photograph_looks_like_what_is_sure_a_good_one_like_nothing(self):
        poor, good = (
            ScoreRecord(path="", quality=quality, distortion="gaussian_blur", distortion_probability=0.95)
            for quality in (0.4, 0.8)
        )
        assert "looks like <b>Gaussian blur</b>" in figures.gauge(poor) and "looks like" not in figures.gauge(good)

    def test_a_stranger_is_called_one(self, assessor, photos, monkeypatch):
        sentence = "unlike the photographs that this checkpoint learned from, so trust the score less"
        demo = Demo(assessor)
        [expected] = assessor.scorer.score([photos[0]])
        [away] = expected.distances
        monkeypatch.setattr(assessor.scorer.engine.config, "familiar_distances", [away - 2, away - 1])
        assert demo.score(photos[0])["familiarity"] == 0
        assert f"Careful: {sentence}." in demo.show_score(photos[0])[0]
        _, table, *_ = demo.show_batch([photos[0]])
        assert table["value"]["headers"][-1] == "note" and table["value"]["data"][0][-1] == sentence
        monkeypatch.setattr(assessor.scorer.engine.config, "familiar_distances", [away + 1, away + 2])
        assert demo.score(photos[0])["familiarity"] == 1
        assert "Careful" not in demo.show_score(photos[0])[0]

    def test_the_page_shows_number_interval_map_distortions_and_votes(self, assessor, photos):
        scores = Demo(assessor).score(photos[0])
        gauge, overlay, distortions, votes = Demo(assessor).show_score(photos[0])
        assert f">{scores['quality']:.2f}<" in gauge
        assert scores["interval_coverage"] == 0.75
        assert f"75 % interval <b>{scores['quality_low']:.2f}</b> to <b>{scores['quality_high']:.2f}</b>" in gauge
        assert overlay.count("data:image/jpeg") == 2 and 'type="range"' in overlay
        best = scores["distortion"]
        assert distortions.index(heading(distortion_title(best))) == min(
            distortions.index(heading(distortion_title(label))) for label in LABELS
        )
        assert "test_resnet" in votes

    def test_file_names_cannot_bring_markup_into_the_page(self, assessor, photos, tmp_path):
        broken = tmp_path / "<b>x.png"
        broken.write_bytes(b"broken")
        assert "<0>" not in "".join(Demo(assessor).show_score(photos[0]))
        assert "&lt;b&gt;x.png cannot be scored: not an image" in Demo(assessor).show_score(str(broken))[0]

    def test_a_checkpoint_without_head_and_interval_says_so(self, plain_assessor, photos):
        gauge, _, distortions, _ = Demo(plain_assessor).show_score(photos[0])
        assert "no interval" in gauge
        assert "not to name what is wrong" in distortions
        scores = Demo(plain_assessor).score(photos[0])
        assert scores["distortion_probabilities"] is None and scores["quality_low"] is None

    @pytest.mark.parametrize(
        ("size", "sentence"),
        [
            ((1200, 900), "big.png cannot be scored: it has more pixels than the limit of 1,000,000."),
            ((3000, 90), "big.png cannot be scored: 3,000 x 90 pixels are too long and narrow."),
        ],
    )
    def test_what_would_cost_too_much_is_refused_by_its_header(self, assessor, tmp_path, monkeypatch, size, sentence):
        Image.new("L", size).save(tmp_path / "big.png")
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
        with pytest.raises(MetaQAPError, match=re.escape(sentence)):
            Demo(assessor).score(str(tmp_path / "big.png"))

    def test_no_photograph_is_a_sentence(self, assessor):
        with pytest.raises(MetaQAPError, match="choose a photograph"):
            Demo(assessor).score(None)


class TestDistort:
    def test_the_curve_holds_the_scores_of_the_six_images(self, assessor, photos):
        distorted, curve = Demo(assessor).distort(photos[0], "gaussian_blur", 4)
        assert len(curve["quality"]) == 6
        assert curve["parameters"][3] == 3.2 and "pixels" in curve["unit"]
        scores = assessor.scorer.score([Image.open(photos[0]), distorted])
        expected = [curve["quality"][0], curve["quality"][4]]
        assert [record.quality for record in scores] == pytest.approx(expected, abs=1e-6)

    def test_another_level_is_not_scored_again(self, assessor, photos, monkeypatch):
        Demo(assessor).distort(photos[1], "brighten", 1)
        monkeypatch.setattr(Scorer, "score", lambda *args, **kwargs: pytest.fail("it was scored again"))
        Demo(assessor).distort(photos[1], "brighten", 2)

    def test_the_page_names_the_level_and_its_quality(self, assessor, photos):
        _, curve = Demo(assessor).distort(photos[0], "jpeg_compression", 2)
        pair, shown = Demo(assessor).show_distortion(photos[0], "jpeg_compression", 2)
        assert f"JPEG compression, level 2: {curve['quality'][2]:.2f}" in shown
        assert pair[0].size == pair[1].size == (300, 200)

    def test_what_the_distortion_cannot_change_is_a_sentence(self, assessor, tmp_path):
        Image.linear_gradient("L").save(tmp_path / "grey.png")
        Image.new("RGB", (20, 300)).save(tmp_path / "thin.png")
        demo = Demo(assessor)
        assert "no colours" in demo.show_distortion(str(tmp_path / "grey.png"), "color_diffusion", 3)[1]
        assert "at least 32 pixels" in demo.show_distortion(str(tmp_path / "thin.png"), "gaussian_blur", 3)[1]


class TestBatch:
    def test_the_csv_is_what_the_command_line_writes(self, assessor, photos, tmp_path):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"broken")
        demo = Demo(assessor)  # the file lasts as long as this
        rows, path = demo.batch([*photos, str(broken)])
        with open(path, newline="") as file:
            written = list(csv.DictReader(file))
        assert list(written[0]) == list(COLUMNS)
        assert [row["path"] for row in written] == [row["file"] for row in rows]
        assert [float(row["quality"]) for row in written[:3]] == [row["quality"] for row in rows[:3]]
        assert (
            written[3]["error"]
            == rows[3]["error"]
            == "not an image, or of a format that is not read; save it as JPEG or PNG"
        )

    def test_the_page_counts_what_was_scored_and_what_not(self, assessor, photos, tmp_path):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"broken")
        demo = Demo(assessor)  # the files last as long as this
        summary, table, _, report = demo.show_batch([*photos, str(broken)])
        assert "3 photographs scored, 1 could not be read" in summary
        assert table["value"]["headers"] == ["photo", "quality", "low", "high", "file", "looks like", "pixels", "note"]
        assert [row[1] is None for row in table["value"]["data"]] == [False, False, False, True]
        assert [row[0].count("data:image/jpeg") for row in table["value"]["data"]] == [1, 1, 1, 0]
        page = Path(report["value"]).read_text(encoding="utf-8")
        assert page.count('"picture":') == 3 and "broken.jpg" in page and report["visible"]
        assert str(tmp_path) not in page and str(Path(photos[0]).parent) not in page
        shown = table["value"]["metadata"]["display_value"]
        assert shown[0][1] == f"{table['value']['data'][0][1]:.2f}" and shown[3][1] == ""
        # Nothing but the small pictures is more than text, or a name could bring markup into the page.
        assert table["datatype"] == ["html", "number", "number", "number", "str", "str", "str", "str"]
        # A long name does not push the scores out of sight.
        assert len(table["column_widths"]) == 8 and sum(table["column_widths"][:5]) < 600

    @pytest.mark.parametrize(("count", "sentence"), [(0, "choose some photographs"), (201, "more than the 200")])
    def test_none_and_too_many_are_a_sentence(self, assessor, photos, count, sentence):
        assert sentence in Demo(assessor).show_batch(photos[:1] * count)[0]


def test_the_server_says_where_the_demo_is(tmp_path, monkeypatch, capsys):
    """In words for people who start it by the command, where Gradio's own name arguments of a function."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which it sets
    launched = {}

    def launch(app, **options):
        launched.update(options)
        app.local_url = "http://127.0.0.1:7860/"

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda app: print("waiting"))
    make_assessor(tmp_path / "tiny")
    serve(tmp_path / "tiny", device="cpu", limits=Limits(max_ratings=0))
    assert launched["quiet"] and launched["share"] is False
    assert capsys.readouterr().out == "The demo is at http://127.0.0.1:7860/ until Ctrl-C ends it.\nwaiting\n"


class TestApi:
    @pytest.fixture(scope="class")
    def endpoints(self, assessor):
        return build_app(assessor).get_api_info()["named_endpoints"]

    def test_every_function_is_there_with_its_parameters_and_a_description(self, endpoints):
        parameters = {
            name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
            for name, endpoint in endpoints.items()
        }
        assert parameters == {
            "/score": ["photo"],
            "/quality_map": ["photo"],
            "/compare": ["left", "right"],
            "/distort": ["photo", "distortion", "level"],
            "/batch": ["files"],
        }
        assert all(len(endpoint["description"]) > 60 for endpoint in endpoints.values())
        # What no function gives is not promised.
        of_maps = [name for name, endpoint in endpoints.items() if re.search(r"\bmap\b", endpoint["description"])]
        assert of_maps == ["/quality_map"]

    def test_all_computing_shares_one_limit(self, assessor):
        app = build_app(assessor, concurrency=3)
        computing = [function for function in app.fns.values() if not function.api_name.startswith("load_example")]
        assert {(function.concurrency_id, function.concurrency_limit) for function in computing} == {("model", 3)}
        assert app._queue.max_size == 128


class TestExamples:
    def test_versions_of_a_photograph_are_labelled_and_paired(self, tmp_path):
        for name in (
            "a.jpg",
            "a_blurred.jpg",
            "a_crushed.jpg",
            "b.jpg",
            "b_blurred.jpg",
            "b_crushed.jpg",
            "at_sea.png",
        ):
            (tmp_path / name).touch()
        examples = find_examples(tmp_path)
        assert [example.title for example in examples] == [
            "a, sharp", "a, blurred", "a, crushed", "at_sea", "b, sharp", "b, blurred", "b, crushed",
        ]  # fmt: skip
        assert [[one.title for one in pair] for pair in pairs_of(examples)] == [
            ["a, sharp", "a, blurred"],
            ["b, sharp", "b, crushed"],
        ]
        assert [example.title for example in originals_of(examples)] == ["a", "at_sea", "b"]
        assert find_examples(None) == [] and pairs_of(examples[3:5]) == [(examples[3], examples[4])]

    def test_a_number_from_a_stranger_leads_to_the_examples_only(self, assessor, photos):
        folder = Path(photos[0]).parent
        app = build_app(assessor, examples=folder)
        [load, *_] = [function.fn for function in app.fns.values() if function.api_name == "load_example"]
        assert Path(load(SimpleNamespace(example=1))).read_bytes() == Path(photos[1]).read_bytes()
        for number in (-1, 3, "0", None, "../secret.png"):
            with pytest.raises(gr.Error, match="There is no such example"):
                load(SimpleNamespace(example=number))

    def test_one_that_cannot_be_read_is_named(self, assessor, tmp_path):
        (tmp_path / "broken.jpg").write_bytes(b"broken")
        with pytest.raises(MetaQAPError, match=r"broken\.jpg cannot be scored: not an image"):
            build_app(assessor, examples=tmp_path)


class TestLinks:
    def test_a_space_leads_to_its_own_code_and_card(self, monkeypatch):
        monkeypatch.delenv("SPACE_ID", raising=False)
        assert page_links(DEFAULT_CHECKPOINT) == {"Paper": PAPER}
        assert page_links("you/yours")["Model card"] == "https://huggingface.co/you/yours"
        monkeypatch.setenv("SPACE_ID", "you/demo")
        links = page_links(DEFAULT_CHECKPOINT)
        assert list(links) == ["Code", "Model card", "Paper"]
        assert links["Code"] == "https://huggingface.co/spaces/you/demo/tree/main"
        card = links["Model card"].removeprefix("https://huggingface.co/spaces/you/demo/blob/main/")
        assert (ROOT / card).is_file()

    def test_an_operator_names_others_and_only_web_addresses(self, monkeypatch):
        monkeypatch.setenv("METAQAP_CODE_URL", "https://example.org/<code>")
        assert 'href="https://example.org/&lt;code&gt;">Code</a>' in figures.header(page_links(DEFAULT_CHECKPOINT))
        monkeypatch.setenv("METAQAP_CARD_URL", "javascript:alert(1)")
        with pytest.raises(MetaQAPError, match="METAQAP_CARD_URL must be a web address"):
            page_links(DEFAULT_CHECKPOINT)


def test_uploads_are_decoded_in_processes_that_may_die(photos, tmp_path, monkeypatch):
    served, decoded = [], []
    monkeypatch.setattr(demo_app, "silence_decoders", lambda: None)  # for the rest of the process
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(gr.Blocks, "launch", lambda *_, **where: served.append(where["server_port"]))
    monkeypatch.setattr(demo_app, "Assessor", lambda scorer, **_: served.append(scorer) or Assessor(scorer))
    make_assessor(tmp_path / "tiny")
    limits = Limits(max_ratings=0, max_pixels=130_000)
    demo_app.serve(tmp_path / "tiny", port=7869, examples=None, limits=limits, device="cpu")
    scorer, port = served
    monkeypatch.setattr(IsolatedDecoder, "read", lambda _, *what: decoded.append(what) or read_as_seen(*what))
    assert (scorer.read(photos[0]).width, port) == (300, 7869)
    assert [(path, seen.max_pixels) for path, seen in decoded] == [(photos[0], 130_000)]
    assert Image.MAX_IMAGE_PIXELS == 65_000


class TestServeCommand:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--checkpoint", "."], "not a MetaQAP checkpoint"),
            (["--examples", "absent"], "holds no photographs"),
            (["--examples", ".", "--no-examples"], "Choose one of --examples and --no-examples."),
            (["--concurrency", "0"], "--concurrency"),
            (["--port", "x"], "--port"),
        ],
    )
    def test_a_mistake_is_one_sentence_and_status_2(self, monkeypatch, capsys, tmp_path, options, message):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["metaqap", "serve", *options])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        error = capsys.readouterr().err
        assert exit_.value.code == 2
        assert message in error and len(error.strip().splitlines()) == 1

    @pytest.mark.parametrize(
        ("options", "sentence", "offered"),
        [
            ([], "Drop a photograph, or choose one of the examples.", ["coffee, sharp", "rocket, blurred"]),
            (["--no-examples"], "Drop a photograph.", []),
        ],
    )
    def test_the_photographs_that_ship_are_offered(self, tmp_path, monkeypatch, capsys, options, sentence, offered):
        pages = []
        monkeypatch.setattr(demo_app, "silence_decoders", lambda: None)  # for the rest of the process
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        monkeypatch.setattr(gr.Blocks, "launch", lambda app, **_: pages.append(str(app.config)))
        monkeypatch.setattr(gr.Blocks, "block_thread", lambda _: None)
        make_assessor(tmp_path / "tiny")
        monkeypatch.setenv("METAQAP_MAX_RATINGS", "0")
        checkpoint = ["--checkpoint", str(tmp_path / "tiny"), "--device", "cpu"]
        monkeypatch.setattr("sys.argv", ["metaqap", "serve", *checkpoint, *options])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        [page] = pages
        assert (exit_.value.code, sentence in page) == (0, True)
        assert [title for title in ("coffee, sharp", "rocket, blurred") if title in page] == offered

    def test_a_missing_gradio_is_one_sentence(self, monkeypatch, capsys):
        for name in [name for name in sys.modules if name.startswith("modeling_metaqap.demo")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "gradio", None)
        monkeypatch.setattr("sys.argv", ["metaqap", "serve"])
        with pytest.raises(SystemExit):
            cli.main()
        error = capsys.readouterr().err
        assert "This needs gradio, which is not installed; install it with `pip install" in error
        assert len(error.splitlines()) == 1


class TestSpaceFiles:
    def pins(self, path):
        lines = (line for line in (ROOT / path).read_text().splitlines() if "==" in line)
        return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}

    def test_the_requirements_are_complete_and_pinned_to_what_was_tested(self):
        import configparser

        settings = configparser.ConfigParser()
        settings.read(ROOT / "setup.cfg")
        needed = settings["options"]["install_requires"] + settings["options.extras_require"]["space"]
        names = {re.split("[<>=]", line)[0].lower() for line in needed.split()}
        tested = self.pins("constraints.txt")
        assert self.pins("space/requirements.txt") == {name: tested[name] for name in names - {"gradio"}}

    def test_the_front_matter_names_the_version_of_gradio_that_was_tested(self):
        yaml = pytest.importorskip("yaml")
        front = yaml.safe_load((ROOT / "space/README.md").read_text().split("---")[1])
        assert front["sdk"] == "gradio"
        assert front["sdk_version"] == self.pins("constraints.txt")["gradio"]
        assert (ROOT / "space" / front["app_file"]).is_file()
        assert front["license"] == "apache-2.0"
        assert len(front["short_description"]) <= 60  # the Hub refuses longer ones
