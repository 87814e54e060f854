"""How a person's own CSV file of ratings is to be read: the same five options in commands, scripts and recipes.

Imports nothing heavy, so that a command can list them at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import DataError

#: The data set of one's own photographs; all folders of images have this name.
FOLDER = "folder"

#: What each option means, for `--help`.
HELP = {
    "csv": "file with your ratings of the photographs in the folder; default the only CSV file there",
    "image_column": "column of it with the photographs' names; default one of the usual names",
    "mos_column": "column of it with the ratings; default one of the usual names",
    "mos_range": "lowest and highest rating that a rater could give, such as 1 5; may be left out for 0 to 1",
    "lower_is_better": "lower ratings are better ones, as with DMOS",
}


def checked_range(mos_range: Any, *, name: str = "mos_range", where: str = "") -> tuple[float, float]:
    """A range as two numbers.

    Args:
        mos_range: the lowest and the highest score.
        name: of the option, for messages.
        where: of the option for messages, such as " in recipe.yaml".

    Raises:
        DataError: if it is not two finite numbers, the lower one first.
    """
    is_pair = isinstance(mos_range, Sequence) and not isinstance(mos_range, str) and len(mos_range) == 2
    if not is_pair or any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in mos_range):
        found = repr(mos_range)
    else:
        low, high = map(_as_float, mos_range)
        if low < high and math.isfinite(high - low):
            return low, high
        found = f"{low:g} {high:g}"
    raise DataError(
        f"`{name}`{where} must be the lowest and the highest score that a rater could give, two numbers such as 1 "
        f"and 5, not {found}."
    )


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if number > 0 else -math.inf


@dataclass(frozen=True, kw_only=True)
class RatingOptions:
    """How a person's own CSV file of ratings is to be read.

    Attributes:
        csv: the file, relative to the working directory or else to the folder; None for the folder's only one.
        image_column: column with the images' paths relative to the folder; None for the first of the usual names.
        mos_column: column with the ratings; None for the first of the usual names.
        mos_range: lowest and highest rating that a rater could give, which become quality 0 and 1; None for 0 to 1, if
            all ratings lie there.
        lower_is_better: whether lower ratings are better ones, as with DMOS.

    Raises:
        DataError: for a range that is none.
    """

    csv: str | Path | None = None
    image_column: str | None = None
    mos_column: str | None = None
    mos_range: tuple[float, float] | None = None
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        if self.mos_range is not None:
            object.__setattr__(self, "mos_range", checked_range(self.mos_range))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RatingOptions":
        """The options among some values by name; None stands for what was left out."""
        return cls(**{name: values[name] for name in OPTION_NAMES if values.get(name) is not None})

    @property
    def given(self) -> dict[str, Any]:
        """Those that say something, by name."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: getattr(self, name) for name in OPTION_NAMES if getattr(self, name) != defaults[name]}

    def of_dataset(self, *names: str) -> dict[str, Any]:
        """The options as `load_iqa_dataset` takes them.

        Args:
            names: of the data sets that are to be read; "folder" is the only one that has such options.

        Raises:
            DataError: if there are options and no data set that they are for.
        """
        if self.given and FOLDER not in names:
            raise DataError(
                f"`{next(iter(self.given))}` is for your own photographs, the data set `folder`, and not for "
                f"{' and '.join(names)}."
            )
        return self.given


#: Names of the options, in order.
OPTION_NAMES = tuple(field.name for field in fields(RatingOptions))


def add_rating_options(add: Callable[..., Any]) -> None:
    """Add the options with `parser.add_argument`, or what takes its place; None stands for what is left out."""
    add("--csv", metavar="FILE", help=HELP["csv"])
    add("--image_column", metavar="NAME", help=HELP["image_column"])
    add("--mos_column", metavar="NAME", help=HELP["mos_column"])
    add("--mos_range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=HELP["mos_range"])
    add("--lower_is_better", action="store_true", default=None, help=HELP["lower_is_better"])


__all__ = ["FOLDER", "HELP", "OPTION_NAMES", "RatingOptions", "add_rating_options", "checked_range"]
