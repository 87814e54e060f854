"""Fusing trained base learners into one checkpoint: scores of images that they have not seen, and a regression."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from ..checkpoint_reading import read_model
from ..data.accelerate_state import main_process_first
from ..data.atomic import write_atomically
from ..data.iqa_datasets import hold_out, load_training_split, raters_scale
from ..data.rating_options import RatingOptions
from ..data.seen import refuse_seen
from ..errors import MetaQAPError
from ..evaluation.metrics import evaluate_scores
from ..inference.predicting import distinct_names, predict, process_scorer
from ..lineage import Stage, image_ids_sha256, learner_stages, rated_images, weights_sha256, write_stages
from ..modeling_metaqap import MetaQAPModel
from .checkpoint_folder import FIT_FILE, save_checkpoint
from .conformal import conformal_radius
from .stepwise import StepwiseFit, cross_fitted, fit_stepwise
from .widths import fit_widths

#: In a learner's path, stands for the number of its fold, from 1.
FOLD_PLACEHOLDER = "{fold}"


@dataclass(frozen=True, kw_only=True)
class FusionSettings:
    """What is fused on which images.

    Attributes:
        models: folders of base learners that enter the regression one by one, or of ensembles of such.
        means: groups of such folders, whose learners enter the regression together, as their mean.
        names: for people to tell the learners apart, those of `means` last; default their own.
        dataset: name of the data set with the opinion scores.
        split: of it; images that no learner was trained on or, with folds, those that were cut into folds.
        folds: number of folds that the learners were trained on, 0 for none. `{fold}` in a path stands for 1 to this
            number. Each image is scored by the learner that it was held out from.
        shrinkage: see `shrink`.
        coverage: share of opinion scores that the prediction interval is to hold, in (0, 1).
        n_bootstrap: draws of the bootstrap for the figures; 0 leaves their intervals out.
        data_dir, cache_dir: see `load_iqa_dataset`.
        ratings: how the CSV file of the data set "folder" is to be read.
        device: such as "cuda:1"; default that of this process.
    """

    models: Sequence[str] = ()
    means: Sequence[Sequence[str]] = ()
    names: Sequence[str] | None = None
    dataset: str
    split: str
    folds: int = 0
    shrinkage: float = 0.0
    coverage: float = 0.9
    n_bootstrap: int = 1000
    data_dir: str | None = None
    cache_dir: str | None = None
    ratings: RatingOptions = RatingOptions()
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.paths:
            raise MetaQAPError("There are no base learners to fuse.")
        if self.folds < 0 or self.folds == 1:
            raise MetaQAPError(f"There must be at least 2 folds, got {self.folds}.")
        if not 0 <= self.shrinkage <= 1:
            raise MetaQAPError(f"The shrinkage must lie in [0, 1], got {self.shrinkage}.")
        if not 0 < self.coverage < 1:
            raise MetaQAPError(f"The coverage must lie between 0 and 1, got {self.coverage}.")
        if wrong := [path for path in self.paths if (FOLD_PLACEHOLDER in path) != bool(self.folds)]:
            raise MetaQAPError(
                f"Folds and {FOLD_PLACEHOLDER} in the path of every learner go together, not so in {wrong[0]}."
            )

    @property
    def where(self) -> dict[str, Any]:
        """What `load_iqa_dataset` needs to know besides the name and the split."""
        return {"data_dir": self.data_dir, "cache_dir": self.cache_dir, **self.ratings.of_dataset(self.dataset)}

    @property
    def paths(self) -> list[str]:
        """All folders that are named, in order."""
        return [path for group in (self.models, *self.means) for path in group]


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """A fused ensemble and how it came about.

    Attributes:
        ensemble: the model, with its interval and its lineage.
        fit: the regression.
        record: what `fit.json` holds.
    """

    ensemble: MetaQAPModel
    fit: StepwiseFit
    record: dict[str, Any]

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint, and the record as `fit.json` beside it."""
        save_checkpoint(self.ensemble, folder)
        write_atomically(Path(folder) / FIT_FILE, (json.dumps(self.record, indent=2) + "\n").encode())


@dataclass(frozen=True)
class _Learner:
    """A base learner that may enter the regression.

    Attributes:
        name: for people.
        models: the learner of each fold, or the only one.
        paths: their checkpoints.
        column: which of a checkpoint's learners it is.
        weights_sha256: of the checkpoints.
    """

    name: str
    models: list[MetaQAPModel]
    paths: tuple[str, ...]
    column: int
    weights_sha256: list[str | None]

    @property
    def stages(self) -> list[list[Stage]]:
        """What the learner of each fold was made of."""
        return [learner_stages(model.config)[0] for model in self.models]


