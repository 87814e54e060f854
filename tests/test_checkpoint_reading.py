"""Checkpoints as their makers save them, and as somebody makes them who means harm."""

import json
import pickle
import re
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPConfig, MetaQAPImageProcessor, MetaQAPModel, checkpoint_reading
from modeling_metaqap.checkpoint_reading import read_config, read_crop_settings, read_image_processor, read_model
from modeling_metaqap.cli.app import main
from modeling_metaqap.errors import MetaQAPError

KERNEL_LEARNER = {"backbone": "test_resnet", "kernel_head": {"num_components": 6, "num_centers": 9}}


@pytest.fixture
def checkpoint(tmp_path):
    """A sound checkpoint, to be spoilt."""
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint"
    MetaQAPModel(MetaQAPConfig(base_learners=[KERNEL_LEARNER], interval_radius=0.2)).save_pretrained(folder)
    MetaQAPImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def change(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def change_learner(checkpoint: Path, **entries: object) -> None:
    [learner] = json.loads((checkpoint / "config.json").read_text())["base_learners"]
    change(checkpoint / "config.json", base_learners=[learner | entries])


def change_weights(checkpoint: Path, **tensors: torch.Tensor) -> None:
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# One of them has blur filters, which no file holds.
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "mobilenetv2_050", "resnetblur18"])
def test_a_model_is_the_one_that_transformers_loads(backbone, dtype, tmp_path):
    torch.manual_seed(0)
    MetaQAPModel(MetaQAPConfig(base_learners=[backbone, KERNEL_LEARNER])).save_pretrained(tmp_path)
    ours, theirs = read_model(tmp_path, dtype=dtype), MetaQAPModel.from_pretrained(tmp_path, dtype=dtype)
    tensors = dict(theirs.named_buffers()) | theirs.state_dict()
    assert (dict(ours.named_buffers()) | ours.state_dict()).keys() == tensors.keys()
    for name, tensor in (dict(ours.named_buffers()) | ours.state_dict()).items():
        assert torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype, name
    assert not ours.training and ours.dtype == dtype == ours.config.dtype
    assert ours.config.base_learners == theirs.config.base_learners and ours.name_or_path == str(tmp_path)
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]


