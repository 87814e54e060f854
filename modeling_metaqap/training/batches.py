"""The batches of a run, the same global ones whatever the number of processes."""

import os
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset

from ..data.cores import usable_cores
from ..data.silencing import silence_decoders
from ..errors import MetaQAPError
from ..image_processing_metaqap import MetaQAPImageProcessor
from .images import MixedCrops, TrainingCrops, whole_images
from .rated_set import shares
from .recipe import Recipe
from .samplers import EndlessSampler, EpochSampler, MixedSampler, seed_of_set, whole_numbers
from .splits import Splits
from .step import Batch

# With fewer cores a processor that trains computes with all of them.
_CORES_TO_READ_BESIDE = 4


def reading_processes(cores: int, device: torch.device) -> int:
    """How many processes read images beside one that trains, where nobody says it.

    Two; none where it trains on a processor of few cores. Its threads wait for each other at every layer, so each
    moment that another process takes from one of them is lost to all: on two cores this costs more than reading
    between steps.

    Args:
        cores: for the process that trains.
        device: that it trains on.
    """
    return 0 if device.type == "cpu" and cores < _CORES_TO_READ_BESIDE else 2


class Batches:
    """The images of a run as batches.

    Args:
        splits: the images.
        recipe: sizes of batches and crops, and the seed.
        accelerator: the processes that share each batch.
        num_workers: processes that read images, for each process that trains; default see `reading_processes`.

    Raises:
        MetaQAPError: if a batch cannot be shared among the processes, there are fewer images than it takes, or a set
            has so small a weight that it is never drawn from.

    Attributes:
        steps_per_epoch: as many as there are full batches of all training images together, whatever the weights of
            the sets.
        parts: what part of the photographs of an epoch is drawn from each set.
    """

    def __init__(self, splits: Splits, recipe: Recipe, accelerator: Accelerator, *, num_workers: int | None):
        for name in ("batch_size", "synthetic_batch_size"):
            if getattr(recipe, name) % accelerator.num_processes:
                raise MetaQAPError(
                    f"`{name}` {getattr(recipe, name)} is the global one and must be divisible by the number of "
                    f"processes, {accelerator.num_processes}."
                )
        sizes = [len(one.training) for one in splits.sets]
        if sum(sizes) < recipe.batch_size:
            raise MetaQAPError(
                f"There are {sum(sizes)} training images, fewer than one batch of {recipe.batch_size}; "
                "lower `batch_size` in the recipe. For few ratings there is `metaqap adapt`."
            )
        self.recipe = recipe
        self.accelerator = accelerator
        if num_workers is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
            num_workers = reading_processes(usable_cores() // processes, accelerator.device)
        self.num_workers = num_workers
        self.steps_per_epoch = sum(sizes) // recipe.batch_size
        self.parts = shares(recipe.sets, sizes)
        seeds = [seed_of_set(recipe.seed, number) for number in range(len(sizes))]
        self._crops = [
            TrainingCrops(one.training, crop_size=recipe.crop_size, seed=seed, min_scale=recipe.min_scale)
            for one, seed in zip(splits.sets, seeds, strict=True)
        ]
        self._order: EpochSampler | MixedSampler
        if len(sizes) == 1:
            self._order = EpochSampler(sizes[0], seed=recipe.seed)
            self._photographs = self._shared(self._crops[0], self._order, recipe.batch_size)
        else:
            self._order = MixedSampler(sizes, self._draws(), seeds=seeds)
            self._photographs = self._shared(MixedCrops(self._crops), self._order, recipe.batch_size)
        self._distorted: DataLoader | None = None
        if recipe.synthetic_batch_size:
            assert splits.distorted is not None
            crops = TrainingCrops(splits.distorted, crop_size=recipe.crop_size, seed=recipe.seed)
            self._distorted_order = EndlessSampler(len(crops), seed=recipe.seed)
            self._distorted = self._shared(crops, self._distorted_order, recipe.synthetic_batch_size)

    def _draws(self) -> list[int]:
        """How many images an epoch draws from each set."""
        draws = whole_numbers(self.parts, self.steps_per_epoch * self.recipe.batch_size)
        for one, count in zip(self.recipe.sets, draws, strict=True):
            if count == 0:
                raise MetaQAPError(f"No image of the set {one.name} would be drawn in an epoch; raise its `weight`.")
        return draws

    def of_epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """This process's share of the batches of one epoch, on its device.

        Args:
            epoch: its number, from 0.
            first_step: leaves out the steps before this one, to go on in the middle of an epoch.
        """
        self._order.set_epoch(epoch, skip=first_step * self.recipe.batch_size)
        distorted_batches: Iterator[dict[str, Any]] = repeat({})
        if self._distorted is not None:
            steps = epoch * self.steps_per_epoch + first_step
            self._distorted_order.start = steps * self.recipe.synthetic_batch_size
            distorted_batches = iter(self._distorted)
        for photographs, distorted in zip(self._photographs, distorted_batches, strict=False):
            photographs, distorted = self._on_device(photographs), self._on_device(distorted)
            distortions: Tensor | None
            if distorted:
                pixels = torch.cat([photographs["pixel_values"], distorted["pixel_values"]])
                distortions = distorted["distortion"]
            else:  # in pretraining the "photographs" are distorted themselves
                pixels, distortions = photographs["pixel_values"], photographs.get("distortion")
            yield Batch(pixels, photographs["labels"], distortions, photographs.get("set"))

    def one_crop_each(self) -> list[DataLoader]:
        """One crop of each training image, in their order, for each set."""
        return [self._one_crop_each(crops) for crops in self._crops]

    def _one_crop_each(self, crops: TrainingCrops) -> DataLoader:
        items = [(0, index) for index in range(len(crops))]
        first = Subset(crops, items)  # type: ignore[arg-type]
        return self.accelerator.prepare(self._loader(first, batch_size=self.recipe.batch_size))

    def whole(self, dataset: datasets.Dataset) -> DataLoader:
        """Whole images as they are scored in use, in their order."""
        images = whole_images(dataset, distorted_crop_size=self.recipe.crop_size)
        return self.accelerator.prepare(self._loader(images, batch_size=8, collate_fn=MetaQAPImageProcessor.collate))

    def _shared(self, crops: TrainingCrops | MixedCrops, order: Sampler, batch_size: int) -> DataLoader:
        """Every process draws the same global batches and reads its own share of each."""
        batches = BatchSamplerShard(
            BatchSampler(order, batch_size, drop_last=True),
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
            split_batches=True,
        )
        return self._loader(crops, batch_sampler=batches, pin_memory=self.accelerator.device.type == "cuda")

    def _loader(self, images: Dataset, **options: Any) -> DataLoader:
        return DataLoader(images, num_workers=self.num_workers, worker_init_fn=_begin_reading, **options)

    def _on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}


def _begin_reading(worker: int) -> None:
    """In each process that reads images: it has its own libtiff, where it is no copy of the one that trains."""
    silence_decoders()


__all__ = ["Batches", "reading_processes"]