def fuse(settings: FusionSettings, *, announce: Callable[[str], None] = lambda text: None) -> Fusion:
    """Fit the meta-learner on scores of images that no learner was trained on, and calibrate its interval.

    Under `accelerate launch` the images are shared out, and every process gets the same fusion.

    Args:
        settings: what is fused on which images.
        announce: gets a sentence about what begins, and about what nobody can check.

    Raises:
        MetaQAPError: for learners that cannot be read or fused, that have seen the images, or for too few images.
        DataError: if the data set cannot be read.
        TestSplitError: for a split with test images.
        OSError: if there is no checkpoint in a folder.
    """
    dataset = main_process_first(lambda: load_training_split(settings.dataset, split=settings.split, **settings.where))
    targets = np.array(dataset["quality"])
    # All checks come before any image is scored, which takes minutes. This one: are there enough for an interval?
    conformal_radius(targets, targets, coverage=settings.coverage)
    learners, groups = _read_learners(settings)
    unseen = _unseen_images(dataset, settings)
    _check_lineages(learners, unseen, settings, announce)
    learner_scores, distances = _scores_of_unseen(learners, dataset, unseen, settings, announce)

    # What enters the regression: the learners of one group as their mean.
    entering = np.column_stack([learner_scores[:, group].mean(axis=1) for group in groups])
    options: dict[str, Any] = {"shrinkage": settings.shrinkage, "sizes": [len(group) for group in groups]}
    labels = [" + ".join(learners[position].name for position in group) for group in groups]
    fit = fit_stepwise(entering, targets, names=labels, **options)
    # Each image by a regression that has not seen it.
    cross = cross_fitted(entering, targets, **options)
    weights, regression_weights = (_of_each_learner(values, groups) for values in (fit.weights, fit.least_squares))

    ensemble = _merge(learners, weights, fit.intercept)
    kept = np.flatnonzero(weights)
    widths = fit_widths(cross, targets, learner_scores[:, kept], distances[:, kept], coverage=settings.coverage)
    widths.write_into(ensemble.config)
    ensemble.config.interval_coverage = settings.coverage
    rated = {learner.name: scores for learner, scores in zip(learners, learner_scores.T, strict=True)} | {
        "plain mean": learner_scores.mean(axis=1),
        "meta-learner": fit.predict(entering),
        "meta-learner, cross-fitted": cross,
    }
    figures = {
        name: evaluate_scores(scores, targets, n_bootstrap=settings.n_bootstrap) for name, scores in rated.items()
    }
    stage = _stage(settings, dataset, figures["meta-learner, cross-fitted"])
    ensemble.config.lineage = write_stages([stage])
    ensemble.config.mos_range = stage.mos_range
    record = {
        "dataset": settings.dataset,
        "split": settings.split,
        "folds": settings.folds,
        "images_sha256": image_ids_sha256(dataset["image_id"]),
        "base_models": [
            {
                "name": learner.name,
                # With folds, one for each.
                "weights_sha256": learner.weights_sha256 if settings.folds else learner.weights_sha256[0],
            }
            for learner in learners
        ],
        "shrinkage": settings.shrinkage,
        "weights": weights,
        "regression_weights": regression_weights,
        "intercept": fit.intercept,
        **asdict(widths),
        "interval_coverage": settings.coverage,
        "steps": [asdict(step) for step in fit.steps],
        "excluded": fit.excluded,
        "figures": figures,
    }
    return Fusion(ensemble=ensemble, fit=fit, record=record)


def _read_learners(settings: FusionSettings) -> tuple[list[_Learner], list[list[int]]]:
    """All learners, named, and the groups of them that enter the regression, by position."""
    learners: list[_Learner] = []
    groups: list[list[int]] = []
    # The learners of an ensemble in `models` enter one by one.
    for paths, as_one in [([path], False) for path in settings.models] + [(group, True) for group in settings.means]:
        added = [learner for path in paths for learner in _learners_in(path, settings.folds)]
        positions = list(range(len(learners), len(learners) + len(added)))
        groups += [positions] if as_one else [[position] for position in positions]
        learners += added
    if settings.names and len(settings.names) != len(learners):
        raise MetaQAPError(f"There are {len(learners)} base learners but {len(settings.names)} names.")
    names = distinct_names(settings.names or [learner.name for learner in learners])
    learners = [replace(learner, name=name) for learner, name in zip(learners, names, strict=True)]
    for learner in learners:
        for model in learner.models:
            model.config.base_learners[0]["name"] = learner.name  # type: ignore[index]
    return learners, groups


