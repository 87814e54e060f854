"""The order of training images, which the seed alone decides."""

from collections.abc import Iterator, Sequence

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


class MixedSampler(Sampler[tuple[int, int, int]]):
    """`(set, epoch, index)` of one epoch that draws a fixed number of images from each of several sets.

    The sets are spread evenly over the epoch, so that each batch has its part of each set, give or take an image. Each
    set is gone through in an order of its own, again and again, across the epochs: a small one may come several times
    in an epoch, of a large one a part. `epoch` counts how often the set was gone through.

    Args:
        lengths: numbers of images of the sets.
        draws: numbers of images that an epoch draws from them.
        seeds: of their orders.
    """

    def __init__(self, lengths: Sequence[int], draws: Sequence[int], *, seeds: Sequence[int]):
        self.draws = list(draws)
        self.orders = [EndlessSampler(length, seed=seed) for length, seed in zip(lengths, seeds, strict=True)]
        # The draw number i of n stands at (i + 1/2) / n of the way.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in draws])
        self.sets = np.repeat(np.arange(len(draws)), draws)[np.argsort(places, kind="stable")]
        self.set_epoch(0)

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch; `skip` leaves out its first items, to go on in the middle of it."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return len(self.sets) - self.skip

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        skipped = np.bincount(self.sets[: self.skip], minlength=len(self.draws))
        for order, count, number in zip(self.orders, self.draws, skipped.tolist(), strict=True):
            order.start = self.epoch * count + number
        streams = [iter(order) for order in self.orders]
        for number in self.sets[self.skip :].tolist():
            yield number, *next(streams[number])


def whole_numbers(parts: Sequence[float], total: int) -> list[int]:
    """Share out a number by parts that are together 1: whole numbers whose sum it is, each less than 1 off."""
    exact = np.array(parts) * total
    numbers = np.floor(exact).astype(int)
    most_off = np.argsort(numbers - exact, kind="stable")[: total - numbers.sum()]
    numbers[most_off] += 1
    return numbers.tolist()


def seed_of_set(seed: int, number: int) -> int:
    """A seed for each set of a run; that of the first one is the run's own."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


__all__ = ["EndlessSampler", "EpochSampler", "MixedSampler", "seed_of_set", "whole_numbers"]
