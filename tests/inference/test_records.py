"""One record: what `Scorer`, `metaqap score`, the pipeline and the demo's API say of a photograph is the same."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from wide_intervals import WIDE_INTERVALS

from modeling_metaqap import MetaQAPImageProcessor, Scorer
from modeling_metaqap.cli import app
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.record_files import COLUMNS, open_records
from modeling_metaqap.inference.records import NOT_VALUES, as_json
from modeling_metaqap.pipeline_metaqap import FIELDS


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    """Two learners of one name, calibrated, with few distortions."""
    folder = tmp_path_factory.mktemp("one") / "checkpoint"
    model = make_model(
        "test_resnet", "test_resnet", interval_coverage=0.75, distortion_labels=["blur", "noise"], **WIDE_INTERVALS
    )
    save_checkpoint(model, folder)
    return folder


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """The first of two frames, of two crops, half transparent: all that a path could get wrong."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (30, 700, 4), dtype=np.uint8)) for _ in range(2)]
    path = tmp_path_factory.mktemp("photographs") / "two frames.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.fixture
def metaqap(monkeypatch, capsysbinary):
    """Run a command of `metaqap` that succeeds; its standard output."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["metaqap", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 0
        return capsysbinary.readouterr().out

    return run


def test_each_way_gives_the_same_fields_with_the_same_values(checkpoint, photograph, metaqap, tmp_path):
    [record] = Scorer(checkpoint, device="cpu").score([photograph], quality_map=True)
    expected = {name: value for name, value in asdict(record).items() if name not in NOT_VALUES}
    assert tuple(expected) == FIELDS
    # Not one of them is left to chance.
    assert [name for name, value in expected.items() if value is None] == ["error"]
    assert expected["warning"] == (
        "700 x 30 pixels are too few to judge; only the first of several frames or pages was judged"
    )
    assert len(expected["base_scores"]) == len(expected["distortion_probabilities"]) == 2
    found = {"Python": as_json(record)}
    scored = ("score", photograph, "--checkpoint", checkpoint, "--engine", "torch")
    found["metaqap score --json"] = json.loads(metaqap(*scored, "--json"))
    metaqap(*scored, "--output", tmp_path / "scores.jsonl")
    found["a file of JSON Lines"] = json.loads((tmp_path / "scores.jsonl").read_text())
    assess = pipeline("image-quality-assessment", model=str(checkpoint))
    found["the pipeline"] = assess(str(photograph))
    found["the pipeline, in a batch"] = assess([str(photograph)] * 2, batch_size=3)[1]
    for way, fields in found.items():
        assert tuple(fields) == FIELDS, way
        for name, value in expected.items():
            is_number = isinstance(value, (float, list))
            assert fields[name] == (pytest.approx(value, abs=1e-5) if is_number else value), (way, name)
    # Files of rows hold what is a single value.
    assert set(COLUMNS) == {name for name, value in expected.items() if not isinstance(value, list)}


def test_the_api_of_the_demo_gives_them_too(checkpoint, photograph):
    pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")
    from modeling_metaqap.demo.app import Demo
    from modeling_metaqap.demo.assessment import Assessor

    scorer = Scorer(checkpoint, device="cpu")
    [record] = scorer.score([photograph])
    demo = Demo(Assessor(scorer))
    alone, compared = demo.score(str(photograph)), demo.compare(str(photograph), str(photograph))["right"]
    [in_a_batch], _ = demo.batch([str(photograph)], SimpleNamespace(tqdm=lambda records, **_: records))
    # A client of Gradio takes every object with a `path` for a file, and tries to fetch it.
    expected = {"file": photograph.name} | {name: value for name, value in as_json(record).items() if name != "path"}
    assert tuple(alone) == ("file", *FIELDS[1:])
    for found in (alone, compared, in_a_batch):
        assert found == {
            name: pytest.approx(value, abs=1e-6) if isinstance(value, (float, list)) else value
            for name, value in expected.items()
        }


@pytest.mark.parametrize("kind", ["image", "array", "tensor"])
def test_an_image_without_a_name_has_an_empty_path_and_the_same_size(checkpoint, photograph, kind):
    with Image.open(photograph) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    image = {"image": Image.fromarray, "array": lambda a: a, "tensor": lambda a: torch.tensor(a).permute(2, 0, 1)}
    found = pipeline("image-quality-assessment", model=str(checkpoint))(image[kind](pixels))
    assert (found["path"], found["width"], found["height"]) == ("", 700, 30)
    assert found["warning"] == "700 x 30 pixels are too few to judge"


def test_a_score_that_is_no_number_is_an_error_in_each_way(make_model, photograph, tmp_path):
    model = make_model("test_resnet", interval_radius=0.1)
    assess = pipeline("image-quality-assessment", model=model, image_processor=MetaQAPImageProcessor())
    with torch.no_grad():
        model.base_learners[0].feature_mean.fill_(torch.nan)
    found = assess(str(photograph))
    assert found["error"] == "the model gave it no finite score" and found["width"] == 700
    assert [found[name] for name in ("quality", "quality_low", "interval_coverage", "base_scores")] == [None] * 4


def test_records_of_json_lines_come_back_with_their_lists(checkpoint, photograph, tmp_path):
    [record] = Scorer(checkpoint, device="cpu").score([photograph])
    with open_records(tmp_path / "scores.jsonl", run={}) as file:
        file.write(record)
    with open_records(tmp_path / "scores.jsonl", run={}, resume=True) as file:
        assert list(file.records()) == [record]
