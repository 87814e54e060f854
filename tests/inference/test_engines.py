"""Engines: crops in several threads, and which one is taken by itself."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from start_up import imported_packages

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.checkpoint_reading import read_config
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference import engines, torch_engine
from modeling_metaqap.inference.engines import load_engine
from modeling_metaqap.inference.fastest import Choice
from modeling_metaqap.inference.onnx_cache import cache_folder
from modeling_metaqap.inference.onnx_engine import OnnxEngine
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.inference.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    subsets = [{"learners": [1], "weights": [0.9], "intercept": 0.0, "interval_radius": 0.2}]
    save_checkpoint(make_model("test_resnet", "test_resnet", interval_radius=0.1, learner_subsets=subsets), folder)
    MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)
    return folder


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 256, (7, 3, 64, 64), dtype=np.uint8)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_crops_in_threads_score_as_one_by_one_and_torch_keeps_its_threads(checkpoint, crops, two_threads):
    engine = TorchEngine(checkpoint, device="cpu")
    together = engine(crops)
    for index, crop in enumerate(crops):
        alone = engine(crop[None])
        for name, values in together.items():
            torch.testing.assert_close(values[index : index + 1], alone[name], atol=1e-6, rtol=1e-5)
    assert torch.get_num_threads() == 2


def test_a_crop_scores_the_same_to_the_last_bit_in_any_batch(checkpoint, crops, two_threads):
    engine = TorchEngine(checkpoint, device="cpu")
    for name, values in engine(crops).items():
        assert torch.equal(values.flip(0), engine(crops[::-1].copy())[name])
        assert torch.equal(values[:3], engine(crops[:3])[name])


def test_folding_waits_until_it_pays_and_changes_no_score(checkpoint, crops, monkeypatch):
    folded, fold = [], torch_engine.fold_for_inference
    monkeypatch.setattr(torch_engine, "fold_for_inference", lambda model: folded.append(1) or fold(model))
    few = load_engine(checkpoint, device="cpu", num_images=engines.WORTH_FOLDING - 1)
    assert folded == []
    for num_images in (None, engines.WORTH_FOLDING):
        many = load_engine(checkpoint, device="cpu", num_images=num_images)
        assert len(folded) == (1 if num_images is None else 2)
        for name, values in many(crops).items():
            torch.testing.assert_close(few(crops)[name], values, atol=1e-5, rtol=1e-4)


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestAuto:
    """The engine that is chosen when none is named."""

    @pytest.fixture(scope="class")
    def cache_of_all(self, tmp_path_factory):
        # One for all, since an export takes many seconds.
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(autouse=True)
    def cache(self, cache_of_all, monkeypatch):
        monkeypatch.setenv("METAQAP_CACHE", str(cache_of_all))
        return cache_of_all

    @pytest.fixture
    def photo(self, crops, tmp_path):
        Image.fromarray(crops[0].transpose(1, 2, 0)).save(tmp_path / "photo.png")
        return tmp_path / "photo.png"

    def test_few_images_are_not_worth_an_export(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / "cache"))
        assert isinstance(Scorer(checkpoint, engine="auto", device="cpu", num_images=3).engine, TorchEngine)
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize("learners", [None, 1])
    def test_a_file_is_made_once_and_agrees_with_pytorch(self, checkpoint, photo, learners, monkeypatch):
        pytest.importorskip("onnxscript", reason="needs the onnx extra")
        expected = next(Scorer(checkpoint, device="cpu", learners=learners).score([photo]))
        options = {"engine": "auto", "device": "cpu", "learners": learners}
        made = Scorer(checkpoint, num_images=10_000, **options)
        monkeypatch.setattr("modeling_metaqap.inference.onnx_export.export_onnx", None)
        again = Scorer(checkpoint, num_images=1, **options)
        for scorer in (made, again):
            assert isinstance(scorer.engine, OnnxEngine)
            record = next(scorer.score([photo]))
            assert record.quality == pytest.approx(expected.quality, abs=1e-4)
            assert record.base_scores == pytest.approx(expected.base_scores, abs=1e-4)
            assert record.quality_high == pytest.approx(expected.quality_high, abs=1e-4)

    def test_a_score_by_onnx_runtime_imports_no_code_of_models(self, checkpoint, photo):
        pytest.importorskip("onnxscript", reason="needs the onnx extra")
        Scorer(checkpoint, engine="auto", device="cpu")  # makes the file
        command = ("score", photo, "--checkpoint", checkpoint, "--device", "cpu", "--json")
        for engine, heavy in (("auto", set()), ("torch", {"timm", "torchvision"})):
            process, packages = imported_packages("-m", "modeling_metaqap", *map(str, command), "--engine", engine)
            assert process.returncode == 0 and json.loads(process.stdout)["quality"] is not None
            assert "torch" in packages
            assert packages & {"timm", "torchvision"} == heavy

    @pytest.mark.parametrize("changed", ["config.json", "preprocessor_config.json", "model.safetensors"])
    def test_other_weights_or_settings_have_a_file_of_their_own(self, checkpoint, tmp_path, changed):
        other = shutil.copytree(checkpoint, tmp_path / "other")
        folders = [cache_folder(folder, read_config(folder), None) for folder in (checkpoint, other)]
        assert folders[0] == folders[1]
        if changed == "config.json":
            edit_json(other / changed, interval_radius=0.4)
        elif changed == "preprocessor_config.json":
            edit_json(other / changed, crop_size=32)
        else:
            tensors = load_file(other / changed)
            save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / changed)
        assert cache_folder(other, read_config(other), None) != folders[0]

    def test_a_file_that_differs_is_not_taken_and_the_log_says_so(self, checkpoint, tmp_path, monkeypatch, caplog):
        pytest.importorskip("onnxscript", reason="needs the onnx extra")

        def differs(*arguments, **options):
            raise MetaQAPError("The exported file differs from PyTorch by 0.1.")

        monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("modeling_metaqap.inference.onnx_export.export_onnx", differs)
        assert isinstance(Scorer(checkpoint, engine="auto", device="cpu").engine, TorchEngine)
        assert "differs from PyTorch" in caplog.text

    def test_the_fastest_is_one_that_stays_close_and_is_chosen_once(self, checkpoint, photo, monkeypatch):
        expected = next(Scorer(checkpoint, device="cpu").score([photo]))
        fast = Scorer(checkpoint, device="cpu", fast=True)
        assert fast.choice.largest <= 0.01 and fast.choice.n == 12
        assert "within" in str(fast.choice) and "12 photographs" in str(fast.choice)
        assert next(fast.score([photo])).quality == pytest.approx(expected.quality, abs=0.01)
        monkeypatch.setattr("modeling_metaqap.inference.fastest._measure", None)
        assert Scorer(checkpoint, device="cpu", fast=True).choice == fast.choice

    def test_one_that_is_faster_but_not_close_is_not_taken(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / "cache"))
        measured = [
            Choice("torch", "float32", 1.0, 0.0, 8),
            Choice("torch", "float16", 9.0, 0.02, 8),
            Choice("torch", "bfloat16", 3.0, 0.005, 8),
        ]
        monkeypatch.setattr("modeling_metaqap.inference.fastest._measure", lambda *_: measured)
        scorer = Scorer(checkpoint, device="cpu", fast=True)
        assert scorer.choice == measured[2]
        assert scorer.model.dtype == torch.bfloat16

    def test_without_onnxruntime_it_is_pytorch(self, checkpoint, monkeypatch):
        monkeypatch.setattr("modeling_metaqap.inference.onnx_cache.find_spec", lambda name: None)
        assert isinstance(Scorer(checkpoint, engine="auto", device="cpu").engine, TorchEngine)


def test_the_format_of_auto_is_bfloat16_only_where_that_is_faster(checkpoint, monkeypatch):
    for has, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch_engine, "is_faster_in_bfloat16", lambda device, has=has: has)
        assert TorchEngine(checkpoint, device="cpu", dtype="auto").model.dtype == dtype
