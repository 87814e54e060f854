"""scripts/benchmark.py: a table and a JSON of speeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from script_loader import load_script

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.data.distorted.pseudo_mos import METRICS
from modeling_metaqap.data.distortions import DISTORTION_NAMES
from modeling_metaqap.evaluation import benchmark
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.lineage import weights_sha256

program = load_script("benchmark")


def test_every_distortion_is_measured_and_other_sections_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "benchmark.json"
    output.write_text(json.dumps({"training": {"images_per_second": 40}, "distortions": "old"}))
    options = ["--sections", "distortions", "--side", "32", "--count", "1", "--seconds", "0", "--output", str(output)]
    program.main(options)
    result = json.loads(output.read_text())
    assert result["training"] == {"images_per_second": 40}
    section = result["distortions"]
    rates = section["images_per_second"]
    assert list(rates) == list(DISTORTION_NAMES) and all(rate > 0 for rate in rates.values())
    assert section["side"] == 32 and section["machine"]["cpu"]
    assert rates[section["slowest"]] == min(rates.values())
    ratio = np.median(list(rates.values())) / min(rates.values())
    assert section["slowest_over_median"] == pytest.approx(ratio, rel=0.05)
    printed = capsys.readouterr().out
    assert all(name in printed for name in DISTORTION_NAMES)


def test_pseudo_mos_is_measured_by_metric_and_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "METRIC_SIDES", (164,))
    output = tmp_path / "folder" / "benchmark.json"
    options = ["--sections", "pseudo_mos", "--side", "164", "--count", "1", "--seconds", "0", "--output", str(output)]
    program.main(options)
    row = json.loads(output.read_text())["pseudo_mos"]["sides"]["164"]
    assert set(row["milliseconds"]) == set(METRICS)
    assert row["full_images_per_second"] == pytest.approx(1e3 / sum(row["milliseconds"].values()), rel=0.02)
    assert row["fast_images_per_second"] > row["full_images_per_second"]


@pytest.mark.slow
def test_a_training_step_is_measured_beside_a_bare_loop(tmp_path: Path) -> None:
    output = tmp_path / "benchmark.json"
    options = ["--sections", "training", "--side", "64", "--count", "2", "--seconds", "0", "--output", str(output)]
    program.main([*options, "--backbone", "test_resnet"])
    section = json.loads(output.read_text())["training"]
    assert section["backbone"] == "test_resnet" and section["turns"] >= 1
    rates = section["images_per_second"]
    assert set(rates) == {"timm", "metaqap"} and min(rates.values()) > 0
    assert section["over_timm"] == pytest.approx(rates["metaqap"] / rates["timm"], rel=0.05)


def test_a_backbone_that_cannot_be_trained_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sections", "training", "--backbone", "resnet_fifty", "--output", str(tmp_path / "benchmark.json")]
    with pytest.raises(SystemExit, match="2"):
        program.main(options)
    assert "resnet_fifty" in capsys.readouterr().err


@pytest.mark.slow
def test_engines_are_measured_in_turns_beside_pytorch(make_model, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    model = make_model("test_resnet", distortion_labels=[])
    save_checkpoint(model, tmp_path / "tiny")
    MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64).save_pretrained(tmp_path / "tiny")
    output = tmp_path / "cost.json"
    options = ["--sections", "inference", "--side", "64", "--count", "2", "--seconds", "0", "--output", str(output)]
    program.main([*options, "--checkpoint", str(tmp_path / "tiny")])
    section = json.loads(output.read_text())["inference"]
    assert list(section["engines"]) == ["torch", "torch-bfloat16", "onnx", "onnx-int8"]
    assert section["engines"]["torch"]["over_torch"] == 1
    assert all(row["crops_per_second"] > 0 for row in section["engines"].values())
    assert section["weights_sha256"] == weights_sha256(tmp_path / "tiny")
    assert section["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    # Counted by hand from the shapes that the convolutions and linear layers see.
    macs = []

    def count(module, inputs, result):
        kernel = module.weight[0].numel()
        macs.append(result.numel() * kernel)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 64, 64))
    assert section["macs"] == sum(macs)
    assert section["peak_memory_megabytes"] > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "nowhere"], "no directory nowhere"),
        (["--count", "0"], "At least one"),
        (["--side", "8"], "32 pixels"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main([*options, "--output", str(tmp_path / "out.json")])
    assert message in capsys.readouterr().err
