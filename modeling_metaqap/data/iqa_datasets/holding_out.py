"""Parts of the training images: folds or the images of one source, which a run does not see or sees alone."""

import re
from fnmatch import fnmatchcase

import datasets
import numpy as np

from ...errors import DataError
from .base import hashed_order

_FOLD = re.compile(r"fold (\d+) of (\d+)")


def hold_out(dataset: datasets.Dataset, rule: str, *, name: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Cut training images into the ones to learn from and the ones held out.

    Args:
        dataset: rows with `image_id` and `reference_id`.
        rule: `"fold 2 of 5"` holds out one of five disjoint folds that together are the whole (numbered from 1);
            anything else is a pattern of image ids, such as `"ss01*"`, for leave-one-source-out studies.
        name: of the data set, so that each data set draws its folds anew.

    Returns:
        The remaining and the held-out rows, each in their old order. Which fold an image is in follows from its id (or
        its `reference_id`, so that versions of one photograph stay together) and nothing else.

    Raises:
        DataError: if there is no such fold, or nothing is left on one of the two sides.
    """
    ids = dataset["image_id"]
    if match := _FOLD.fullmatch(rule.strip()):
        fold, folds = int(match[1]), int(match[2])
        if not 1 <= fold <= folds or folds < 2:
            raise DataError(f"There is no {rule!r}; write 'fold 1 of 5' to 'fold 5 of 5'.")
        groups = [reference or image_id for reference, image_id in zip(dataset["reference_id"], ids, strict=True)]
        held_out = fold_of(groups, folds, key=f"{name}/folds/{folds}") == fold - 1
    else:
        held_out = np.array([fnmatchcase(image_id, rule) for image_id in ids])
    if held_out.all() or not held_out.any():
        share = "all" if held_out.all() else "none"
        raise DataError(f"The rule {rule!r} holds out {share} of the {len(ids)} images of {name}.")
    return dataset.select(np.flatnonzero(~held_out)), dataset.select(np.flatnonzero(held_out))


def only_images(dataset: datasets.Dataset, pattern: str | None, *, name: str) -> datasets.Dataset:
    """The rows with these image ids.

    Args:
        dataset: rows with `image_id`.
        pattern: of ids, such as `"ss01*"`; None for all rows.
        name: of the data set, for messages.

    Raises:
        DataError: if there are none.
    """
    if pattern is None:
        return dataset
    kept = [row for row, image_id in enumerate(dataset["image_id"]) if fnmatchcase(image_id, pattern)]
    if not kept:
        raise DataError(f"The pattern {pattern!r} names none of the {len(dataset)} images of {name}.")
    return dataset.select(kept)


def fold_of(groups: list[str], folds: int, *, key: str) -> np.ndarray:
    """The fold, 0 to `folds` - 1, of each group name, `(n,)`.

    The distinct names are dealt out like cards in the order of their hashes, so folds differ by one name at most.
    """
    fold = {group: number % folds for number, group in enumerate(hashed_order(groups, key=key))}
    return np.array([fold[group] for group in groups])
