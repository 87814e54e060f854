"""Images cut into parts at random, so that each image can be predicted by a fit that has not seen it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]


def share_out(groups: IntArray, *, folds: int, seed: int) -> list[IntArray]:
    """Rows of each part, in order; no group is in two parts.

    Args:
        groups: `(n,)`, numbers of groups that are not torn apart.
        folds: parts of about as many groups each; one group each where there are fewer.
        seed: of the cut.
    """
    numbers = np.random.default_rng(seed).permutation(np.unique(groups))
    return [np.flatnonzero(np.isin(groups, part)) for part in np.array_split(numbers, min(folds, len(numbers)))]


def random_folds(groups: IntArray, *, folds: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """For each part the rows of the others and its own rows, both in order; see `share_out`."""
    rows = np.arange(len(groups))
    for part in share_out(groups, folds=folds, seed=seed):
        yield np.setdiff1d(rows, part), part


__all__ = ["random_folds", "share_out"]
