"""Which images a run learns from and which ones it is validated on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import datasets

from ..data.distorted.loading import load_distorted, refuse_shared, rows_without
from ..data.iqa_datasets import hold_out, load_training_split, only_images, raters_scale
from ..data.rating_options import FOLDER
from ..errors import MetaQAPError
from ..evaluation.metrics import MIN_IMAGES
from .rated_set import RatedSet
from .recipe import Recipe
from .settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class SetSplits:
    """The images of one set that a run learns quality from.

    Attributes:
        training: to learn quality from.
        validation: to validate quality on.
        source: what the recipe says of the set; None for distorted images, in pretraining.
        where: what `load_iqa_dataset` needs to know besides the name and the split.
        mos_range: lowest and highest score that the raters of the images could give, if that is known and higher ones
            are better.
    """

    training: datasets.Dataset
    validation: datasets.Dataset
    source: RatedSet | None = None
    where: dict[str, Any] | None = None
    mos_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        sets: those with a quality, of each set that the recipe names; in pretraining one set of distorted images.
        distorted: to learn distortions from, if any; in pretraining the same as those of `sets`.
        distorted_validation: to validate those on, if any; likewise.
    """

    sets: tuple[SetSplits, ...]
    distorted: datasets.Dataset | None = None
    distorted_validation: datasets.Dataset | None = None

    @property
    def all(self) -> list[datasets.Dataset]:
        """Each data set once; in pretraining they are there under two names."""
        several = [part for one in self.sets for part in (one.training, one.validation)]
        several += [part for part in (self.distorted, self.distorted_validation) if part is not None]
        return list({id(part): part for part in several}.values())

    def changed(self, change: Callable[[datasets.Dataset], datasets.Dataset]) -> "Splits":
        """The same with other rows. What was one data set under two names stays one."""
        new = {id(part): change(part) for part in self.all}
        return Splits(
            tuple(
                replace(one, training=new[id(one.training)], validation=new[id(one.validation)]) for one in self.sets
            ),
            None if self.distorted is None else new[id(self.distorted)],
            None if self.distorted_validation is None else new[id(self.distorted_validation)],
        )


def load_splits(recipe: Recipe, settings: RunSettings) -> Splits:
    """Load the images of a run. Nothing of a photograph that is validated on is learned from, in whatever distortion.

    Raises:
        DataError: if a data set cannot be read, nothing would be held out, or the sets of distorted images share
            photographs.
        MetaQAPError: if a directory is missing, there is no such data set, or splits share images.
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
        images = SetSplits(training=distorted, validation=distorted_validation)
        return Splits((images,), distorted, distorted_validation)
    folders = settings.data_dirs(len(recipe.sets))
    sets = tuple(
        _load_set(one, one.where(folder, settings.cache_dir)) for one, folder in zip(recipe.sets, folders, strict=True)
    )
    refuse_unfit_sets(sets)
    if distorted is not None:
        unseen = {image_id for one in sets for image_id in one.validation["image_id"]}
        distorted = distorted.select(rows_without(distorted, unseen))
    if distorted_validation is not None:
        learned = {image_id for one in sets for image_id in one.training["image_id"]}
        distorted_validation = distorted_validation.select(rows_without(distorted_validation, learned))
    return Splits(sets, distorted, distorted_validation)


def _load_set(source: RatedSet, where: dict[str, Any]) -> SetSplits:
    training, validation = load_rated(source, **where)
    mos_range = raters_scale(source.dataset, **where)
    return SetSplits(training=training, validation=validation, source=source, where=where, mos_range=mos_range)


def refuse_unfit_sets(sets: Sequence[SetSplits]) -> None:
    """Refuse several sets of which one cannot be validated, or that hold an image twice.

    Raises:
        MetaQAPError: naming the sets.
    """
    named = [(one.source.name, one) for one in sets if one.source is not None]
    for name, one in named if len(named) > 1 else []:
        if len(one.validation) < MIN_IMAGES:
            raise MetaQAPError(
                f"The set {name} has {len(one.validation)} images to validate on; each set needs {MIN_IMAGES} or more."
            )
    for (name, one), (other_name, other) in combinations(named, 2):
        if not _may_share(one, other):
            continue
        # The same photographs with the ratings of others are another set, unless one learns what the other validates.
        pairs = [(one.training, other.validation), (one.validation, other.training)]
        if _file(one) == _file(other):
            pairs += [(one.training, other.training), (one.validation, other.validation)]
        shared = {image for mine, theirs in pairs for image in set(mine["image_id"]) & set(theirs["image_id"])}
        if shared:
            raise MetaQAPError(
                f"The sets {name} and {other_name} share {len(shared):,} images, such as {min(shared)}; each image "
                "may be in one of them."
            )


def _may_share(one: SetSplits, other: SetSplits) -> bool:
    """Whether an id stands for the same image in both."""
    assert one.source is not None and other.source is not None and one.where is not None and other.where is not None
    if one.source.dataset != other.source.dataset:
        return False
    return one.source.dataset != FOLDER or one.where["data_dir"] == other.where["data_dir"]


def _file(one: SetSplits) -> str | None:
    return None if one.source is None else one.source.csv


def _load_distorted(directory: str | None, settings: RunSettings, *, needed: str) -> datasets.Dataset:
    if directory is None:
        raise MetaQAPError(f"{needed}: name a data set made by `metaqap distort-set`.")
    return load_distorted(directory, cache_dir=settings.cache_dir)


def load_rated(source: RatedSet, **where: Any) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The rated images of a set that a run trains on, and those that it is validated on.

    Args:
        source: names the data set, its splits and what is held out.
        where: the other arguments of `load_training_split`, see `RatedSet.where`.

    Raises:
        DataError: if the data set cannot be read, or nothing would be held out or left.
        MetaQAPError: if the two splits share images.
        TestSplitError: if the set names the test split, or splits of different numbers.
    """
    # Both at once as well: that refuses splits of different numbers.
    training, validation, both = (
        only_images(load_training_split(source.dataset, split=split, **where), source.images, name=source.dataset)
        for split in (source.train_split, source.validation_split, f"{source.train_split}+{source.validation_split}")
    )
    if shared := len(set(training["image_id"]).intersection(validation["image_id"])):
        raise MetaQAPError(
            f"The splits {source.train_split} and {source.validation_split} of {source.dataset} share {shared:,} "
            "images; validate on others than those that are trained on."
        )
    if source.hold_out is None:
        return training, validation
    return hold_out(both, source.hold_out, name=source.dataset)


__all__ = ["SetSplits", "Splits", "load_rated", "load_splits", "refuse_unfit_sets"]
