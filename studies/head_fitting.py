"""Heads that `compare_heads.py` fits in closed form on the features of a backbone, and their scores."""

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.training.heads import fit_kernel_head, fit_ridge_head, pooled_features
from modeling_metaqap.training.images import whole_images

#: Size of every kernel head.
COMPONENTS, CENTERS = 256, 10_000


@dataclass(frozen=True)
class Images:
    """Features `(n, F)` and quality `(n,)` of images, in float64."""

    features: Tensor
    qualities: Tensor

    def at(self, rows: Sequence[int]) -> "Images":
        return Images(self.features[rows], self.qualities[rows])


def features_of(
    dataset: datasets.Dataset, name: str, model: MetaQAPModel, init: str | None, args: argparse.Namespace
) -> Images:
    """Pooled features and quality of all images, the features from the file `name` in `--features` if they are there.

    The quality of distorted images is their pseudo opinion score.
    """
    qualities = torch.tensor(dataset["quality"], dtype=torch.float64)
    columns = ("reference_id", "distortion", "level") if "distortion" in dataset.column_names else ("image_id",)
    described = {
        "backbone": args.backbone,
        "scales": args.scales,
        "init": None if init is None else weights_sha256(init),
        "crop_size": args.crop_size,
        "images": list(zip(*(dataset[column] for column in (*columns, "quality")), strict=True)),
    }
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    file = None if args.features is None else args.features / f"{name}.npz"
    if file is not None and file.exists():
        with np.load(file) as stored:
            if str(stored["sha256"]) != digest:
                raise MetaQAPError(f"{file} holds features of another learner or of other images; remove it.")
            return Images(torch.from_numpy(stored["features"]).double(), qualities)
    images = whole_images(dataset, distorted_crop_size=args.crop_size)
    loader = DataLoader(images, batch_size=8, collate_fn=MetaQAPImageProcessor.collate, num_workers=args.num_workers)
    device = torch.device(args.device)
    model.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features = pooled_features(model, loader, device=device)[0].float()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=features.numpy(), sha256=digest)
    return Images(features.double(), qualities)


@dataclass(frozen=True)
class Head:
    """Settings; no penalty means generalised cross-validation, no gamma no kernel head."""

    penalty: float | None = None
    gamma: float | None = None
    distorted_weight: float = 0.0

    def __str__(self) -> str:
        name = "linear, " + ("cross-validated" if self.penalty is None else f"penalty {self.penalty:g}")
        if self.distorted_weight:
            name += f", distorted images {self.distorted_weight:g}"
        return name if self.gamma is None else f"{name}, and kernel, gamma {self.gamma:g}"


def heads(penalties: list[float], gammas: list[float], weights: list[float]) -> list[Head]:
    """All heads; a linear one comes right before the kernel heads that are added to it."""
    return [Head(), *(Head(p, gamma, w) for w, p, gamma in product((0.0, *weights), penalties, (None, *gammas)))]


@torch.no_grad()
def fit(model: MetaQAPModel, head: Head, training: Images, distorted: Images | None, kernel_penalty: float) -> None:
    """Fit the linear head, or the kernel head of a learner that has the linear one."""
    if head.gamma is None:
        fit_ridge_head(
            model,
            training.features,
            training.qualities,
            penalty=head.penalty,
            distorted=None if distorted is None else (distorted.features, distorted.qualities),
            distorted_weight=head.distorted_weight,
        )
        return
    fit_kernel_head(
        model,
        training.features,
        training.qualities,
        num_components=COMPONENTS,
        num_centers=CENTERS,
        gamma=head.gamma,
        penalty=kernel_penalty,
        seed=0,
    )


@dataclass(frozen=True)
class Backbone:
    """A learner whose heads are fitted, and its features of all rated images and of all distorted ones."""

    model: MetaQAPModel
    photographs: Images
    distorted: Images | None
    distorted_unseen: Images | None


@dataclass(frozen=True)
class Material:
    """What heads on a learner are fitted on for one place, and the unseen images to measure on, by column."""

    model: MetaQAPModel
    learned: Images
    distorted: Images | None
    columns: dict[str, Images]


@torch.no_grad()
def fitted_scores(head: Head, material: Material, kernel_penalty: float) -> dict[str, Tensor]:
    """Fit a head; its scores `(n,)` of the unseen images of each column, in float64."""
    fit(material.model, head, material.learned, material.distorted, kernel_penalty)
    learner: Any = material.model.base_learners[0]
    return {
        column: learner.score(learner.standardize(unseen.features.float())).double()
        for column, unseen in material.columns.items()
    }


def write_scores(path: Path, scores: dict[str, dict[str, Tensor]], unseen: dict[str, datasets.Dataset]) -> None:
    """A CSV file with a row for each place and image: `place`, `image_id`, `quality`, and a column for each head.

    Args:
        scores: of each place, by head, `(n,)`.
        unseen: the n images of each place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "image_id", "quality", *next(iter(scores.values()))])
        for place, by_head in scores.items():
            columns = (
                unseen[place]["image_id"],
                unseen[place]["quality"],
                *(head.tolist() for head in by_head.values()),
            )
            writer.writerows((place, *row) for row in zip(*columns, strict=True))
