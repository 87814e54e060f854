"""Folding for inference changes the speed, never the answer."""

import time

import pytest
import torch

from modeling_metaqap import folding
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


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@needs_onednn
def test_weights_are_packed_for_crops_of_512_pixels(make_model, monkeypatch):
    sizes, pack = [], torch.ops.mkldnn._reorder_convolution_weight
    monkeypatch.setattr(
        torch.ops.mkldnn, "_reorder_convolution_weight", lambda *args: sizes.append(args[-1]) or pack(*args)
    )
    folded = fold_for_inference(make_model("mobilenetv2_100"))
    assert len(sizes) == len(folded_layers(folded))
    assert sizes[0] == [1, 3, 512, 512] and sizes[-1] == [1, 960, 16, 16]


@needs_onednn
def test_no_layer_packs_its_weights_again_with_each_picture():
    """Without the size of its input oneDNN does so with 512 outputs, which takes twenty times as long as the layer."""

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 960, 32, stride=32, bias=False)
            self.last = torch.nn.Conv2d(960, 512, 1)

        def forward(self, pixels):
            return [self.last(self.first(pixels))]

    folded = folding._folded_backbone(Wide().eval())
    [*_, layer] = folded_layers(folded)
    inputs = torch.rand(1, 960, 16, 16).to(memory_format=torch.channels_last)
    plain = torch.nn.Conv2d(960, 512, 1).to(memory_format=torch.channels_last)

    def seconds(module):
        started = time.perf_counter()
        for _ in range(5):
            module(inputs)
        return time.perf_counter() - started

    with torch.inference_mode():
        # In turns, and the best of five, because other work on the machine slows now this one, now that one.
        pairs = [(seconds(layer), seconds(plain)) for _ in range(5)]
    own, of_torch = map(min, zip(*pairs, strict=True))
    assert own < 5 * of_torch


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
