"""Scores of a whole data set and the record of how they were made."""

import hashlib
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from PIL import Image

from .release import weights_sha256
from .scoring import Scorer
from .version import __version__


class EvaluationError(ValueError):
    """A data set that cannot be scored completely; the message names the image."""


def predict(scorer: Scorer, dataset: datasets.Dataset) -> npt.NDArray[np.float64]:
    """`(n,)` predicted quality of the images of an IQA data set, in its order.

    Raises:
        EvaluationError: for an image that cannot be read; a figure without it would be one of another data set.
    """
    return np.array([record.quality for record in _score_all(scorer, dataset)])


def predict_base_scores(scorer: Scorer, dataset: datasets.Dataset) -> npt.NDArray[np.float64]:
    """`(n, K)` scores of the single base learners."""
    return np.array([record.base_scores for record in _score_all(scorer, dataset)])


def _score_all(scorer: Scorer, dataset: datasets.Dataset) -> Iterator[Any]:
    for row, record in enumerate(scorer.score(_images(dataset))):
        if record.error is not None:
            raise EvaluationError(f"The image {dataset[row]['image_id']} cannot be scored: {record.error}.")
        yield record


def _images(dataset: datasets.Dataset) -> Iterable[Image.Image]:
    return (row["image"] for row in dataset.select_columns("image"))


def image_list_sha256(dataset: datasets.Dataset) -> str:
    """SHA-256 of the image ids, one a line, in order: two results with the same hash are about the same images."""
    return hashlib.sha256("".join(f"{name}\n" for name in dataset["image_id"]).encode()).hexdigest()


def software_versions() -> dict[str, str]:
    """Versions of what a score depends on."""
    names = ("torch", "torchvision", "timm", "transformers", "pillow", "numpy", "datasets")
    return {"python": platform.python_version(), "metaqap": __version__} | {name: version(name) for name in names}


__all__ = [
    "EvaluationError",
    "image_list_sha256",
    "predict",
    "predict_base_scores",
    "software_versions",
    "weights_sha256",
]
