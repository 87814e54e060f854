"""What transformers' own common model tests require of a model, for one base learner and for an ensemble."""

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_metaqap import MetaQAPConfig, MetaQAPModel, MetaQAPOutput
from modeling_metaqap.training.learner import freeze_stages

# Of a kernel head.
SIZES = {"num_components": 2, "num_centers": 3}
ARCHITECTURES = [["test_resnet"], ["test_efficientnet", "test_resnet"]]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids="+".join)
def model(request, make_model):
    return make_model(*request.param, interval_radius=0.1)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.rand(2, 3, 3, 64, 48, generator=generator),
        "crop_weights": torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]),
    }


def run(model, inputs, **options):
    with torch.no_grad():
        return model(**inputs, **options)


def assert_same_outputs(first: MetaQAPOutput, second: MetaQAPOutput, **tolerance) -> None:
    assert list(first) == list(second)
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_saved_model_loads_with_the_same_weights_and_outputs(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".safetensors")] == [
        "model.safetensors"
    ]
    loaded, report = MetaQAPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert not loaded.training
    state, loaded_state = model.state_dict(), loaded.state_dict()
    assert list(state) == list(loaded_state)
    assert all(torch.equal(state[name], loaded_state[name]) for name in state)
    options = {"output_quality_map": True, "output_hidden_states": True, "labels": torch.tensor([0.2, 0.9])}
    # Equal weights at another place in memory: only the order of summation may differ.
    assert_same_outputs(run(model, inputs, **options), run(loaded, inputs, **options), rtol=1e-6, atol=1e-6)


def test_every_value_that_a_score_needs_is_saved_even_where_timm_does_not_save_it(make_model, tmp_path):
    # timm's anti-aliased networks keep their blur filters in buffers that no checkpoint holds.
    model = make_model({"backbone": "resnetblur18", "stages": [0, 1, 2]})
    assert any(name.endswith("filt") and name not in model.state_dict() for name, _ in model.named_buffers())
    model.save_pretrained(tmp_path)
    x = {"pixel_values": torch.rand(1, 3, 64, 64)}
    torch.testing.assert_close(run(MetaQAPModel.from_pretrained(tmp_path), x).logits, run(model, x).logits)


def test_the_configuration_survives_saving(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path).config
    assert loaded.to_dict() | {"_name_or_path": ""} == model.config.to_dict()


def test_the_output_is_deterministic(model, inputs):
    options = {"output_quality_map": True, "output_hidden_states": True}
    assert_same_outputs(run(model, inputs, **options), run(model, inputs, **options), rtol=0, atol=0)


@pytest.mark.parametrize(
    "extra", [{}, {"output_quality_map": True, "output_hidden_states": True}], ids=["plain", "all"]
)
def test_a_tuple_holds_the_same_as_the_output_object(model, inputs, extra):
    extra = extra | {"labels": torch.tensor([0.2, 0.9])}
    as_object = run(model, inputs, **extra)
    as_tuple = run(model, inputs, return_dict=False, **extra)
    assert isinstance(as_object, MetaQAPOutput) and type(as_tuple) is tuple
    assert len(as_tuple) == len(as_object.to_tuple()) == len(as_object)
    torch.testing.assert_close(as_tuple, as_object.to_tuple(), rtol=0, atol=0)


def test_the_configuration_can_ask_for_tuples_and_hidden_states(make_model, inputs):
    model = make_model(return_dict=False, output_hidden_states=True)
    output = run(model, inputs)
    assert type(output) is tuple
    assert isinstance(output[-1], tuple) and len(output[-1]) == 5
    assert run(model, inputs, return_dict=True, output_hidden_states=False).hidden_states is None