def test_a_model_does_not_depend_on_its_file_any_more(checkpoint):
    model = read_model(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.write(bytes((checkpoint / "model.safetensors").stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_shipped_checkpoint_is_read(no_network):
    assert read_model(DEFAULT_CHECKPOINT).config.num_base_learners == 4
    assert read_image_processor(DEFAULT_CHECKPOINT).crop_size == {"height": 512, "width": 512}


@pytest.mark.parametrize(
    "backbone", ["hf-hub:evil/model", "local-dir:/etc", "hf_hub:evil/model", "evil/model", "../x", ""]
)
def test_a_backbone_from_elsewhere_is_refused_before_anything_is_asked(backbone, checkpoint, no_network):
    change_learner(checkpoint, backbone=backbone)
    with pytest.raises(MetaQAPError, match="is no name in timm's registry"):
        read_model(checkpoint)
    with pytest.raises(ValueError, match="is no name in timm's registry"):
        MetaQAPModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("backbone", ["resnet_of_mine", "vit_base_patch16_224", "resnet18d"])
def test_a_backbone_that_does_not_fit_is_one_sentence(backbone, checkpoint):
    change_learner(checkpoint, backbone=backbone)
    with pytest.raises(MetaQAPError, match=r"config\.json of .* cannot be used|do not fit its configuration"):
        read_model(checkpoint)


def test_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path):
    marker = tmp_path / "code was run"
    code = f"open({str(marker)!r}, 'w')\nclass Evil: pass\n"
    classes = ("AutoConfig", "AutoModel", "AutoImageProcessor")
    for name in ("configuration_metaqap", "modeling_metaqap", "image_processing_metaqap", "evil"):
        (checkpoint / f"{name}.py").write_text(code)
    for file in ("config.json", "preprocessor_config.json"):
        change(checkpoint / file, auto_map=dict.fromkeys(classes, "evil.Evil"))
    read_model(checkpoint)
    read_image_processor(checkpoint)
    change(checkpoint / "config.json", model_type="evil")
    with pytest.raises(MetaQAPError, match="is a evil model, not a MetaQAP checkpoint"):
        read_model(checkpoint)
    assert not marker.exists()


def test_pickled_weights_are_not_read(checkpoint, tmp_path):
    marker = tmp_path / "code was run"

    class Payload:
        def __reduce__(self):
            return open, (str(marker), "w")

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(MetaQAPError, match="not a MetaQAP checkpoint"):
        read_model(checkpoint)
    torch.save(load_file(DEFAULT_CHECKPOINT / "model.safetensors"), checkpoint / "pytorch_model.bin")
    with pytest.raises(OSError, match="model.safetensors"):
        MetaQAPModel.from_pretrained(checkpoint)
    assert not marker.exists()


def test_the_command_neither_runs_code_nor_asks(checkpoint, tmp_path, no_network, monkeypatch, capsys):
    marker = tmp_path / "code was run"
    (checkpoint / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    change(checkpoint / "config.json", auto_map={"AutoConfig": "evil.Evil"}, model_type="evil")
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")
    monkeypatch.setattr(sys, "argv", ["metaqap", "info", "--checkpoint", str(checkpoint)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2 and not marker.exists()
    assert capsys.readouterr().err.startswith("metaqap: ")


def test_a_name_with_the_marks_of_a_layout_is_shown_as_it_is(checkpoint, monkeypatch, capsys):
    change_learner(checkpoint, name="[/red] [bold]x")
    monkeypatch.setattr(sys, "argv", ["metaqap", "info", "--checkpoint", str(checkpoint)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0 and "[/red] [bold]x" in capsys.readouterr().out


def test_settings_of_other_libraries_are_not_obeyed(checkpoint, no_network):
    change(
        checkpoint / "config.json",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
        attn_implementation="evil/kernel",
        transformers_weights="../elsewhere.safetensors",
        return_dict=False,
        dtype="float16",
        something_new=1,
    )
    model = read_model(checkpoint)
    assert model.dtype == torch.float32 and model.config.return_dict
    assert not hasattr(model.config, "quantization_config") and not hasattr(model.config, "something_new")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"mos_range": [5, 1]}, "`mos_range` must be the lowest and the highest rating"),
        ({"interval_radius": "abc"}, "`interval_radius` must be a number"),
        ({"interval_radius": float("nan")}, "`interval_radius` must be a number"),
        ({"interval_radius": float("inf")}, "`interval_radius` must be a number"),
        ({"interval_coverage": "0.9"}, "`interval_coverage` must be a number"),
        ({"loss_mse_weight": -1}, "`loss_mse_weight` must be a number"),
        ({"loss_srocc_weight": None}, "`loss_srocc_weight` must be a number"),
        ({"base_learners": ["test_resnet"] * 1_000}, "64 base learners at most"),
        ({"distortion_labels": "blur"}, "must list different names"),
        ({"distortion_labels": ["\x1b[2Jblur"]}, "must list different names"),
        ({"distortion_labels": ["blur", "blur"]}, "must list different names"),
        ({"distortion_labels": [str(i) for i in range(2_000)]}, "must list different names"),
        ({"lineage": [{"kind": "\x1b[2J"}]}, "cannot be printed"),
        ({"lineage": [{"kind": "fusion", "distorted": {"dataset": "\x07"}}]}, "cannot be printed"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(entries, message, checkpoint):
    change(checkpoint / "config.json", **entries)
    with pytest.raises(MetaQAPError, match=rf"config\.json of .* cannot be used: .*{message}") as refusal:
        read_config(checkpoint)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"image_mean": [0.5, 0.5, "x"]}, "three numbers"),
        ({"image_mean": 0.5}, "three numbers"),
        ({"image_std": [1, 1, float("inf")]}, "three numbers"),
        ({"stages": ["a"]}, "different stages"),
        ({"stages": [[0]]}, "different stages"),
        ({"name": "\x1b]0;evil\x07"}, "`name` of a base learner must be text"),
        ({"name": 5}, "`name` of a base learner must be text"),
        ({"distortion_head": "yes"}, "`distortion_head` must be true or false"),
        ({"kernel_head": {"num_components": 10**7, "num_centers": 10**6}}, "`kernel_head` must be None or have"),
    ],
)
def test_an_option_of_a_learner_that_cannot_be_is_one_sentence(entries, message, checkpoint):
    change_learner(checkpoint, **entries)
    with pytest.raises(MetaQAPError, match=rf"config\.json of .* cannot be used: .*{message}"):
        read_config(checkpoint)


def test_a_model_larger_than_its_weights_is_refused_before_it_takes_memory(checkpoint):
    # 10,000 components at 1,000,000 centres: 40 GB.
    change_learner(checkpoint, kernel_head={"num_components": 10_000, "num_centers": 1_000_000})
    with pytest.raises(MetaQAPError, match="components has the shape .* instead of .*10000"):
        read_model(checkpoint)


def test_weights_that_do_not_fit_are_one_sentence(checkpoint):
    change_weights(checkpoint, **{"meta_learner.weight": torch.ones(3)})
    with pytest.raises(MetaQAPError, match=r"do not fit .* meta_learner.weight has the shape \[3\] instead of \[1\]"):
        read_model(checkpoint)
    change_weights(checkpoint, **{"meta_learner.weight": torch.ones(1), "another.head": torch.ones(1)})
    with pytest.raises(MetaQAPError, match="nothing in the configuration asks for another.head"):
        read_model(checkpoint)


def test_missing_weights_are_one_sentence(checkpoint):
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    del tensors["meta_learner.intercept"]
    save_file(tensors, file)
    with pytest.raises(MetaQAPError, match="do not fit its configuration: meta_learner.intercept is missing"):
        read_model(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, checkpoint):
    change_weights(checkpoint, **{"base_learners.0.quality_head.bias": torch.tensor([value])})
    with pytest.raises(MetaQAPError, match="quality_head.bias has values that are not finite"):
        read_model(checkpoint)


@pytest.mark.parametrize("size", [0, 7, 1_000, -100])
def test_truncated_weights_are_one_sentence(size, checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(MetaQAPError, match="The weights of .* cannot be read"):
        read_model(checkpoint)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff", "null"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_damaged_file_of_settings_is_one_sentence(text, name, checkpoint):
    (checkpoint / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(MetaQAPError, match=f"{name} of .* is not"):
        read_model(checkpoint)
        read_image_processor(checkpoint)


@pytest.mark.parametrize(
    "entries",
    [
        {"crop_size": 0},
        {"crop_size": -5},
        {"crop_size": 10**9},
        {"crop_size": {"height": 512.5, "width": 512.5}},
        {"crop_size": "large"},
        {"size": {"shortest_edge": 0}},
        {"size": {"shortest_edge": "abc"}},
        {"size": {"longest_edge": 512}},
        {"resample": 99},
        {"do_resize": "no"},
    ],
)
def test_settings_of_the_image_processor_that_cannot_be_are_one_sentence(entries, checkpoint):
    change(checkpoint / "preprocessor_config.json", **entries)
    for read in (read_image_processor, read_crop_settings):
        with pytest.raises(MetaQAPError, match=r"preprocessor_config\.json of .* cannot be used: "):
            read(checkpoint)


@pytest.mark.parametrize(
    ("entries", "is_plain"),
    [
        ({}, True),
        ({"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}, "resample": 2}, True),
        ({"do_resize": False}, True),
        ({"size": 48, "crop_size": 32}, False),
        ({"crop_size": {"height": 8193, "width": 8193}}, False),
        ({"crop_size": {"height": True, "width": True}}, False),
        ({"crop_size": {"height": 32, "width": 48}}, False),
        ({"size": {"shortest_edge": 48, "longest_edge": 64}}, False),
        ({"resample": True}, False),
        ({"do_resize": 1}, False),
    ],
)
def test_settings_of_crops_are_those_of_the_image_processor(entries, is_plain, checkpoint, monkeypatch):
    change(checkpoint / "preprocessor_config.json", **entries)
    asked, read = [], checkpoint_reading.read_image_processor
    monkeypatch.setattr(checkpoint_reading, "read_image_processor", lambda path: asked.append(path) or read(path))
    try:
        processor = read(checkpoint)
    except MetaQAPError as error:
        with pytest.raises(MetaQAPError, match=re.escape(str(error))):
            read_crop_settings(checkpoint)
    else:
        found = read_crop_settings(checkpoint)
        side = processor.crop_size["height"]
        assert (found.shortest_edge, found.crop_size, found.resample) == (
            processor.seen_edge,
            side,
            processor.resample,
        )
    assert (not asked) == is_plain
