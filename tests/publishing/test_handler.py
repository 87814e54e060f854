"""`handler.py` as an Inference Endpoint calls it: with the checkpoint's folder, and asked with JSON."""

import base64
import importlib.util
import json
import re
import shutil

import pytest
from PIL import Image
from repository import ROOT

from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.pipeline_metaqap import FIELDS
from modeling_metaqap.publishing import handler as source

PHOTO = ROOT / "space" / "examples" / "coffee_crushed.jpg"


@pytest.fixture(scope="module")
def folder(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint") / "repository"
    save_checkpoint(make_model("test_resnet", interval_radius=0.2), folder)
    shutil.copy(source.__file__, folder / "handler.py")
    return folder


@pytest.fixture(scope="module")
def endpoint(folder):
    return source.EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def quality(folder):
    [record] = Scorer(folder, device="cpu").score([PHOTO])
    return record.quality


def test_a_photograph_in_any_form_gets_the_same_score_and_the_answer_is_json(endpoint, quality):
    data = PHOTO.read_bytes()
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    for one in (text, wrapped, f"data:image/jpeg;base64,{text}", data, Image.open(PHOTO)):
        answer = json.loads(json.dumps(endpoint({"inputs": one})))
        assert answer["quality"] == pytest.approx(quality, abs=1e-5)
        assert answer["quality_high"] - answer["quality_low"] == pytest.approx(0.4, abs=1e-4)
    several = endpoint({"inputs": [text, data], "parameters": {"batch_size": 2}})
    assert [answer["quality"] for answer in several] == pytest.approx([quality] * 2, abs=1e-5)


def test_the_description_names_each_field_of_the_answer():
    returned = source.EndpointHandler.__call__.__doc__.split("Returns:")[1].split("Raises:")[0]
    assert tuple(re.findall(r"`(\w+)`", returned)) == FIELDS


def test_an_endpoint_loads_the_file_that_lies_in_the_folder(folder, quality):
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer = module.EndpointHandler(str(folder))({"inputs": PHOTO.read_bytes()})
    assert answer["quality"] == pytest.approx(quality, abs=1e-5)


def test_a_large_jpeg_scores_as_its_file_does(endpoint, folder, tmp_path):
    Image.open(PHOTO).resize((2080, 2048)).save(tmp_path / "large.jpg")
    [record] = Scorer(folder, device="cpu").score([tmp_path / "large.jpg"])
    answer = endpoint({"inputs": (tmp_path / "large.jpg").read_bytes()})
    assert answer["quality"] == pytest.approx(record.quality, abs=1e-5)
    assert (answer["width"], answer["height"]) == (2080, 2048)


def test_what_cannot_be_scored_is_one_sentence(endpoint, monkeypatch):
    text = base64.b64encode(PHOTO.read_bytes()).decode()
    requests = [
        ({}, 'The request needs "inputs"'),
        ({"inputs": []}, '"inputs" is an empty list'),
        ({"inputs": 5}, "The photograph is int; send base64 text"),
        ({"inputs": str(PHOTO)}, "The photograph is text that is not base64.*Paths and web addresses are not read"),
        ({"inputs": "https://example.org/a.jpg"}, "Paths and web addresses are not read"),
        ({"inputs": [text, base64.b64encode(b"no image").decode()]}, "Photograph 2 cannot be scored: not an image.*"),
        ({"inputs": b""}, "The photograph cannot be scored: "),
        ({"inputs": text, "parameters": {"fetch": True}}, "may have batch_size only, not 'fetch'"),
        ({"inputs": text, "parameters": {"batch_size": 0}}, "must be a whole number from 1 to 64, not 0"),
        ({"inputs": text, "parameters": [1]}, "may have batch_size only"),
    ]
    for request, message in requests:
        with pytest.raises(ValueError, match=message) as raised:
            endpoint(request)
        assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    monkeypatch.setitem(type(endpoint)._read.__globals__, "MAX_PIXELS", 1000)
    with pytest.raises(
        ValueError, match="The photograph cannot be scored: it has more pixels than the limit of 1,000"
    ):
        endpoint({"inputs": text})
