"""What a run does to weights, for their lineage."""

from collections.abc import Sequence
from typing import Any

from ..lineage import DistortedImages, Stage, rated_images, write_stages
from ..modeling_metaqap import MetaQAPModel
from .rated_set import shares
from .recipe import Recipe
from .splits import SetSplits, Splits


def gradient_stages(
    recipe: Recipe, splits: Splits, *, started_from: str | None, taught_by: str | None = None
) -> list[Stage]:
    """The stages of a run's gradient steps: one, or one for each of several sets.

    Args:
        recipe: of the run.
        splits: its images.
        started_from: SHA-256 of the weights that it starts from, None for ImageNet weights.
        taught_by: SHA-256 of the weights of its teacher, if it has one.
    """
    distorted = _distorted(splits) if recipe.trains_distortions else None
    if recipe.stage == "pretrain":
        return [Stage(kind="pretrain", started_from=started_from, distorted=distorted)]
    return _stages("finetune", recipe, splits, distorted=distorted, started_from=started_from, taught_by=taught_by)


def heads_stages(recipe: Recipe, splits: Splits, *, started_from: str | None) -> list[Stage]:
    """The stages of the heads that a run fits at its end; arguments as for `gradient_stages`."""
    uses_distorted = recipe.distorted_weight or recipe.refit_distortion_head or recipe.stage == "pretrain"
    distorted = _distorted(splits) if uses_distorted else None
    if recipe.stage == "pretrain":
        return [Stage(kind="heads", started_from=started_from, distorted=distorted)]
    return _stages("heads", recipe, splits, distorted=distorted, started_from=started_from)


def add_stages(model: MetaQAPModel, stages: Sequence[Stage]) -> None:
    """Note in the configuration of a base learner what is done to its weights.

    Args:
        model: one base learner.
        stages: what is done in one run; scores are on the scale of the first set among them.
    """
    [learner] = model.config.base_learners  # type: ignore[misc]
    learner["lineage"] = [*learner["lineage"], *write_stages(stages)]
    if rated := [stage for stage in stages if stage.dataset is not None]:
        model.config.mos_range = rated[0].mos_range


def _stages(kind: str, recipe: Recipe, splits: Splits, *, started_from: str | None, **others: Any) -> list[Stage]:
    """A stage for each set; what is no set's own stands in the first one."""
    parts = shares(recipe.sets, [len(one.training) for one in splits.sets])
    stages = []
    for one, part in zip(splits.sets, parts, strict=True):
        rated = _rated(one) | ({"share": part} if len(parts) > 1 else {})
        stages.append(
            Stage(kind=kind, started_from=started_from, **rated, **(others if one is splits.sets[0] else {}))
        )
    return stages


def _rated(images: SetSplits) -> dict[str, Any]:
    source = images.source
    assert source is not None
    names = [source.train_split] if source.hold_out is None else [source.train_split, source.validation_split]
    return rated_images(
        source.dataset,
        "+".join(names),
        images.training["image_id"],
        images=source.images,
        hold_out=source.hold_out,
        mos_range=images.mos_range,
    )


def _distorted(splits: Splits) -> DistortedImages | None:
    if splits.distorted is None:
        return None
    photographs = splits.distorted["reference_id"]
    # Known by the photographs' ids; pretraining has no data set to look for them in.
    known = [
        one.source.dataset
        for one in splits.sets
        if one.source is not None and set(photographs) <= set(one.training["image_id"])
    ]
    return DistortedImages.of(photographs, dataset=known[0] if known else None)


__all__ = ["add_stages", "gradient_stages", "heads_stages"]
