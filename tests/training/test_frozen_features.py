"""What a frozen learner makes of whole images is computed once."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")

from modeling_metaqap.training import frozen_features as module
from modeling_metaqap.training.frozen_features import frozen_features


class OneProcess:
    num_processes = 1
    is_local_main_process = True


class OneOfTwo:
    num_processes = 2
    is_local_main_process = True


@pytest.fixture
def photographs(tmp_path):
    """Six image files, two of them the same."""
    for number in range(6):
        pixels = np.full((8, 8, 3), 40 * (number % 5), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(6)]
    return datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())


@pytest.fixture
def compute():
    """The brightness of each image, and its square; `sizes` says how many were asked for."""

    def features(dataset):
        features.sizes.append(len(dataset))
        values = torch.tensor([float(np.asarray(row["image"]).mean()) / 3 for row in dataset])
        return torch.stack([values, values**2], dim=1)

    features.sizes = []
    return features


def test_each_image_is_computed_once_and_in_its_place(photographs, compute, make_model, tmp_path):
    model = make_model("test_resnet")
    options = {"accelerator": OneProcess(), "seen": "512", "cache_dir": tmp_path / "cache"}
    found = frozen_features(model, photographs, compute, together=2, **options)
    assert compute.sizes == [2, 2, 1]  # the sixth is the first one
    assert torch.equal(found, compute(photographs).double())
    compute.sizes.clear()
    order = [5, 3, 1, 1]
    assert torch.equal(frozen_features(model, photographs.select(order), compute, **options), found[order])
    assert compute.sizes == []


def test_other_images_weights_and_views_are_computed(photographs, compute, make_model, tmp_path):
    model = make_model("test_resnet")
    options = {"accelerator": OneProcess(), "cache_dir": tmp_path / "cache"}
    frozen_features(model, photographs, compute, seen="512", **options)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "2.png")
    frozen_features(model, photographs, compute, seen="512", **options)
    frozen_features(model, photographs, compute, seen="256", **options)
    with torch.no_grad():
        model.base_learners[0].quality_head.weight += 1  # features do not depend on it
    frozen_features(model, photographs, compute, seen="512", **options)
    with torch.no_grad():
        next(model.base_learners[0].backbone.parameters())[0] += 1
    frozen_features(model, photographs, compute, seen="512", **options)
    model.config.base_learners[0]["scales"] = [1, 2]
    frozen_features(model, photographs, compute, seen="512", **options)
    assert compute.sizes == [5, 1, 5, 5, 5]


def test_processes_that_find_different_features_compute_all(photographs, compute, make_model, tmp_path, monkeypatch):
    model = make_model("test_resnet")
    frozen_features(model, photographs, compute, accelerator=OneProcess(), seen="512", cache_dir=tmp_path)
    for other, sizes in (([], []), ([0, 1, 2, 3, 4], [6])):
        compute.sizes.clear()
        monkeypatch.setattr(module, "gather_object", lambda own, other=other: [*own, other])
        frozen_features(model, photographs, compute, accelerator=OneOfTwo(), seen="512", cache_dir=tmp_path)
        assert compute.sizes == sizes
