"""Features and scores of photographs by each learner of a checkpoint, computed once and kept on disk."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..data.feature_shards import features_key, read_shards, write_shard
from ..data.iqa_datasets.files import file_sha256
from ..data.user_cache import user_cache
from ..errors import MetaQAPError
from ..modeling_metaqap import MetaQAPBaseLearner, MetaQAPModel
from .scorer import Prepared, Scorer

FloatArray = npt.NDArray[np.float64]

#: Photographs that are computed, and written to disk, together.
TOGETHER = 64


@dataclass(frozen=True)
class ImageFeatures:
    """Of the n photographs that can be read, by K base learners.

    Attributes:
        rows: positions of the n photographs among all that were given.
        digests: SHA-256 of each file.
        pooled: for each learner `(n, F)` float32, before standardisation; the mean over the crops.
        base_scores, distances: `(n, K)`, as in `MetaQAPOutput`.
    """

    rows: list[int]
    digests: list[str]
    pooled: list[npt.NDArray[np.float32]]
    base_scores: FloatArray
    distances: FloatArray

    def standardized(self, model: MetaQAPModel) -> list[FloatArray]:
        """Features by each learner with zero mean and unit variance over its own training images, `(n, F)`."""
        return [
            (rows - learner.feature_mean.double().cpu().numpy()) / learner.feature_std.double().cpu().numpy()
            for rows, learner in zip(self.pooled, _learners(model), strict=True)
        ]

    def quality(self, model: MetaQAPModel) -> FloatArray:
        """The model's score of each photograph, `(n,)`."""
        meta_learner = model.meta_learner
        weight, intercept = meta_learner.weight.double().cpu().numpy(), meta_learner.intercept.item()
        return np.asarray(self.base_scores @ weight + intercept)


def image_features(
    scorer: Scorer,
    paths: Sequence[Path],
    *,
    cache_dir: str | Path | None = None,
    together: int = TOGETHER,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[Path, str], None] = lambda path, reason: None,
) -> ImageFeatures:
    """Features of photographs, as the heads of the learners get them; what is on disk is not computed again.

    An interrupted run keeps what it has done. A photograph is known by what its file holds, whatever its name, and a
    checkpoint by all its weights and by what its image processor shows it.

    Args:
        scorer: with PyTorch, in float32.
        paths: of the photographs.
        cache_dir: default `features` in `user_cache()`.
        together: photographs that are computed, and written to disk, before `on_progress` is called.
        on_progress: gets the numbers of photographs that are done and of all.
        on_unreadable: gets each photograph that cannot be read, and the reason in a few words; it is left out.

    Raises:
        MetaQAPError: if none of the photographs can be read.
        OSError: if the cache cannot be written.
    """
    unreadable: dict[int, str] = {}
    digests: dict[int, str] = {}
    for row, path in enumerate(paths):
        try:
            digests[row] = file_sha256(path)
        except OSError as error:
            unreadable[row] = (error.strerror or str(error)).lower()
    folder = Path(cache_dir or user_cache() / "features") / _key(scorer)
    folder.mkdir(parents=True, exist_ok=True)
    known = read_shards(folder, set(digests.values()))
    path_of = {digest: paths[row] for row, digest in digests.items()}
    reasons: dict[str, str] = {}
    todo = [digest for digest in path_of if digest not in known]
    on_progress(len(path_of) - len(todo), len(path_of))
    with ThreadPoolExecutor(scorer.num_workers) as pool:
        for start in range(0, len(todo), together):
            batch = todo[start : start + together]
            read = dict(zip(batch, pool.map(scorer.prepare, [path_of[digest] for digest in batch]), strict=True))
            reasons |= {digest: one.record.error for digest, one in read.items() if one.record.error is not None}
            if prepared := {digest: one for digest, one in read.items() if digest not in reasons}:
                columns = _compute(scorer, list(prepared.values()))
                write_shard(folder, list(prepared), columns)
                known |= dict(zip(prepared, zip(*columns, strict=True), strict=True))
            on_progress(len(path_of) - len(todo) + start + len(batch), len(path_of))
    unreadable |= {row: reasons[digest] for row, digest in digests.items() if digest in reasons}
    for row, reason in sorted(unreadable.items()):
        on_unreadable(paths[row], reason)
    rows = [row for row in range(len(paths)) if row not in unreadable]
    if not rows:
        raise MetaQAPError(f"None of the photographs can be read; of {paths[0]}: {unreadable[0]}.")
    kept = [digests[row] for row in rows]
    *pooled, base_scores, distances = (
        np.stack(column) for column in zip(*(known[digest] for digest in kept), strict=True)
    )
    return ImageFeatures(rows, kept, pooled, base_scores.astype(np.float64), distances.astype(np.float64))


@torch.inference_mode()
def _compute(scorer: Scorer, prepared: Sequence[Prepared]) -> list[np.ndarray]:
    """Pooled features by each learner `(n, F)`, and then the base scores and the distances `(n, K)`."""
    model = scorer.model
    device = next(model.parameters()).device
    crops = [(row, crop) for row, one in enumerate(prepared) for crop in one.crops]  # type: ignore[union-attr]
    of_learner: list[list[torch.Tensor]] = [[] for _ in model.base_learners]
    for start in range(0, len(crops), scorer.batch_size):
        pixels = torch.from_numpy(np.stack([crop for _, crop in crops[start : start + scorer.batch_size]]))
        values = pixels.to(device, memory_format=torch.channels_last).float() / 255
        for pooled, learner in zip(of_learner, _learners(model), strict=True):
            pooled.append(learner.pool(learner.stage_activations(values)))
    owners = torch.tensor([row for row, _ in crops])
    rows, scores, distances = [], [], []
    for pooled, learner in zip(of_learner, _learners(model), strict=True):
        features = torch.cat(pooled)
        rows.append(_means(features.cpu(), owners).numpy())
        # Before averaging: the heads are no straight lines.
        score, distance = learner.score_and_distance(learner.standardize(features))
        scores.append(_means(score.cpu(), owners))
        distances.append(_means(distance.cpu(), owners))
    return [*rows, torch.stack(scores, dim=1).numpy(), torch.stack(distances, dim=1).numpy()]


def _means(values: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """The mean over each owner's rows."""
    counts = torch.bincount(owners)
    sums = torch.zeros(len(counts), *values.shape[1:]).index_add_(0, owners, values)
    return sums / counts.view(-1, *[1] * (values.ndim - 1))


def _learners(model: MetaQAPModel) -> Iterable[MetaQAPBaseLearner]:
    return model.base_learners  # type: ignore[return-value]


def _key(scorer: Scorer) -> str:
    """Of all the weights, of what each learner's weights are the weights of, and of what they see of an image."""
    seen, learners = scorer.seen, scorer.model.config.base_learners
    # The first word says what is kept of a photograph.
    lines = [f"distances {seen.shortest_edge} {seen.crop_size} {seen.resample}"]
    lines += [f"{learner['backbone']} {learner['stages']} {learner['scales']}" for learner in learners]  # type: ignore[union-attr]
    return features_key("".join(f"{line}\n" for line in lines), scorer.model)


__all__ = ["TOGETHER", "ImageFeatures", "image_features"]
