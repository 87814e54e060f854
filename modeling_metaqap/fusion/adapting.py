"""Adapting a checkpoint to a person's own ratings: minutes for the features, and seconds for heads in closed form.

On request learners are fine-tuned beside that, see `finetuning`.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import DEFAULT_CHECKPOINT
from ..data.atomic import write_atomically
from ..data.rating_options import RatingOptions
from ..data.ratings import Ratings, read_ratings
from ..errors import MetaQAPError
from ..evaluation.metrics import evaluate_scores
from ..inference.features import TOGETHER, ImageFeatures, image_features
from ..inference.scorer import Scorer
from ..interval_metaqap import Calibrated
from ..lineage import (
    Stage,
    all_stages,
    image_hashes,
    image_ids_sha256,
    read_stages,
    shares_images,
    weights_sha256,
    write_stages,
)
from ..modeling_metaqap import MetaQAPKernelHead, MetaQAPModel
from .adapted_card import adapted_card, can_be_drawn
from .checkpoint_folder import ADAPTATION_FILE, CARD_FILE, CURVE_FILE, save_checkpoint
from .expectation import choose_fit, cross_validated, learning_curve
from .finetuning_settings import FEWEST_TO_FINETUNE, FinetuningSettings
from .residual_regression import (
    CENTERS,
    Basis,
    Fit,
    FloatArray,
    IntArray,
    draw_centers,
    fit_basis,
    functions_of,
)
from .widths import more_learners, recalibrated_widths

#: With fewer ratings nothing can be said about what they bring.
FEWEST = 15


@dataclass(frozen=True, kw_only=True)
class AdaptationSettings:
    """How a checkpoint is adapted.

    Attributes:
        centers: photographs that Gaussians stand on, at most.
        coverage: share of opinion scores that the prediction interval is to hold, in (0, 1).
        folds: of the cross-validation.
        draws: of the learning curve; 0 leaves it out.
        n_bootstrap: draws of the bootstrap for the figures; 0 leaves their intervals out.
        seed: of everything that is drawn.
    """

    centers: int = CENTERS
    coverage: float = 0.9
    folds: int = 10
    draws: int = 10
    n_bootstrap: int = 1000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """An adapted checkpoint and what to expect of it.

    Attributes:
        model: with its interval and its lineage.
        record: what `adaptation.json` holds: which ratings, what was fitted, the figures before and after by
            cross-validation, and the learning curve.
        runs: folder of the runs that fine-tuned learners come from, if there are any.
    """

    model: MetaQAPModel
    record: dict[str, Any]
    runs: Path | None = None

    @property
    def conclusion(self) -> str:
        """One sentence on what the ratings brought."""
        return str(self.record["conclusion"])

    def forget_runs(self) -> None:
        """Remove the folder of the runs: all that is needed of them is in the model. It holds gigabytes."""
        if self.runs is not None:
            shutil.rmtree(self.runs, ignore_errors=True)

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint, and beside it the record, a model card and, from 21 ratings on, a plot.

        The plot is that of the learning curve.

        Raises:
            OSError: if something cannot be written.
        """
        folder = Path(folder)
        save_checkpoint(self.model, folder)
        write_atomically(folder / ADAPTATION_FILE, (json.dumps(self.record, indent=2) + "\n").encode())
        if can_be_drawn(self.record["learning_curve"]):
            from .adapted_plot import plot_learning_curve

            plot_learning_curve(self.record, folder / CURVE_FILE)
        write_atomically(folder / CARD_FILE, adapted_card(self.model.config, self.record, folder.name).encode())


def adapt(
    folder: str | Path,
    csv: str | Path | None = None,
    *,
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    image_column: str | None = None,
    mos_column: str | None = None,
    mos_range: tuple[float, float] | None = None,
    lower_is_better: bool = False,
    settings: AdaptationSettings | None = None,
    finetune: bool | FinetuningSettings = False,
    runs_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[Path, str], None] = lambda path, reason: None,
    on_run: Callable[[str, int, int], None] = lambda learner, fold, folds: None,
) -> Adaptation:
    """Adapt a checkpoint to a person's own ratings.

    The backbones stay as they are. The shipped score is what is known before; the ratings give it a scale, and heads
    in closed form add what it leaves over. Where they do not help, they are left out. With `finetune` copies of the
    best learners are then trained on the photographs, and stand beside the others if that helps.

    Args:
        folder: with the photographs.
        csv, image_column, mos_column, mos_range, lower_is_better: of the ratings, see `RatingOptions`.
        checkpoint: folder or Hub id to begin with.
        settings: default `AdaptationSettings()`.
        finetune: whether to take gradient steps too, or how. It takes hours on a CPU. When it was interrupted, the
            same call goes on where it was.
        runs_dir, on_run: see `finetune_learners`.
        cache_dir, on_progress, on_unreadable: see `image_features`.
        device, batch_size: see `Scorer`.

    Raises:
        MetaQAPError: for ratings that cannot be used, or too few of them, in one sentence.
        DataError: see `read_ratings`.

    Example:

    ```python
    >>> from modeling_metaqap import adapt

    >>> adaptation = adapt("photographs", "ratings.csv", mos_range=(1, 5))
    >>> adaptation.save("my-metaqap")
    ```
    """
    ratings = read_ratings(
        folder,
        RatingOptions(
            csv=csv,
            image_column=image_column,
            mos_column=mos_column,
            mos_range=mos_range,
            lower_is_better=lower_is_better,
        ),
    )
    finetuning = FinetuningSettings() if finetune is True else finetune or None
    _refuse_too_few(ratings, finetuning)
    return adapt_to_ratings(
        Scorer(checkpoint, device=device, batch_size=batch_size),
        ratings,
        started_from=weights_sha256(checkpoint),
        settings=settings,
        finetuning=finetuning,
        runs_dir=runs_dir,
        cache_dir=cache_dir,
        on_progress=on_progress,
        on_unreadable=on_unreadable,
        on_run=on_run,
    )


