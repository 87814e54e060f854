"""The order of training images, which the seed alone decides."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """`(epoch, index)` pairs of one epoch in an order that only the seed and the epoch decide."""

    def __init__(self, length: int, *, seed: int):
        self.length = length
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch; `skip` leaves out its first items, to go on in the middle of it."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return self.length - self.skip

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order[self.skip :]])


class EndlessSampler(Sampler[tuple[int, int]]):
    """The `(epoch, index)` pairs of one epoch after the other without an end, from the item number `start`."""

    def __init__(self, length: int, *, seed: int):
        self.epochs = EpochSampler(length, seed=seed)
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, skip = divmod(self.start, self.epochs.length)
        while True:
            self.epochs.set_epoch(epoch, skip=skip)
            yield from self.epochs
            epoch, skip = epoch + 1, 0


__all__ = ["EndlessSampler", "EpochSampler"]
