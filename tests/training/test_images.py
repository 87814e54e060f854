import datasets
import numpy as np
import pytest
import torch
from iqa_fixtures import noise

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.training.images import TrainingCrops, WholeImages
from modeling_metaqap.training.samplers import EpochSampler

ROWS = [{"image": noise(40 + 7 * index, 60, seed=index), "quality": index / 9} for index in range(10)]


def test_distorted_images_bring_the_distortion_and_its_level(make_model):
    row = ROWS[0] | {"distortion": 3, "level": 4}
    for item in (
        TrainingCrops([row], crop_size=16, seed=0)[0, 0],
        WholeImages([row], MetaQAPImageProcessor())[0],
    ):
        assert (item["distortion"].item(), item["level"].item()) == (3, 4)
    assert "distortion" not in TrainingCrops(ROWS, crop_size=16, seed=0)[0, 0]


def test_a_training_crop_depends_on_seed_epoch_and_index_alone():
    crops = TrainingCrops(ROWS, crop_size=32, seed=5)
    again = TrainingCrops(ROWS, crop_size=32, seed=5)
    reference = [crops[1, index] for index in range(10)]
    np.random.seed(0)
    torch.manual_seed(0)
    for index in reversed(range(10)):
        found = again[1, index]
        assert torch.equal(found["pixel_values"], reference[index]["pixel_values"])
        assert found["labels"] == pytest.approx(index / 9)
    for other in (crops[2, 3], TrainingCrops(ROWS, crop_size=32, seed=6)[1, 3]):
        assert not torch.equal(other["pixel_values"], reference[3]["pixel_values"])


def test_of_a_large_jpeg_only_what_training_sees_is_decoded(tmp_path):
    noise(40, 60).resize((1200, 800)).save(tmp_path / "large.jpg")
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "large.jpg")], "quality": [0.5]}).cast_column(
        "image", datasets.Image()
    )
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    [item] = [WholeImages(rows, processor)[0]]
    expected = processor(str(tmp_path / "large.jpg"), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(item["pixel_values"], expected)
    assert not torch.equal(item["pixel_values"], processor(rows[0]["image"], return_tensors="pt")["pixel_values"][0])
    assert torch.equal(
        TrainingCrops(rows, crop_size=32, seed=5)[1, 0]["pixel_values"],
        TrainingCrops([rows[0]], crop_size=32, seed=5)[1, 0]["pixel_values"],
    ), "too small to leave anything out"


def test_training_crops_do_not_depend_on_the_number_of_workers():
    crops = TrainingCrops(ROWS, crop_size=32, seed=5)
    batches = [
        list(torch.utils.data.DataLoader(crops, batch_size=4, sampler=EpochSampler(10, seed=1), num_workers=workers))
        for workers in (0, 2)
    ]
    for alone, together in zip(*batches, strict=True):
        assert torch.equal(alone["pixel_values"], together["pixel_values"])
        assert torch.equal(alone["labels"], together["labels"])


def test_whole_images_come_as_the_image_processor_makes_them():
    processor = MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    images = WholeImages(ROWS, processor)
    batch = processor.collate([images[index] for index in range(len(images))])
    expected = processor([row["image"] for row in ROWS], return_tensors="pt")
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    assert torch.equal(batch["crop_weights"], expected["crop_weights"])
    assert batch["crop_weights"].shape[1] > 1
    torch.testing.assert_close(batch["labels"], torch.arange(10) / 9)
