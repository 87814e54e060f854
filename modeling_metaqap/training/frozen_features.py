"""Features of whole images by a learner that no gradient has changed: computed once and kept on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..data.feature_shards import features_key, read_shards, write_shard
from ..data.iqa_datasets.files import file_sha256
from ..data.user_cache import user_cache
from ..modeling_metaqap import MetaQAPModel
from .bad_images import as_stored
from .learner import base_learners_of

#: Images that are computed, and written to disk, together.
TOGETHER = 1024


def frozen_features(
    model: MetaQAPModel,
    dataset: datasets.Dataset,
    compute: Callable[[datasets.Dataset], Tensor],
    *,
    accelerator: Accelerator,
    seen: str,
    cache_dir: str | Path | None = None,
    together: int = TOGETHER,
) -> Tensor:
    """Features of all images of a data set, in their order; what is on disk is not computed again.

    An image is known by what its file holds, a learner by the weights that features depend on. An interrupted run
    keeps what it has done. All processes must call this; where they find different features on their disks, all of
    them are computed.

    Args:
        model: one base learner.
        dataset: of the images.
        compute: gives the features of a data set, `(n, F)`, on every process.
        accelerator: the processes.
        seen: what else features depend on, such as the size of crops.
        cache_dir: default `user_cache()`.
        together: images that are computed, and written to disk, at a time.

    Returns:
        `(n, F)` in float64, on the CPU.

    Raises:
        OSError: if the cache cannot be written.
    """
    folder = Path(cache_dir or user_cache()) / "features" / _key(model, seen)
    digests = _digests(dataset)
    known = {digest: row[0] for digest, row in read_shards(folder, set(digests)).items()}
    missing = sorted(
        {digest: row for row, digest in reversed(list(enumerate(digests))) if digest not in known}.values()
    )
    if accelerator.num_processes > 1 and any(other != missing for other in gather_object([missing])):
        known, missing = {}, list(range(len(digests)))
    for start in range(0, len(missing), together):
        rows = missing[start : start + together]
        features = compute(dataset.select(rows)).float().numpy()
        names = [digests[row] for row in rows]
        if accelerator.is_local_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            write_shard(folder, names, [features])
        known |= dict(zip(names, features, strict=True))
    return torch.from_numpy(np.stack([known[digest] for digest in digests])).double()


def _digests(dataset: datasets.Dataset) -> list[str]:
    """SHA-256 of each image file."""
    images = (row["image"] for row in as_stored(dataset).select_columns("image"))  # type: ignore[union-attr]
    return [
        file_sha256(Path(image["path"])) if image["bytes"] is None else hashlib.sha256(image["bytes"]).hexdigest()
        for image in images
    ]


def _key(model: MetaQAPModel, seen: str) -> str:
    """Of what a learner's features depend on: its backbone, what it pools of that, and how images come to it."""
    learner = base_learners_of(model)[0]
    [described] = model.config.base_learners  # type: ignore[misc]
    lines = [
        f"pooled {seen} {described['backbone']} {described['stages']} {described['scales']}",
        f"{described['image_mean']} {described['image_std']}",
    ]
    return features_key("".join(f"{line}\n" for line in lines), learner.backbone)


__all__ = ["TOGETHER", "frozen_features"]