def adapt_to_ratings(
    scorer: Scorer,
    ratings: Ratings,
    *,
    started_from: str | None = None,
    settings: AdaptationSettings | None = None,
    finetuning: FinetuningSettings | None = None,
    runs_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    together: int = TOGETHER,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[Path, str], None] = lambda path, reason: None,
    on_run: Callable[[str, int, int], None] = lambda learner, fold, folds: None,
) -> Adaptation:
    """As `adapt`, for a checkpoint that is loaded and ratings that have been read.

    Args:
        scorer: of the checkpoint, with PyTorch in float32; photographs over its limits count as unreadable.
        ratings: see `read_ratings`.
        started_from: SHA-256 of the checkpoint's weight file.
        settings: default `AdaptationSettings()`.
        finetuning: how learners are fine-tuned; None for not at all.
        runs_dir, on_run: see `finetune_learners`.
        cache_dir, together, on_progress, on_unreadable: see `image_features`.

    Raises:
        MetaQAPError: see `adapt`.
    """
    _refuse_too_few(ratings, finetuning)
    features = image_features(
        scorer,
        ratings.paths,
        cache_dir=cache_dir,
        together=together,
        on_progress=on_progress,
        on_unreadable=on_unreadable,
    )
    ratings = ratings.select(features.rows)
    _refuse_twins(ratings, features.digests)
    return adapt_to_features(
        scorer.model,
        features,
        ratings.quality,
        names=ratings.names,
        groups=ratings.groups,
        are_strengths=ratings.are_strengths,
        mos_range=ratings.mos_range,
        started_from=started_from,
        settings=settings,
        finetuning=finetuning,
        paths=ratings.paths,
        batch_size=scorer.batch_size,
        runs_dir=runs_dir,
        cache_dir=cache_dir,
        on_run=on_run,
    )


