"""Images cut into parts at random, so that each image can be predicted by a fit that has not seen it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]


def random_folds(number: int, *, folds: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """For each part the rows of the others, in order, and its own rows; each row is in one part.

    Args:
        number: of rows.
        folds: parts of equal size; one row each where there are fewer rows.
        seed: of the cut.
    """
    rows = np.random.default_rng(seed).permutation(number)
    for part in np.array_split(rows, min(folds, number)):
        yield np.setdiff1d(rows, part), part


__all__ = ["random_folds"]
