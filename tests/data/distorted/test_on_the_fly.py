"""Distorted crops made while training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.utils.data import DataLoader

from modeling_metaqap.data.distorted.on_the_fly import DistortedImages
from modeling_metaqap.data.distortions import DISTORTION_NAMES, DISTORTIONS


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in (data.astronaut(), data.coffee(), data.chelsea())]


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_items_hold_the_crop_its_labels_and_when_asked_the_reference(photographs: list[Image.Image]) -> None:
    crops = DistortedImages(photographs, crop_size=48, seed=0)
    assert len(crops) == 3
    assert set(crops[0]) == {"pixel_values", "distortion", "level"}
    item = DistortedImages(photographs, crop_size=48, seed=0, return_reference=True)[0]
    for key in ("pixel_values", "reference"):
        assert item[key].shape == (3, 48, 48) and item[key].dtype == torch.uint8
    assert torch.equal(item["pixel_values"], crops[0]["pixel_values"])
    assert item["distortion"].dtype == torch.int64 and 0 <= item["distortion"] < 25 and 1 <= item["level"] <= 5


def test_the_labels_name_what_was_done_to_the_reference(photographs: list[Image.Image]) -> None:
    crops = DistortedImages(
        photographs, crop_size=48, seed=0, return_reference=True, distortions=["pixelate", "darken"], levels=[3]
    )
    for epoch in range(6):
        item = crops[epoch, 1]
        reference = item["reference"].numpy().transpose(1, 2, 0)
        name = DISTORTION_NAMES[item["distortion"]]
        assert name in ("pixelate", "darken") and item["level"] == 3
        expected = DISTORTIONS[name](reference, 3, 0)  # neither depends on chance
        assert np.array_equal(item["pixel_values"].numpy().transpose(1, 2, 0), expected)


def test_items_depend_on_seed_epoch_and_index_alone(photographs: list[Image.Image]) -> None:
    crops = DistortedImages(photographs, crop_size=40, seed=1)
    assert equal(crops[2], crops[0, 2])
    assert equal(crops[3, 2], DistortedImages(photographs, crop_size=40, seed=1)[3, 2])
    assert not equal(crops[3, 2], crops[4, 2])
    assert not equal(crops[2], DistortedImages(photographs, crop_size=40, seed=2)[2])


def test_all_distortions_and_levels_occur(photographs: list[Image.Image]) -> None:
    crops = DistortedImages([photographs[0].resize((40, 40))], crop_size=32, seed=0)
    items = [crops[epoch, 0] for epoch in range(200)]
    assert {int(item["distortion"]) for item in items} == set(range(25))
    assert {int(item["level"]) for item in items} == {1, 2, 3, 4, 5}


def test_a_grey_image_gets_no_colour_distortion() -> None:
    crops = DistortedImages([Image.fromarray(data.camera()).resize((64, 64))], crop_size=32, seed=0)
    names = {DISTORTION_NAMES[crops[epoch, 0]["distortion"]] for epoch in range(60)}
    assert not any(DISTORTIONS[name].needs_color for name in names)


def test_images_may_be_paths_or_rows(photographs: list[Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    photographs[0].save(path)
    expected = DistortedImages(photographs[:1], crop_size=40, seed=0)[0]
    for images in ([path], [str(path)], [{"image": photographs[0]}]):
        assert equal(DistortedImages(images, crop_size=40, seed=0)[0], expected)


def test_it_feeds_a_data_loader(photographs: list[Image.Image]) -> None:
    batch = next(iter(DataLoader(DistortedImages(photographs, crop_size=32, seed=0), batch_size=3)))
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["distortion"].shape == batch["level"].shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, "no pristine images"),
        ({"crop_size": 16}, "32 or more"),
        ({"distortions": ["blur"]}, "blur"),
        ({"distortions": []}, "none"),
        ({"levels": [0]}, "1 to 5"),
    ],
)
def test_mistakes_get_a_clear_error(options: dict[str, Any], message: str, photographs: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match=message):
        DistortedImages(**({"images": photographs, "crop_size": 32, "seed": 0} | options))
