"""Which images a run learns from and which ones it is validated on."""

from dataclasses import dataclass
from typing import Any

import datasets

from ..data.distorted.loading import load_distorted, refuse_shared, rows_without
from ..data.iqa_datasets import hold_out, load_training_split, raters_scale
from ..errors import MetaQAPError
from .recipe import Recipe
from .settings import RunSettings


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        training: to learn quality from.
        validation: to validate quality on.
        mos_range: lowest and highest score that the raters of the images could give, if that is known and higher ones
            are better.
        distorted: to learn distortions from, if any; in pretraining the same as `training`.
        distorted_validation: to validate those on, if any; in pretraining the same as `validation`.
    """

    training: datasets.Dataset
    validation: datasets.Dataset
    distorted: datasets.Dataset | None = None
    distorted_validation: datasets.Dataset | None = None
    mos_range: tuple[float, float] | None = None


def load_splits(recipe: Recipe, settings: RunSettings) -> Splits:
    """Load the images of a run. Nothing of a photograph that is validated on is learned from, in whatever distortion.

    Raises:
        DataError: if a data set cannot be read, nothing would be held out, or the sets of distorted images share
            photographs.
        MetaQAPError: if a directory is missing, there is no such data set, or the two splits share images.
        TestSplitError: if the recipe names the test split.
    """
    distorted = distorted_validation = None
    if recipe.needs_distorted:
        distorted = _load_distorted(
            settings.distorted_dir,
            settings,
            needed="The recipe learns from distorted images and needs `distorted_dir`",
        )
        if settings.distorted_validation_dir is not None or recipe.stage == "pretrain":
            distorted_validation = _load_distorted(
                settings.distorted_validation_dir, settings, needed="Pretraining needs `distorted_validation_dir`"
            )
            refuse_shared(distorted, distorted_validation)
    if recipe.stage == "pretrain":
        assert distorted is not None and distorted_validation is not None
        return Splits(distorted, distorted_validation, distorted, distorted_validation)
    training, validation = load_rated(recipe, data_dir=settings.data_dir, cache_dir=settings.cache_dir)
    if distorted is not None:
        distorted = distorted.select(rows_without(distorted, validation["image_id"]))
    if distorted_validation is not None:
        distorted_validation = distorted_validation.select(rows_without(distorted_validation, training["image_id"]))
    mos_range = raters_scale(recipe.dataset, **_where(recipe, settings.data_dir, settings.cache_dir))
    return Splits(training, validation, distorted, distorted_validation, mos_range)


def _where(recipe: Recipe, data_dir: str | None, cache_dir: str | None) -> dict[str, Any]:
    """What `load_iqa_dataset` needs to know besides the name and the split."""
    return {"data_dir": data_dir, "cache_dir": cache_dir, **recipe.ratings.of_dataset(recipe.dataset)}


def _load_distorted(directory: str | None, settings: RunSettings, *, needed: str) -> datasets.Dataset:
    if directory is None:
        raise MetaQAPError(f"{needed}: name a data set made by `metaqap distort-set`.")
    return load_distorted(directory, cache_dir=settings.cache_dir)


def load_rated(
    recipe: Recipe, *, data_dir: str | None = None, cache_dir: str | None = None
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The rated images that a recipe trains on, and those that it is validated on.

    Args:
        recipe: names the data set, how its ratings are to be read, its splits and what is held out.
        data_dir, cache_dir: see `load_training_split`.

    Raises:
        DataError: if the data set cannot be read or nothing would be held out.
        MetaQAPError: if the two splits share images.
        TestSplitError: if the recipe names the test split, or splits of different numbers.
    """
    where = _where(recipe, data_dir, cache_dir)
    # Both at once as well: that refuses splits of different numbers.
    training, validation, both = (
        load_training_split(recipe.dataset, split=split, **where)
        for split in (recipe.train_split, recipe.validation_split, f"{recipe.train_split}+{recipe.validation_split}")
    )
    if shared := len(set(training["image_id"]).intersection(validation["image_id"])):
        raise MetaQAPError(
            f"The splits {recipe.train_split} and {recipe.validation_split} of {recipe.dataset} share {shared:,} "
            "images; validate on others than those that are trained on."
        )
    if recipe.hold_out is None:
        return training, validation
    return hold_out(both, recipe.hold_out, name=recipe.dataset)


__all__ = ["Splits", "load_rated", "load_splits"]