def adapt_to_features(
    model: MetaQAPModel,
    features: ImageFeatures,
    quality: FloatArray,
    *,
    names: Sequence[str],
    groups: IntArray | None = None,
    are_strengths: bool = False,
    mos_range: tuple[float, float] | None = None,
    started_from: str | None = None,
    dataset: str = "folder",
    split: str = "all",
    settings: AdaptationSettings | None = None,
    finetuning: FinetuningSettings | None = None,
    paths: Sequence[Path] = (),
    batch_size: int = 8,
    runs_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    on_run: Callable[[str, int, int], None] = lambda learner, fold, folds: None,
) -> Adaptation:
    """As `adapt`, for photographs whose features are known already.

    Args:
        model: to begin with; it is not changed.
        features: of the n photographs by this model.
        quality: `(n,)`, ratings in [0, 1], higher is better, or strengths.
        names: of the photographs.
        groups: `(n,)`, numbers that versions of one photograph share; default all are different.
        are_strengths: whether `quality` has no scale. It gets that of the model's scores.
        mos_range: of the ratings, the lowest and the highest that a rater could give, where higher ones are better.
        started_from: SHA-256 of the model's weight file.
        dataset, split: which the photographs are of.
        settings: default `AdaptationSettings()`.
        finetuning: how learners are fine-tuned; None for not at all.
        paths: of the photographs, to fine-tune on.
        batch_size, runs_dir, cache_dir, on_run: see `finetune_learners`.

    Raises:
        MetaQAPError: see `adapt`.
    """
    settings = settings or AdaptationSettings()
    if finetuning is not None:
        _refuse_seen(model, features.digests)
    scores = features.quality(model)
    if np.ptp(scores) == 0:
        raise MetaQAPError("All the photographs have the same score, so nothing can be learned from their ratings.")
    if np.ptp(quality) == 0:
        raise MetaQAPError("All the ratings are the same, so nothing can be learned from them.")
    if are_strengths:
        quality = scores.mean() + (quality - quality.mean()) * scores.std() / quality.std()
    groups = np.arange(len(quality)) if groups is None else groups
    if len(np.unique(groups)) < FEWEST:
        raise MetaQAPError(
            f"The ratings are of {len(np.unique(groups))} different photographs; it takes {FEWEST} to adapt to them."
        )
    # Beyond what chance does.
    if np.corrcoef(scores, quality)[0, 1] < -2 / np.sqrt(len(quality)):
        raise MetaQAPError(
            "The ratings fall where the scores rise; if lower ratings are better ones, set `lower_is_better`."
        )
    standardized = features.standardized(model)
    drawn = draw_centers(len(quality), most=settings.centers, seed=settings.seed)
    bases = [fit_basis(rows, drawn) for rows in standardized]
    functions = functions_of(bases, standardized)
    rows = np.arange(len(quality))

    fit = choose_fit(scores, quality, functions, rows, groups=groups)
    cross = cross_validated(scores, quality, functions, groups=groups, folds=settings.folds, seed=settings.seed)
    curve = []
    if settings.draws:
        curve = learning_curve(scores, quality, functions, groups=groups, draws=settings.draws, seed=settings.seed)
    coefficients = None
    if fit is not None and fit.gamma is not None and fit.weights is not None:
        coefficients = functions[fit.gamma].coefficients(fit.weights)
    adapted = _with_heads(model, fit, bases, coefficients)
    images: dict[str, Any] = {
        "started_from": started_from,
        "dataset": dataset,
        "split": split,
        "num_images": len(names),
        "image_ids_sha256": image_ids_sha256(sorted(names)),
        "mos_low": None if mos_range is None else mos_range[0],
        "mos_high": None if mos_range is None else mos_range[1],
        "image_hashes": image_hashes(features.digests),
    }
    calibrated: Calibrated = model.config
    distances, finetuned, runs = features.distances, None, None
    if finetuning is not None:
        # They take the packages that training takes.
        from .finetuning import best_learners, finetune_learners, fit_share, with_finetuned

        tuned = finetune_learners(
            model,
            best_learners(scores, quality, bases, standardized, count=finetuning.learners),
            features,
            quality,
            paths=paths,
            stage=Stage(kind="finetune", **images),
            groups=groups,
            settings=finetuning,
            seed=settings.seed,
            batch_size=batch_size,
            runs_dir=runs_dir,
            cache_dir=cache_dir,
            on_run=on_run,
        )
        # On the same folds, for a fair comparison.
        closed = cross_validated(scores, quality, functions, groups=groups, folds=finetuning.folds, seed=settings.seed)
        share = fit_share(closed, tuned.scores.mean(axis=1), quality, tuned.parts)
        runs = tuned.folder
        finetuned = tuned.record | {"share": share.value if share.helps else 0.0}
        if share.helps:
            adapted = with_finetuned(adapted, tuned.models, share.value)
            rows, cross = tuned.rows, share.mixed
            distances = np.column_stack([distances, tuned.distances])
            calibrated = more_learners(calibrated, before=len(bases), after=distances.shape[1])
    widths = recalibrated_widths(calibrated, cross[rows], quality[rows], distances[rows], coverage=settings.coverage)
    widths.write_into(adapted.config)
    adapted.config.interval_coverage = settings.coverage
    if not are_strengths:
        adapted.config.mos_range = None if mos_range is None else list(mos_range)
    adapted.config.learner_subsets = None  # chosen for other heads and other opinions
    predicted = {"before": scores, "after": cross}
    if finetuned is not None:
        predicted["closed form"] = closed
    figures = {
        name: evaluate_scores(values[rows], quality[rows], seed=settings.seed, n_bootstrap=settings.n_bootstrap)
        for name, values in predicted.items()
    }
    stage = Stage(
        kind="adapt", **images, plcc=figures["after"]["plcc"]["value"], srocc=figures["after"]["srocc"]["value"]
    )
    for learner in adapted.config.base_learners:  # type: ignore[union-attr]
        learner["lineage"] = write_stages([*read_stages(learner["lineage"]), stage])
    record = {
        "n": len(names),
        "dataset": dataset,
        "split": split,
        "images_sha256": image_ids_sha256(sorted(names)),
        "started_from": started_from,
        "mos_range": adapted.config.mos_range,
        "settings": asdict(settings),
        "fitted": "nothing" if fit is None else "scale" if fit.gamma is None else "heads",
        "slope": 1.0 if fit is None else fit.slope,
        "offset": 0.0 if fit is None else fit.offset,
        "gamma": None if fit is None else fit.gamma,
        "penalty": None if fit is None else fit.penalty,
        **asdict(widths),
        "finetuned": finetuned,
        "figures": figures,
        "learning_curve": curve,
    }
    record["conclusion"] = _conclusion(record)
    return Adaptation(model=adapted, record=record, runs=runs)


