"""Gradient steps on rated photographs: copies of the best learners are trained, and stand beside the adapted ones.

The photographs are cut into folds. For each fold a copy is trained on the others, from the learner as it was, and
stopped where it ranks the fold best. The weights of the folds' copies are then averaged to one learner. So each
photograph has a score by a copy that has not learned from it, and these scores say whether, and how much, the new
learners are to count beside the closed form.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from ..checkpoint_reading import read_model
from ..data.user_cache import user_cache
from ..inference.features import ImageFeatures, image_features
from ..inference.predicting import distinct_names
from ..inference.scorer import Scorer
from ..lineage import Stage, read_stages, write_stages
from ..modeling_metaqap import MetaQAPModel
from ..training.average import mean_of_models
from ..training.heads import fit_kernel_head, fit_ridge_head
from ..training.learner import base_learners_of
from ..training.loop import train
from ..training.recipe import Recipe
from ..training.run_folder import RunFolder
from ..training.settings import RunSettings
from ..training.splits import SetSplits, Splits
from .checkpoint_folder import save_checkpoint
from .finetuning_settings import FinetuningSettings
from .folds import share_out
from .residual_regression import CENTERS, COMPONENTS, FloatArray, IntArray, fit_residual, functions_of

# Penalties of the linear head to choose from, for each photograph. The kernel head's are those of the middle of what
# the closed form chooses from.
_RIDGE_PENALTIES = (0.1, 0.3, 1.0, 3.0)
_GAMMA, _PENALTY = 0.5, 0.5

# The new learners' share in the score, at most: those that they came from know more kinds of photographs.
_MOST = 0.9


@dataclass(frozen=True)
class Finetuned:
    """Fine-tuned learners, and what copies of them say of photographs that they have not learned from.

    Attributes:
        models: m learners.
        parts: rows of the photographs that were held out together.
        scores, distances: `(n, m)`, as in `MetaQAPOutput`; NaN for photographs that were never held out.
        record: what `adaptation.json` says of the runs.
        folder: of the runs.
    """

    models: list[MetaQAPModel]
    parts: list[IntArray]
    scores: FloatArray
    distances: FloatArray
    record: dict[str, Any]
    folder: Path

    @property
    def rows(self) -> IntArray:
        """Rows of all the photographs that were held out."""
        return np.sort(np.concatenate(self.parts))


@dataclass(frozen=True)
class Share:
    """How much fine-tuned learners count.

    Attributes:
        value: of them all in the score, in [0, 1).
        mixed: `(n,)`, quality with that share; each photograph's share is fitted to the other parts.
        helps: whether the squared errors are smaller than without them by more than chance.
    """

    value: float
    mixed: FloatArray
    helps: bool


def best_learners(
    scores: FloatArray, quality: FloatArray, bases: Sequence[Any], features: Sequence[FloatArray], *, count: int
) -> list[int]:
    """Positions of the learners whose features alone predict left out ratings best.

    Args:
        scores, quality: `(n,)`, of the checkpoint and the ratings.
        bases, features: of all learners, see `functions_of`.
        count: how many; all of them if there are fewer.
    """
    rows = np.arange(len(quality))
    losses = []
    for basis, own in zip(bases, features, strict=True):
        fit = fit_residual(scores, quality, functions_of([basis], [own]), rows)
        losses.append(float(np.square(fit.left_out - quality).mean()))
    return sorted(np.argsort(losses)[:count].tolist())


def finetune_learners(
    model: MetaQAPModel,
    chosen: Sequence[int],
    features: ImageFeatures,
    quality: FloatArray,
    *,
    paths: Sequence[Path],
    stage: Stage,
    groups: IntArray,
    settings: FinetuningSettings,
    seed: int,
    batch_size: int = 8,
    runs_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    on_run: Callable[[str, int, int], None] = lambda learner, fold, folds: None,
) -> Finetuned:
    """Fine-tune some learners of a model on rated photographs; a run that was interrupted goes on where it was.

    Args:
        model: is not changed.
        chosen: positions of the learners.
        features: of the n photographs.
        quality: `(n,)`, ratings in [0, 1].
        paths: of the photographs.
        stage: what is added to the lineage of the learners.
        groups: `(n,)`, numbers that versions of one photograph share.
        settings: of the runs.
        seed: of everything random.
        batch_size: crops in one pass where nothing is trained.
        runs_dir: where the runs are kept; default `finetuning` in `user_cache()`.
        cache_dir: see `image_features`.
        on_run: is told of each run that begins: learner, number and number of folds.

    Raises:
        MetaQAPError: see `train`.
    """
    device = next(model.parameters()).device
    parts = share_out(groups, folds=settings.folds, seed=seed)[: settings.runs_for(len(quality))]
    photographs = _rows(paths, features.digests, quality, groups)
    work = runs_folder(features, quality, groups, settings, seed, started_from=stage.started_from, runs_dir=runs_dir)
    learners = model.base_models()
    taken = [learner["name"] for learner in model.config.base_learners]  # type: ignore[union-attr]
    names = distinct_names([*taken, *(f"{taken[position]} fine-tuned" for position in chosen)])[len(taken) :]

    def pooled(checkpoint: Path) -> Tensor:
        scorer = Scorer(checkpoint, device=str(device), batch_size=batch_size)
        return torch.from_numpy(image_features(scorer, paths, cache_dir=cache_dir).pooled[0]).double()

    targets = torch.from_numpy(quality)
    models, columns, record = [], [], []
    for name, position in zip(names, chosen, strict=True):
        start = work / f"learner_{position}" / "start"
        save_checkpoint(learners[position], start)
        recipe = _recipe(learners[position], stage, settings, seed)
        trained = []
        for number, held_out in enumerate(parts, start=1):
            on_run(name, number, len(parts))
            run = work / f"learner_{position}" / f"fold_{number}"
            others = np.setdiff1d(np.arange(len(quality)), held_out)
            train(
                recipe,
                RunSettings(
                    output_dir=str(run),
                    init=str(start),
                    cpu=device.type == "cpu",
                    num_workers=settings.num_workers,
                    logging_steps=10,
                    resume_from_checkpoint="latest",
                ),
                splits=_splits(recipe, photographs.select(others), photographs.select(held_out)),
            )
            trained.append(run)
        copies = [(read_model(run / "best"), pooled(run / "best")) for run in trained]
        penalty, scores, distances = _choose_heads(copies, parts, targets, seed=seed)
        mean = work / f"learner_{position}" / "mean"
        # Rounded as it will be stored, so that the heads make up for it.
        save_checkpoint(mean_of_models([copy for copy, _ in copies]), mean)
        learner = read_model(mean)
        _fit_heads(learner, pooled(mean), targets, penalty=penalty, seed=seed)
        [described] = learner.config.base_learners  # type: ignore[misc]
        [before] = learners[position].config.base_learners  # type: ignore[misc]
        described |= {"name": name, "lineage": write_stages([*read_stages(before["lineage"]), stage])}
        models.append(learner)
        columns.append((scores, distances))
        record.append(
            {
                "name": name,
                "epochs": [_best_epoch(run) for run in trained],
                "ridge_penalty": penalty,
                "folds": len(parts),
            }
        )
    return Finetuned(
        models,
        parts,
        np.column_stack([scores for scores, _ in columns]),
        np.column_stack([distances for _, distances in columns]),
        {"learners": record, "settings": asdict(settings)},
        work,
    )


def fit_share(closed: FloatArray, tuned: FloatArray, quality: FloatArray, parts: Sequence[IntArray]) -> Share:
    """How much fine-tuned learners are to count beside the closed form, by least squares.

    Args:
        closed, tuned: `(n,)`, quality of each photograph by the closed form and by the fine-tuned learners, neither
            of which has seen its rating.
        quality: `(n,)`, ratings.
        parts: rows whose share is fitted to all others; if there is only one part, to itself.
    """
    mixed = np.empty(len(quality))
    for part in parts:
        others = np.setdiff1d(np.concatenate(parts), part)
        share = _share(closed, tuned, quality, others if len(others) else part)
        mixed[part] = closed[part] + share * (tuned[part] - closed[part])
    rows = np.concatenate(parts)
    gain = np.square(closed - quality)[rows] - np.square(mixed - quality)[rows]
    helps = bool(gain.mean() > gain.std() / np.sqrt(len(gain)))
    return Share(_share(closed, tuned, quality, rows), mixed, helps)


def with_finetuned(adapted: MetaQAPModel, models: Sequence[MetaQAPModel], share: float) -> MetaQAPModel:
    """An adapted model with fine-tuned learners beside its own; it is not calibrated.

    Args:
        adapted: is not changed.
        models: m learners that count equally.
        share: of all of them in the score, in (0, 1).
    """
    meta_learner: Any = adapted.meta_learner
    weights = [(1 - share) * weight for weight in meta_learner.weight.tolist()]
    ensemble = MetaQAPModel.from_base_models(
        [*adapted.base_models(), *models],
        weights=[*weights, *[share / len(models)] * len(models)],
        intercept=(1 - share) * meta_learner.intercept.item(),
    )
    ensemble.config.lineage = adapted.config.lineage
    return ensemble


def runs_folder(
    features: ImageFeatures,
    quality: FloatArray,
    groups: IntArray,
    settings: FinetuningSettings,
    seed: int,
    *,
    started_from: str | None,
    runs_dir: str | Path | None,
) -> Path:
    """Where the runs on these very ratings, from these weights and with these settings, are kept."""
    told = [features.digests, quality.tolist(), groups.tolist(), asdict(settings), seed, started_from]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return Path(runs_dir or user_cache() / "finetuning") / digest


def _rows(paths: Sequence[Path], digests: Sequence[str], quality: FloatArray, groups: IntArray) -> datasets.Dataset:
    """The photographs as a run takes them. Their files stay where they are."""
    columns = {
        "image": [str(path) for path in paths],
        "image_id": list(digests),
        "quality": quality.tolist(),
        "reference_id": [str(group) for group in groups],
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))


def _recipe(learner: MetaQAPModel, stage: Stage, settings: FinetuningSettings, seed: int) -> Recipe:
    [described] = learner.config.base_learners  # type: ignore[misc]
    return Recipe(
        backbone=described["backbone"],
        stages=described["stages"],
        dataset=str(stage.dataset),
        epochs=settings.epochs,
        patience=settings.patience,
        batch_size=settings.batch_size,
        crop_size=settings.crop_size,
        learning_rate=settings.learning_rate,
        ema_decay=settings.ema_decay,
        freeze_stages=settings.freeze_stages,
        seed=seed,
    )


def _splits(recipe: Recipe, training: datasets.Dataset, validation: datasets.Dataset) -> Splits:
    # The rated photographs are in memory, so nobody has to know where they are.
    return Splits((SetSplits(training=training, validation=validation, source=recipe.sets[0], where={}),))


def _choose_heads(
    copies: Sequence[tuple[MetaQAPModel, Tensor]], parts: Sequence[IntArray], targets: Tensor, *, seed: int
) -> tuple[float, FloatArray, FloatArray]:
    """The penalty of the linear head by which copies score what was held out from them best; scores and distances."""
    best: tuple[float, float, FloatArray, FloatArray] | None = None
    rows = np.concatenate(parts)
    for penalty in _RIDGE_PENALTIES:
        scores, distances = np.full((2, len(targets)), np.nan)
        for (copy, pooled), held_out in zip(copies, parts, strict=True):
            others = np.setdiff1d(np.arange(len(targets)), held_out)
            _fit_heads(copy, pooled[others], targets[others], penalty=penalty, seed=seed)
            learner = base_learners_of(copy)[0]
            with torch.no_grad():
                said = learner.score_and_distance(learner.standardize(pooled[held_out].float()))
            scores[held_out], distances[held_out] = (values.double().numpy() for values in said)
        loss = float(np.square(scores[rows] - targets.numpy()[rows]).mean())
        if best is None or loss < best[0]:
            best = loss, penalty, scores, distances
    assert best is not None
    return best[1:]


def _fit_heads(model: MetaQAPModel, pooled: Tensor, targets: Tensor, *, penalty: float, seed: int) -> None:
    """A linear head and Gaussians in closed form.

    The Gaussians are a residual head: a learner's own kernel head says how far a photograph is from those that it
    learned from, and these very photographs would be at no distance.
    """
    fit_ridge_head(model, pooled, targets, penalty=penalty)
    fit_kernel_head(
        model,
        pooled,
        targets,
        num_components=COMPONENTS,
        num_centers=CENTERS,
        gamma=_GAMMA,
        penalty=_PENALTY,
        seed=seed,
    )
    learner = base_learners_of(model)[0]
    [described] = model.config.base_learners  # type: ignore[misc]
    assert learner.kernel_head is not None
    learner.residual_heads.append(learner.kernel_head)
    described |= {"residual_heads": [described["kernel_head"]], "kernel_head": None}
    learner.kernel_head = None


def _share(closed: FloatArray, tuned: FloatArray, quality: FloatArray, rows: IntArray) -> float:
    step = (tuned - closed)[rows]
    share = (quality - closed)[rows] @ step / max(float(step @ step), 1e-12)
    return float(np.clip(share, 0, _MOST))


def _best_epoch(run: Path) -> int:
    """The epoch whose model was kept, from 1."""
    rows = [row for row in RunFolder(run).rows() if "validation_srocc" in row]
    return int(max(rows, key=lambda row: row["validation_srocc"])["epoch"])


__all__ = ["Finetuned", "Share", "best_learners", "finetune_learners", "fit_share", "runs_folder", "with_finetuned"]