def test_hidden_states_are_the_activations_of_each_pooled_stage(model, inputs):
    hidden_states = run(model, inputs, output_hidden_states=True).hidden_states
    channels = [count for learner in model.base_learners for count in learner.stage_channels]
    strides = [2, 4, 8, 16, 32] * len(model.base_learners)
    assert [tuple(state.shape) for state in hidden_states] == [
        (6, count, -(-64 // stride), -(-48 // stride)) for count, stride in zip(channels, strides, strict=True)
    ]
    assert run(model, inputs).hidden_states is None


def test_hidden_states_keep_their_gradient_on_request(model, inputs):
    output = model(**inputs, output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    output.logits.sum().backward()
    assert all(state.grad is not None for state in output.hidden_states)


def test_the_first_argument_of_forward_is_the_main_input(model):
    assert model.main_input_name == "pixel_values"
    assert next(iter(inspect.signature(model.forward).parameters)) == "pixel_values"


def gradients(model, inputs, labels):
    model.zero_grad()
    output = model(**inputs, labels=labels, output_hidden_states=True)
    activations = sum(state.square().mean() for state in output.hidden_states)
    (output.loss + output.distortion_logits.square().mean() + activations).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_every_parameter_receives_a_gradient(model, inputs):
    model = copy.deepcopy(model).train()
    found = gradients(model, inputs, torch.tensor([0.1, 0.9]))
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    # A bias in front of BatchNorm has an exact gradient of 0; every weight must feel the loss.
    assert [name for name, gradient in found.items() if name.endswith("weight") and not gradient.any()] == []


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_gradient_checkpointing_gives_the_same_gradients(model, inputs, reentrant):
    model = copy.deepcopy(model).train()
    labels = torch.tensor([0.1, 0.9])
    # Frozen statistics: recomputing a layer must not count its batch twice.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    expected = gradients(model, inputs, labels)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_activation_checkpointing
    calls = []
    for learner in model.base_learners:
        learner.backbone.register_forward_hook(lambda *_: calls.append(1))
    found = gradients(model, inputs, labels)
    assert len(calls) == 2 * len(model.base_learners)  # once forward, once again for backward
    torch.testing.assert_close(found, expected)


def test_checkpointing_computes_nothing_backward_through_frozen_stages(make_model, inputs):
    model = make_model("test_resnet").train()
    freeze_stages(model, 2)
    model.activation_checkpointing_enable({"use_reentrant": True})
    stages = []
    for name, module in model.base_learners[0].backbone.named_children():
        module.register_full_backward_hook(lambda *_, name=name: stages.append(name))
    model(**inputs, labels=torch.tensor([0.1, 0.9])).loss.backward()
    assert stages == ["layer4", "layer3", "layer2"]
    assert not inputs["pixel_values"].requires_grad and not inputs["crop_weights"].requires_grad


@pytest.mark.parametrize(
    "config", [{}, {"distortion_labels": []}, {"base_learners": [{"backbone": "test_resnet", "kernel_head": SIZES}]}]
)
def test_every_part_that_is_kept_in_float32_is_part_of_the_model(config):
    model = MetaQAPModel(MetaQAPConfig(**({"base_learners": ["test_resnet"]} | config)))
    parts = {part for name in model.state_dict() for part in name.split(".")}
    assert model._keep_in_fp32_modules_strict == parts & set(MetaQAPModel._keep_in_fp32_modules_strict)
    assert {"quality_head", "meta_learner", "feature_mean"} <= model._keep_in_fp32_modules_strict


def test_crops_one_after_the_other_get_what_padded_ones_get(model, inputs):
    weights = torch.tensor([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    options = {"output_quality_map": True, "labels": torch.tensor([0.1, 0.9])}
    padded = run(model, inputs | {"crop_weights": weights}, **options)
    packed = {"pixel_values": inputs["pixel_values"][weights > 0], "crop_weights": weights}
    found = run(model, packed, **options)
    is_there = (weights > 0)[..., None, None]
    assert found.quality_map.shape == padded.quality_map.shape
    padded.quality_map, found.quality_map = padded.quality_map * is_there, found.quality_map * is_there
    assert_same_outputs(found, padded)
    assert len(run(model, packed, output_hidden_states=True).hidden_states[0]) == 3
    with pytest.raises(ValueError, match="one weight for each crop"):
        run(model, packed | {"pixel_values": packed["pixel_values"][:2]})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_finite_and_near_float32(model, inputs, dtype, tmp_path):
    model.save_pretrained(tmp_path)
    half = MetaQAPModel.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype
    options = {"output_quality_map": True}
    expected, found = run(model, inputs, **options), run(half, inputs, **options)
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in found.values())
    # bfloat16 has 8 bits: about 0.4 % relative error in each activation.
    torch.testing.assert_close(found.base_scores, expected.base_scores, rtol=0.05, atol=0.05)
    # An image of bfloat16 pixels is accepted, too.
    rounded = run(half, inputs | {"pixel_values": inputs["pixel_values"].to(dtype)})
    torch.testing.assert_close(rounded.logits, found.logits, rtol=0.05, atol=0.05)


def test_a_whole_model_cast_to_bfloat16_still_works(model, inputs):
    output = run(copy.deepcopy(model).bfloat16(), inputs)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_heads_normalisation_and_meta_learner_in_float32(model, dtype, tmp_path):
    model.save_pretrained(tmp_path)
    state = MetaQAPModel.from_pretrained(tmp_path, dtype=dtype).state_dict()
    floating = {name: tensor.dtype for name, tensor in state.items() if tensor.is_floating_point()}
    assert {found for name, found in floating.items() if ".backbone." in name} == {dtype}
    assert {found for name, found in floating.items() if ".backbone." not in name} == {torch.float32}
    kept = {name.split(".")[-1] for name in floating if ".backbone." not in name}
    assert kept == {"image_mean", "image_std", "feature_mean", "feature_std", "weight", "bias", "intercept"}


def test_a_checkpoint_with_float16_weights_loads_as_float32(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    halved = {name: t.half() if t.ndim > 1 and ".backbone." in name else t for name, t in state.items()}
    save_file(halved, file, metadata={"format": "pt"})
    loaded = MetaQAPModel.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, halved[name].to(tensor.dtype)), name
    # Rounding the convolutions to 11 bits moves a score by far less than raters disagree.
    torch.testing.assert_close(run(loaded, inputs).logits, run(model, inputs).logits, rtol=0, atol=0.01)


def test_torch_export_runs_at_another_batch_and_image_size(make_model):
    model = make_model("test_efficientnet", "test_resnet", interval_radius=0.1)
    sizes = {name: torch.export.Dim(name, min=2, max=8) for name in ("batch", "crops")}
    # Multiples of 32, the total stride of the networks.
    height, width = (32 * torch.export.Dim(name, min=1, max=16) for name in ("rows", "columns"))
    exported = torch.export.export(
        model,
        (),
        {"pixel_values": torch.rand(2, 3, 3, 64, 96), "crop_weights": torch.rand(2, 3) + 0.1},
        dynamic_shapes={
            "pixel_values": {0: sizes["batch"], 1: sizes["crops"], 3: height, 4: width},
            "crop_weights": {0: sizes["batch"], 1: sizes["crops"]},
        },
    ).module()
    other = {"pixel_values": torch.rand(3, 2, 3, 96, 64), "crop_weights": torch.rand(3, 2) + 0.1}
    assert_same_outputs(run(model, other), run(exported, other))


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (5, 3, 33, 97), (2, 1, 3, 70, 50), (1, 4, 3, 32, 32)], ids=str)
def test_any_batch_and_image_size_is_accepted(model, shape):
    output = run(model, {"pixel_values": torch.rand(shape)}, output_quality_map=True)
    count = len(model.base_learners)
    assert output.logits.shape == (shape[0], 1)
    assert output.base_scores.shape == (shape[0], count)
    assert output.interval.shape == (shape[0], 2)
    assert output.distortion_logits.shape == (shape[0], 25)
    assert output.quality_map.shape == (*shape[:-3], -(-shape[-2] // 8), -(-shape[-1] // 8))


def test_initialisation_leaves_the_weights_alone_that_timm_made(monkeypatch):
    import timm

    create_model = timm.create_model
    made = []

    def pretrained(*args, **kwargs):
        backbone = create_model(*args, **kwargs)
        with torch.no_grad():
            for tensor in backbone.state_dict().values():
                tensor.fill_(3)
        made.append(backbone)
        return backbone

    monkeypatch.setattr(timm, "create_model", pretrained)
    model = MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet", "test_efficientnet"]))
    assert [learner.backbone for learner in model.base_learners] == made
    for backbone in made:
        assert all((tensor == 3).all() for tensor in backbone.state_dict().values())
    model.init_weights()
    assert all((tensor == 3).all() for tensor in made[0].state_dict().values())


def test_initialisation_gives_the_heads_a_neutral_start():
    model = MetaQAPModel(MetaQAPConfig(base_learners=["test_resnet", "test_resnet"]))
    for learner in model.base_learners:
        assert learner.quality_head.bias.item() == 0.5
        assert 0.005 < learner.quality_head.weight.std() < 0.02
        assert not learner.feature_mean.any() and (learner.feature_std == 1).all()
    assert model.meta_learner.weight.tolist() == [0.5, 0.5]
    assert model.meta_learner.intercept == 0


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "mobilenetv2_050"])
def test_weights_that_a_checkpoint_lacks_are_initialised(backbone, tmp_path):
    MetaQAPModel(MetaQAPConfig(base_learners=[backbone])).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({"meta_learner.intercept": torch.tensor(0.25)}, file, metadata={"format": "pt"})
    # What `torch.empty` finds in memory is then not zero by chance.
    junk = [torch.full((500, 500), float("nan")) for _ in range(20)]
    del junk
    model = MetaQAPModel.from_pretrained(tmp_path)
    assert model.meta_learner.intercept == 0.25
    assert model.base_learners[0].image_mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    for name, tensor in model.state_dict().items():
        assert torch.isfinite(tensor.float()).all() and tensor.float().abs().max() < 2, name
        if name.endswith(("conv1.weight", "conv_stem.weight", "running_var")):
            assert tensor.any(), name
    assert torch.isfinite(run(model, {"pixel_values": torch.rand(1, 3, 64, 64)}).logits).all()


def test_a_distortion_head_of_another_size_can_replace_the_saved_one(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    labels = ["blur", "noise", "jpeg"]
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        MetaQAPModel.from_pretrained(tmp_path, distortion_labels=labels)
    changed = MetaQAPModel.from_pretrained(tmp_path, distortion_labels=labels, ignore_mismatched_sizes=True)
    output = run(changed, inputs)
    assert output.distortion_logits.shape == (2, 3)
    torch.testing.assert_close(output.logits, run(model, inputs).logits)


def test_a_model_loads_onto_a_device_map(model, inputs, tmp_path):
    pytest.importorskip("accelerate")
    model.save_pretrained(tmp_path)
    loaded = MetaQAPModel.from_pretrained(tmp_path, device_map="cpu")
    torch.testing.assert_close(run(loaded, inputs).logits, run(model, inputs).logits)


def test_a_model_saved_in_several_files_loads_the_same(model, inputs, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="500KB")
    index = json.loads(Path(tmp_path, "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    torch.testing.assert_close(run(MetaQAPModel.from_pretrained(tmp_path), inputs).logits, run(model, inputs).logits)
