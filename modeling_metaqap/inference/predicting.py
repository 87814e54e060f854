"""Scores of all images of a data set, shared out among the processes of a launch."""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object

from ..data.accelerate_state import process_state
from ..errors import MetaQAPError
from ..interval_metaqap import Calibrated, interval_scale
from .records import ScoreRecord
from .scorer import Scorer


class ScoresImages(Protocol):
    """A [`Scorer`], or another method that gives records."""

    def score(self, images: Iterable[Any]) -> Iterator[ScoreRecord]: ...


class Predictions(NamedTuple):
    """Of n images by K base learners; K is 0 for a baseline.

    Args:
        quality: `(n,)`.
        base_scores: `(n, K)`, what each learner says alone.
        distances: `(n, K)`, to each learner's training images, see `MetaQAPOutput`.
    """

    quality: npt.NDArray[np.float64]
    base_scores: npt.NDArray[np.float64]
    distances: npt.NDArray[np.float64]


def predict(scorer: ScoresImages, dataset: datasets.Dataset) -> Predictions:
    """Scores of the images of an IQA data set, in its order; on every process of a launch.

    Raises:
        MetaQAPError: for an image that cannot be scored; a figure without it would be one of another data set.
    """
    state = process_state()
    rows = range(state.process_index, len(dataset), state.num_processes)
    records = scorer.score(_images(dataset.select(rows)))
    share = [
        (row, record.error, record.quality, record.base_scores or [], record.distances or [])
        for row, record in zip(rows, records, strict=True)
    ]
    scored = sorted(gather_object(share), key=lambda one: one[0])
    # Only now, so that no process is left waiting for another that has failed.
    for row, error, *_ in scored:
        if error is not None:
            name = dataset.select_columns("image_id")[row]["image_id"]  # the whole row would decode the image
            raise MetaQAPError(f"The image {name} cannot be scored: {error}.")
    return Predictions(*(np.array([one[column] for one in scored], dtype=np.float64) for column in (2, 3, 4)))


def interval_radii(
    calibrated: Calibrated, quality: npt.ArrayLike, base_scores: npt.ArrayLike, distances: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Half the width of the interval of each image, `(n,)`.

    Args:
        calibrated: configuration of a model that is calibrated, or its `Widths`.
        quality, base_scores, distances: see `Predictions`.
    """
    column = np.asarray(quality, dtype=np.float64)[:, None]
    tensors = [torch.from_numpy(np.asarray(values, dtype=np.float64)) for values in (column, base_scores, distances)]
    scale: npt.NDArray[np.float64] = interval_scale(calibrated, *tensors)[:, 0].double().numpy()
    return calibrated.interval_radius * scale  # type: ignore[operator]


def process_scorer(checkpoint: str, *, device: str | None = None, batch_size: int = 8) -> Scorer:
    """The scorer of a checkpoint on this process's device, unless another one is named.

    All batches have one size, so that a process's last one is computed as it is elsewhere.

    Raises:
        MetaQAPError: see `Scorer`.
    """
    device = device or str(process_state().device)
    return Scorer(checkpoint, device=device, batch_size=batch_size, pad_batches=True)


def _images(dataset: datasets.Dataset) -> Iterator[str | io.BytesIO]:
    """The images as they are stored: `datasets` would decode whatever they are, and fail at the first broken one."""
    stored = dataset.select_columns("image").cast_column("image", datasets.Image(decode=False))
    for row in stored:
        image = row["image"]
        yield image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names with a number behind those that were there before: `["a", "b", "a 2"]`."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name} {number}" for number in count(2))
        found.append(name if name not in found else next(other for other in numbered if other not in found))
    return found


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart: `["a/best", "b/best"]` stay as they are."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


__all__ = ["Predictions", "distinct_names", "interval_radii", "predict", "process_scorer", "short_names"]