def _refuse_too_few(ratings: Ratings, finetuning: FinetuningSettings | None) -> None:
    if len(ratings) < FEWEST:
        raise MetaQAPError(f"There are ratings of {len(ratings)} photographs; it takes {FEWEST} to adapt to them.")
    if finetuning is None:
        return
    if ratings.are_strengths:
        raise MetaQAPError("Fine-tuning takes ratings, not comparisons; leave out `finetune`.")
    if len(ratings) < FEWEST_TO_FINETUNE:
        raise MetaQAPError(
            f"There are ratings of {len(ratings)} photographs; fine-tuning takes {FEWEST_TO_FINETUNE}. Leave out "
            f"`finetune`: the closed form takes {FEWEST}."
        )


def _refuse_seen(model: MetaQAPModel, digests: Sequence[str]) -> None:
    """Refuse photographs that a learner knows: it could not be measured on those that are held out."""
    known = np.zeros(len(digests), dtype=bool)
    for stage in all_stages(model.config):
        known |= shares_images(stage, digests)
    if known.any():
        raise MetaQAPError(
            f"The checkpoint has learned from {known.sum():,} of these photographs before; fine-tune the one that it "
            "was made of."
        )


def _refuse_twins(ratings: Ratings, digests: Sequence[str]) -> None:
    """Refuse one file under two names, by which its rating would be predicted from itself."""
    first: dict[str, int] = {}
    for row, digest in enumerate(digests):
        other = first.setdefault(digest, row)
        if ratings.references[other] != ratings.references[row]:
            raise MetaQAPError(
                f"{ratings.names[other]} and {ratings.names[row]} are the same photograph; keep one of them, or give "
                "both the same name in a column reference_id."
            )


@torch.no_grad()
def _with_heads(
    model: MetaQAPModel, fit: Fit | None, bases: Sequence[Basis], coefficients: FloatArray | None
) -> MetaQAPModel:
    """A copy of a model that gives the fitted scores; each learner's own score is brought to the same scale."""
    config = deepcopy(model.config)
    if coefficients is not None:
        for learner, basis in zip(config.base_learners, bases, strict=True):  # type: ignore[arg-type]
            sizes = {"num_components": basis.components.shape[1], "num_centers": len(basis.centers)}
            learner["residual_heads"] = [*learner["residual_heads"], sizes]
    adapted = type(model)(config)
    adapted.load_state_dict(model.state_dict(), strict=False)
    adapted.eval()
    if fit is None:
        return adapted
    # quality = offset + slope * (weight @ scores + intercept) + the mean of the learners' Gaussians
    meta_learner: Any = adapted.meta_learner
    weights = meta_learner.weight.double().tolist()
    meta_learner.intercept.copy_(fit.offset + fit.slope * meta_learner.intercept.double())
    meta_learner.weight.copy_(fit.slope * meta_learner.weight.double())
    if coefficients is None:
        return adapted
    for learner, basis, weight in zip(adapted.base_learners, bases, weights, strict=True):
        head = learner.residual_heads[-1]  # type: ignore[index]
        assert isinstance(head, MetaQAPKernelHead)
        head.components.copy_(torch.from_numpy(basis.components))
        head.centers.copy_(torch.from_numpy(basis.centers))
        head.gamma.fill_(fit.gamma / basis.variance)  # type: ignore[operator]
        head.coefficients.copy_(torch.from_numpy(coefficients / (len(weights) * fit.slope * weight)))
    return adapted


def _conclusion(record: dict[str, Any]) -> str:
    before, after = (record["figures"][name] for name in ("before", "after"))
    what = {
        "nothing": "The ratings agree with the scores as they are, so nothing was changed",
        "scale": "The ratings gave the scores another scale; heads of their own would not have helped",
        "heads": "The ratings gave the scores another scale and heads of their own",
    }[record["fitted"]]
    # Both, since what makes scores come nearer to the ratings may put a few of them into another order.
    figures = ", ".join(
        f"{name.upper()} {before[name]['value']:.3f} before and {after[name]['value']:.3f} after"
        for name in ("srocc", "rmse")
    )
    text = f"{what}: {figures}, on ratings that were left out."
    if record["finetuned"] is None:
        return text
    closed = record["figures"]["closed form"]["srocc"]["value"]
    if not record["finetuned"]["share"]:
        return f"{text} Fine-tuning would not have helped, so the learners are as they were."
    return f"{text} Without the fine-tuned learners the SROCC would be {closed:.3f}."


__all__ = [
    "FEWEST",
    "Adaptation",
    "AdaptationSettings",
    "adapt",
    "adapt_to_features",
    "adapt_to_ratings",
]
