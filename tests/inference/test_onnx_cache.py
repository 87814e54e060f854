"""ONNX files in the user's cache, and on their way to another machine."""

import logging

import pytest

from modeling_metaqap import MetaQAPConfig
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference import onnx_cache
from modeling_metaqap.inference.choices import ONNX_FILES, Engine
from modeling_metaqap.inference.onnx_cache import PackedEngine, cache_folder, cached_onnx

FILE = ONNX_FILES[Engine.onnx]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Switch to the cache of another machine; its folder."""

    def cache(name):
        monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / name))
        return tmp_path / name

    return cache


def make_folder(folder):
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_bytes(b"model")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_file_that_is_sent_lies_in_the_other_cache_under_the_same_name(tmp_path, cache):
    packed = PackedEngine.of(make_folder(tmp_path / "here" / "0123"))
    there = cache("there")
    unpacked = packed.unpack()
    assert unpacked.name == "0123" and there in unpacked.parents
    assert (unpacked / FILE).read_bytes() == b"model" and (unpacked / "config.json").read_text() == "{}"
    assert [path.name for path in unpacked.parent.iterdir()] == ["0123"]  # nothing half-written beside it
    (unpacked / "config.json").write_text("kept")
    assert packed.unpack() == unpacked and (unpacked / "config.json").read_text() == "kept"


def test_another_process_that_was_faster_is_no_mistake_and_a_cache_that_cannot_be_written_is(tmp_path, monkeypatch):
    made, there = make_folder(tmp_path / "made"), make_folder(tmp_path / "there")
    onnx_cache._put(made, there)
    assert (there / FILE).read_bytes() == b"model"
    with pytest.raises(OSError):
        onnx_cache._put(made, tmp_path / "no such folder" / "there")


@pytest.fixture
def checkpoint(make_model, tmp_path):
    save_checkpoint(make_model("test_resnet"), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_where_none_can_be_made_pytorch_computes_and_the_log_says_why(
    checkpoint, cache, tmp_path, monkeypatch, caplog
):
    config, folder = MetaQAPConfig.from_pretrained(checkpoint), cache("cache")

    def fail(*_, **__):
        raise MetaQAPError("It is too different.")

    monkeypatch.setattr(onnx_cache, "find_spec", lambda _: True)
    monkeypatch.setattr("modeling_metaqap.inference.onnx_export.export_onnx", fail)
    with caplog.at_level(logging.WARNING):
        assert cached_onnx(checkpoint, config) is None
    assert "so PyTorch computes: It is too different." in caplog.text
    assert list((folder / "engines").iterdir()) == []
    assert cached_onnx(checkpoint, config, make=False) is None
    (tmp_path / "empty").mkdir()
    assert cache_folder(tmp_path / "empty", config, None) is None


def test_a_package_that_is_not_there_has_no_version():
    assert onnx_cache._version("no-such-package-here") is None and onnx_cache._version("torch")
