"""What a run does to weights, for their lineage."""

from typing import Any

from ..lineage import DistortedImages, Stage, rated_images, write_stages
from ..modeling_metaqap import MetaQAPModel
from .recipe import Recipe
from .splits import Splits


def gradient_stage(recipe: Recipe, splits: Splits, *, started_from: str | None, taught_by: str | None = None) -> Stage:
    """The stage of a run's gradient steps.

    Args:
        recipe: of the run.
        splits: its images.
        started_from: SHA-256 of the weights that it starts from, None for ImageNet weights.
        taught_by: SHA-256 of the weights of its teacher, if it has one.
    """
    distorted = _distorted(recipe, splits) if recipe.trains_distortions else None
    if recipe.stage == "pretrain":
        return Stage(kind="pretrain", started_from=started_from, distorted=distorted)
    rated = _rated(recipe, splits)
    return Stage(kind="finetune", started_from=started_from, taught_by=taught_by, distorted=distorted, **rated)


def heads_stage(recipe: Recipe, splits: Splits, *, started_from: str | None) -> Stage:
    """The stage of the heads that a run fits at its end; arguments as for `gradient_stage`."""
    uses_distorted = recipe.distorted_weight or recipe.refit_distortion_head or recipe.stage == "pretrain"
    distorted = _distorted(recipe, splits) if uses_distorted else None
    rated = {} if recipe.stage == "pretrain" else _rated(recipe, splits)
    return Stage(kind="heads", started_from=started_from, distorted=distorted, **rated)


def add_stage(model: MetaQAPModel, stage: Stage) -> None:
    """Note in the configuration of a base learner what is done to its weights."""
    [learner] = model.config.base_learners  # type: ignore[misc]
    learner["lineage"] = [*learner["lineage"], *write_stages([stage])]
    if stage.dataset is not None:
        model.config.mos_range = stage.mos_range


def _rated(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    names = [recipe.train_split] if recipe.hold_out is None else [recipe.train_split, recipe.validation_split]
    return rated_images(
        recipe.dataset,
        "+".join(names),
        splits.training["image_id"],
        hold_out=recipe.hold_out,
        mos_range=splits.mos_range,
    )


def _distorted(recipe: Recipe, splits: Splits) -> DistortedImages | None:
    if splits.distorted is None:
        return None
    photographs = splits.distorted["reference_id"]
    # Known by the photographs' ids; pretraining has no data set to look for them in.
    known = recipe.stage == "finetune" and set(photographs) <= set(splits.training["image_id"])
    return DistortedImages.of(photographs, dataset=recipe.dataset if known else None)


__all__ = ["add_stage", "gradient_stage", "heads_stage"]
