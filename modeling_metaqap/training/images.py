"""How images become tensors: random crops to train on, and whole images as they are scored in use."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.crops import random_crop
from ..image_processing_metaqap import MetaQAPImageProcessor
from .bad_images import Rows, as_stored, read_row


class TrainingCrops(Dataset):
    """Native-resolution random crops and flips of the images of an IQA data set, or of a distorted one.

    Item `(epoch, index)` depends on the seed, the epoch and the index alone: not on workers, processes or resumption.
    The image is shrunk first where the image processor would shrink it, so training sees the scoring resolution; with
    `min_scale` below 1 it is shrunk a little more, at random.
    """

    def __init__(self, dataset: Rows, *, crop_size: int, seed: int, min_scale: float = 1.0):
        self.dataset = as_stored(dataset)
        self.crop_size = crop_size
        self.seed = seed
        self.min_scale = min_scale

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = item
        rng = np.random.default_rng([self.seed, epoch, index])
        row = read_row(self.dataset, index)
        crop = random_crop(row["image"], self.crop_size, rng, min_scale=self.min_scale)
        return {"pixel_values": crop, **_labels(row)}


class MixedCrops(Dataset):
    """Crops of several sets. Item `(set, epoch, index)` is that of its set, and says by `set` which one that is."""

    def __init__(self, sets: Sequence[TrainingCrops]):
        self.sets = sets

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitem__(self, item: tuple[int, int, int]) -> dict[str, Tensor]:
        number, epoch, index = item
        return self.sets[number][epoch, index] | {"set": torch.tensor(number)}


def _labels(row: dict[str, Any]) -> dict[str, Tensor]:
    labels = {"labels": torch.tensor(row["quality"], dtype=torch.float32)}
    return labels | {name: torch.tensor(row[name]) for name in ("distortion", "level") if name in row}


class WholeImages(Dataset):
    """Whole images through the image processor, exactly as they are scored in use."""

    def __init__(self, dataset: Rows, image_processor: MetaQAPImageProcessor):
        self.dataset = as_stored(dataset)
        self.image_processor = image_processor

    @property
    def seen(self) -> str:
        """What a learner sees of an image depends on this."""
        processor = self.image_processor
        return f"{processor.seen_edge} {processor.crop_size['height']} {int(processor.resample)}"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = read_row(self.dataset, index, shortest_edge=self.image_processor.seen_edge)
        inputs = self.image_processor(row["image"], return_tensors="pt")
        return {name: inputs[name][0] for name in ("pixel_values", "crop_weights")} | _labels(row)


def whole_images(dataset: datasets.Dataset, *, distorted_crop_size: int) -> WholeImages:
    """The images of a data set as they are scored in use.

    Distorted images are often smaller than the photographs that are scored in use, and not to be padded: the processor
    gets the crop size that they were made in.
    """
    distorted = "distortion" in dataset.column_names
    processor = MetaQAPImageProcessor(crop_size=distorted_crop_size) if distorted else MetaQAPImageProcessor()
    return WholeImages(dataset, processor)


__all__ = ["MixedCrops", "TrainingCrops", "WholeImages", "whole_images"]
