"""A data set with opinion scores as a recipe names it, alone or beside others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..data.rating_options import OPTION_NAMES, RatingOptions
from ..errors import MetaQAPError
from .setting_values import checked_settings


@dataclass(frozen=True, kw_only=True)
class RatedSet:
    """One entry of `datasets` in a recipe, or what a recipe with one set says of it.

    Attributes:
        dataset: name of a data set of `iqa_datasets`, or "folder".
        name: what the log calls it; default the name of the data set.
        weight: its part of each batch, relative to the weights of the others; None for its number of training images,
            so that every photograph of all sets is drawn equally often.
        images: pattern of the ids of the images to take, such as "ss01*"; None for all.
        csv, image_column, mos_column, mos_range, lower_is_better: how the CSV file of a folder is to be read, see
            `RatingOptions`.
        train_split, validation_split, hold_out: which images are trained and validated on, see `Recipe`.

    Raises:
        MetaQAPError: for settings that do not fit.
    """

    dataset: str
    name: str = ""
    weight: float | None = None
    images: str | None = None
    csv: str | None = None
    image_column: str | None = None
    mos_column: str | None = None
    mos_range: list[float] | None = None
    lower_is_better: bool = False
    train_split: str = "train"
    validation_split: str = "validation"
    hold_out: str | None = None

    def __post_init__(self) -> None:
        self.ratings.of_dataset(self.dataset)
        if self.name and not re.fullmatch(r"[\w.-]+", self.name, re.ASCII):
            raise MetaQAPError(f"The `name` of a set is made of letters, digits, _, . and -; {self.name!r} is not.")
        object.__setattr__(self, "name", self.name or self.dataset)
        if self.weight is not None and not self.weight > 0:
            raise MetaQAPError(f"The `weight` of the set {self.name} must be above 0, got {self.weight:g}.")

    @property
    def ratings(self) -> RatingOptions:
        """How the CSV file of the data set "folder" is to be read."""
        return RatingOptions.of(vars(self))

    def where(self, data_dir: str | None, cache_dir: str | None) -> dict[str, Any]:
        """What `load_iqa_dataset` needs to know besides the name and the split."""
        return {"data_dir": data_dir, "cache_dir": cache_dir, **self.ratings.of_dataset(self.dataset)}

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are not the default, by name."""
        defaults = {field.name: field.default for field in fields(self)} | {"name": self.dataset}
        return {name: value for name, value in vars(self).items() if value != defaults[name]}


#: Settings of a recipe with one set; with several, each entry of `datasets` has its own.
SET_SETTINGS = ("dataset", "images", *OPTION_NAMES, "train_split", "validation_split", "hold_out")


def read_sets(entries: Any, *, where: str = "in the recipe") -> tuple[RatedSet, ...]:
    """The sets that `datasets` of a recipe names.

    Args:
        entries: as YAML reads them.
        where: they stand, for messages.

    Raises:
        MetaQAPError: for entries that are none, that share a name, or of which only some have a weight.
    """
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise MetaQAPError(f"`datasets` {where} must be a list of sets, each with its settings, got {entries!r}.")
    sets = []
    for number, entry in enumerate(entries, start=1):
        place = f"in set {number} of `datasets` {where}"
        values = checked_settings(entry, RatedSet, owner=f"Set {number} of `datasets` {where}", where=place)
        if "dataset" not in values:
            raise MetaQAPError(f"Set {number} of `datasets` {where} names no `dataset`.")
        sets.append(RatedSet(**values))
    names = [one.name for one in sets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MetaQAPError(f"`datasets` {where} has the set {twice[0]} twice; give each one a `name` of its own.")
    weighted = [one.name for one in sets if one.weight is not None]
    if weighted and len(weighted) < len(sets):
        raise MetaQAPError(f"`datasets` {where} gives {weighted[0]} a `weight` but not all; give each one, or none.")
    return tuple(sets)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(isinstance(name, str) for name in entry)


def shares(sets: Sequence[RatedSet], sizes: Sequence[int]) -> list[float]:
    """The part of all batches that is of each set; together 1.

    Args:
        sets: all have a weight, or none.
        sizes: numbers of their training images.
    """
    weights = [float(size) if one.weight is None else one.weight for one, size in zip(sets, sizes, strict=True)]
    return [weight / sum(weights) for weight in weights]


__all__ = ["SET_SETTINGS", "RatedSet", "read_sets", "shares"]
