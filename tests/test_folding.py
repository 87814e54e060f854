"""Folding for inference changes the speed, never the answer."""

import pytest
import torch

from modeling_metaqap.folding import _FoldedConv, fold_for_inference

# TensorFlow's padding at stride 2, plain padding, blocks with branches, and what cannot be traced or folded.
BACKBONES = ["tf_efficientnet_lite0", "mobilenetv2_100", "test_resnet", "resnet18", "test_byobnet", "test_convnext"]


def folded_layers(model):
    return [module for module in model.modules() if isinstance(module, _FoldedConv)]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(64, 64), (97, 66)])
def test_a_folded_model_says_what_the_model_says(make_model, backbone, size):
    model = make_model(backbone, interval_radius=0.1).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    pixel_values = torch.rand(2, 3, *size)
    with torch.inference_mode():
        expected = model(pixel_values, output_quality_map=True)
        found = fold_for_inference(model)(pixel_values, output_quality_map=True)
    for name in ("logits", "base_scores", "interval", "distortion_logits", "quality_map"):
        largest = expected[name].abs().max().item()
        difference = (found[name] - expected[name]).abs().max().item()
        assert difference < 2e-5 * max(1, largest), name


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv2_100", "resnet18"])
def test_no_batch_norm_and_no_separate_activation_is_left(make_model, backbone):
    model = make_model(backbone)
    folded = fold_for_inference(model)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(folded_layers(folded)) == len(convolutions)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    # The model that it was made of is as it was.
    assert [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not folded_layers(model)


class DecidesByValues(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels):
        return self.backbone(pixels) if pixels.mean() < 1e6 else []


def test_a_backbone_that_cannot_be_traced_stays_as_it_is(make_model):
    model = make_model("test_resnet")
    untraceable = DecidesByValues(model.base_learners[0].backbone)
    model.base_learners[0].backbone = untraceable
    assert fold_for_inference(model).base_learners[0].backbone is untraceable


def test_a_folded_backbone_that_differs_is_not_taken(make_model, monkeypatch):
    model = make_model("test_resnet")
    monkeypatch.setattr("modeling_metaqap.folding.fuse_conv_bn_weights", lambda weight, *_: (weight, None))
    folded = fold_for_inference(model)
    assert folded.base_learners[0].backbone is model.base_learners[0].backbone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_folded_too(make_model, dtype):
    model = make_model("test_resnet")
    pixel_values = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(pixel_values).logits
        model.base_learners[0].backbone.to(dtype)
        folded = fold_for_inference(model)
        found = folded(pixel_values.to(dtype)).logits.float()
    assert folded_layers(folded)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
