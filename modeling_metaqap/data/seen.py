"""Refusing to measure weights on images that they were made of."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets

from ..errors import DataError, MetaQAPError
from ..lineage import Stage, image_ids_sha256, shares_images
from .iqa_datasets import hold_out, load_training_split, only_images
from .rating_options import FOLDER


def refuse_seen(
    stages: Iterable[Stage],
    images: datasets.Dataset,
    *,
    weights: str,
    dataset: str,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> None:
    """Refuse images whose opinion scores any stage of some weights has learned from.

    The ids of a stage's images follow from its data set, split, pattern and hold-out rule. All folders of images have
    the same name, so a folder is that of the stage if the digest of these ids is the same. Where a stage has hashes of
    its image files, any image with the same content counts, whatever its name or data set.

    Args:
        stages: what the weights were made of.
        images: rows with `image_id`, which the weights are to be measured on.
        weights: what the message calls them, such as the path of a checkpoint.
        dataset: name of the data set that the images are of.
        data_dir, cache_dir, options: see `load_iqa_dataset`.

    Raises:
        MetaQAPError: if the weights have learned from some of the images.
        DataError: if a data set lacks images of a stage.
    """
    stages = list(stages)
    where = {"data_dir": data_dir, "cache_dir": cache_dir, **options}
    ids, digest = set(images["image_id"]), image_ids_sha256(sorted(images["image_id"]))
    seen: set[str] = set()
    learned: dict[str, None] = {}  # in order, each once
    for opinions, same in _by_opinions(stages, dataset).items():
        # The very images, also where the split that they were of is not there any more.
        shared = ids if digest in {stage.image_ids_sha256 for stage in same} else ids & _image_ids(same, **where)
        if shared:
            seen |= shared
            learned[opinions] = None
    if with_hashes := [stage for stage in stages if stage.image_hashes]:
        digests = _file_digests(images)
        for stage in with_hashes:
            same_files = zip(images["image_id"], shares_images(stage, digests), strict=True)
            if shared := {image_id for image_id, is_shared in same_files if is_shared}:
                seen |= shared
                learned[str(stage.opinions)] = None
    if seen:
        raise MetaQAPError(
            f"{weights} has learned from {len(seen):,} of the {len(images):,} images that it would be measured on "
            f"({'; '.join(learned)}); take images that it has not seen."
        )


def _file_digests(images: datasets.Dataset) -> list[str]:
    """SHA-256 of each image file."""
    files = images.select_columns("image").cast_column("image", datasets.Image(decode=False))
    contents = (row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes() for row in files)
    return [hashlib.sha256(content).hexdigest() for content in contents]


def _by_opinions(stages: Iterable[Stage], dataset: str) -> dict[str, list[Stage]]:
    """The stages that learned from opinion scores of a data set, by what they say of them."""
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        if stage.dataset == dataset and stage.opinions is not None:
            groups.setdefault(stage.opinions, []).append(stage)
    return groups


def _image_ids(same: list[Stage], **where: Any) -> set[str]:
    """Ids of the images that stages with the same data set, split, pattern and rule learned from."""
    dataset, split, rule = same[0].dataset, same[0].split, same[0].hold_out
    assert dataset is not None and split is not None
    try:
        learned = only_images(load_training_split(dataset, split=split, **where), same[0].images, name=dataset)
        if rule is not None:
            learned, _ = hold_out(learned, rule, name=dataset)
    except (DataError, ValueError):
        if dataset == FOLDER:
            return set()  # another folder, which has no such images
        raise
    learned_ids = set(learned["image_id"])
    if dataset == FOLDER and image_ids_sha256(sorted(learned_ids)) not in {stage.image_ids_sha256 for stage in same}:
        return set()
    return learned_ids


__all__ = ["refuse_seen"]