def _learners_in(path: str, folds: int) -> list[_Learner]:
    """The learners of a checkpoint, or of one for each fold; several where it is an ensemble."""
    paths = tuple(path.replace(FOLD_PLACEHOLDER, str(fold)) for fold in range(1, max(folds, 1) + 1))
    checkpoints = [read_model(one) for one in paths]
    if folds and any(model.config.num_base_learners > 1 for model in checkpoints):
        raise MetaQAPError(f"{paths[0]} is an ensemble; with folds, single base learners are fused.")
    hashes = [weights_sha256(one) for one in paths]
    of_folds = zip(*(checkpoint.base_models() for checkpoint in checkpoints), strict=True)
    return [
        _Learner(models[0].config.base_learners[0]["name"], list(models), paths, column, hashes)
        for column, models in enumerate(of_folds)
    ]


def _unseen_images(dataset: datasets.Dataset, settings: FusionSettings) -> list[datasets.Dataset]:
    """The images that the learner of each fold has not seen; all of them where there are no folds."""
    if not settings.folds:
        return [dataset]
    folds = range(1, settings.folds + 1)
    return [hold_out(dataset, f"fold {fold} of {settings.folds}", name=settings.dataset)[1] for fold in folds]


def _check_lineages(
    learners: list[_Learner],
    unseen: list[datasets.Dataset],
    settings: FusionSettings,
    announce: Callable[[str], None],
) -> None:
    """Refuse a learner that has learned from an image that it is to score, and name one that says nothing of it."""
    # Learners of one checkpoint are checked together, since its data sets have to be read for that.
    of_paths: dict[str, tuple[datasets.Dataset, list[Stage]]] = {}
    for learner in learners:
        for path, stages, images in zip(learner.paths, learner.stages, unseen, strict=True):
            if not stages:
                announce(f"{path} does not say what it was trained on, so it may have seen the images to be scored.")
            of_paths.setdefault(path, (images, []))[1].extend(stages)
    for path, (images, stages) in of_paths.items():
        refuse_seen(
            stages,
            images,
            weights=path,
            dataset=settings.dataset,
            **settings.where,
        )


def _scores_of_unseen(
    learners: list[_Learner],
    dataset: datasets.Dataset,
    unseen: list[datasets.Dataset],
    settings: FusionSettings,
    announce: Callable[[str], None],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores and distances `(n, K)` of all images, each by the learner of the fold that it was held out from.

    Without folds, by the only one.
    """
    row_of = {image_id: row for row, image_id in enumerate(dataset["image_id"])}
    # The learners of an ensemble share their checkpoint and are scored together.
    said_by: dict[tuple[str, ...], npt.NDArray[np.float64]] = {}
    for paths in dict.fromkeys(learner.paths for learner in learners):
        for path, images in zip(paths, unseen, strict=True):
            announce(f"Scoring {len(images):,} images with {path} ...")
            predictions = predict(process_scorer(path, device=settings.device), images)
            both = np.stack([predictions.base_scores, predictions.distances])
            said = said_by.setdefault(paths, np.full((2, len(dataset), both.shape[2]), np.nan))
            said[:, [row_of[image_id] for image_id in images["image_id"]]] = both
    scores, distances = np.stack([said_by[learner.paths][:, :, learner.column] for learner in learners], axis=2)
    return scores, distances


def _of_each_learner(weights: npt.NDArray[np.float64], groups: list[list[int]]) -> list[float]:
    """Weights of learners instead of means of several."""
    return [weight / len(group) for weight, group in zip(weights.tolist(), groups, strict=True) for _ in group]


def _merge(learners: list[_Learner], weights: list[float], intercept: float) -> MetaQAPModel:
    """One ensemble; the learners of all folds share the weight of their name."""
    of_folds = [
        (model, weight / len(learner.models))
        for learner, weight in zip(learners, weights, strict=True)
        for model in learner.models
    ]
    return MetaQAPModel.from_base_models(
        [model for model, _ in of_folds], weights=[weight for _, weight in of_folds], intercept=intercept
    )


def _stage(settings: FusionSettings, dataset: datasets.Dataset, figures: dict[str, Any]) -> Stage:
    return Stage(
        kind="fusion",
        **rated_images(
            settings.dataset,
            settings.split,
            dataset["image_id"],
            mos_range=raters_scale(settings.dataset, **settings.where),
        ),
        folds=settings.folds or None,
        shrinkage=settings.shrinkage,
        plcc=figures["plcc"]["value"],
        srocc=figures["srocc"]["value"],
    )


__all__ = ["FOLD_PLACEHOLDER", "Fusion", "FusionSettings", "fuse"]
