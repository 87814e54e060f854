"""A person's own ratings from a CSV file: a row for each photograph, each rating, or each comparison of two."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from ..errors import DataError
from .iqa_datasets.files import FileIndex
from .iqa_datasets.rating_tables import IMAGE_COLUMNS, choose_column, find_csv, known_column, read_rows, read_table
from .rating_options import RatingOptions

BETTER_COLUMNS = ("better", "winner", "preferred", "chosen")
WORSE_COLUMNS = ("worse", "loser", "rejected", "other")


@dataclass(frozen=True)
class Ratings:
    """Opinions on n photographs.

    Attributes:
        paths: of the photographs.
        names: of the photographs, as the CSV file has them.
        quality: `(n,)`, higher is better: ratings in [0, 1], or logarithms of strengths of a comparison.
        spread: `(n,)`, standard deviation of the raters' opinions on the same scale; None where it is not known.
        references: of each photograph, the name of the one that it is a version of; default its own name.
        mos_range: lowest and highest rating that a rater could give; None if lower ones are better or photographs were
            only compared.
        are_strengths: whether `quality` has no scale, since photographs were only compared.
    """

    paths: list[Path]
    names: list[str]
    quality: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None
    references: list[str]
    mos_range: tuple[float, float] | None = None
    are_strengths: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def groups(self) -> npt.NDArray[np.intp]:
        """`(n,)`: versions of one photograph have the same number."""
        return np.unique(self.references, return_inverse=True)[1]

    def select(self, rows: Sequence[int]) -> "Ratings":
        """The ratings of some of the photographs."""
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            names=[self.names[row] for row in rows],
            quality=self.quality[list(rows)],
            spread=None if self.spread is None else self.spread[list(rows)],
            references=[self.references[row] for row in rows],
        )


def read_ratings(folder: str | Path, options: RatingOptions) -> Ratings:
    """Read ratings of photographs in a folder.

    Three kinds of files are understood. A row for each photograph has its name and mean rating, and if there is one
    the standard deviation `mos_std`. A row for each rating has a column `rater` besides; the mean of all raters counts
    and their spread is kept. A row for each comparison has the columns `better` and `worse` with two names. A column
    `reference_id` says which photographs are versions of one; rows without a rating, and those with `test` in a column
    `split`, are left out.

    Args:
        folder: with the photographs; the file names them relative to it.
        options: which file it is, its columns and its scale.

    Raises:
        DataError: for a file that cannot be understood, in one sentence.
    """
    folder = Path(folder)
    path = find_csv(folder, options.csv)
    rows = read_rows(path)
    columns = list(rows[0])
    better, worse = (known_column(columns, names) for names in (BETTER_COLUMNS, WORSE_COLUMNS))
    if better is not None and worse is not None:
        return _comparisons(folder, path, rows, better, worse)
    table = read_table(path, options, rows=rows)
    images = [image for image in table.images if (image.split or "").casefold() != "test"]
    if not images:
        raise DataError(f"{path} has no ratings that are not kept for testing.")
    scores = [image.mos for image in images]
    if min(scores) == max(scores):
        raise DataError(f"All ratings in {path} are {scores[0]:g}; nothing can be learned from them.")
    low, high = table.mos_range
    quality = (np.array(scores) - low) / (high - low)
    deviations = [image.mos_std for image in images]
    names = [image.name for image in images]
    return Ratings(
        _paths(folder, path, names),
        names,
        1 - quality if options.lower_is_better else quality,
        None if None in deviations else np.array(deviations, dtype=np.float64) / (high - low),
        [image.reference_id or image.name for image in images],
        mos_range=None if options.lower_is_better else table.mos_range,
    )


def rated_names(csv: str | Path, *, image_column: str | None = None) -> set[str]:
    """Names of all photographs in a file of ratings or comparisons.

    Raises:
        DataError: see `read_ratings`.
    """
    path = Path(csv)
    if not path.is_file():
        raise DataError(f"The file {path} does not exist.")
    rows = read_rows(path)
    columns = list(rows[0])
    pair = [known_column(columns, names) for names in (BETTER_COLUMNS, WORSE_COLUMNS)]
    named = [column for column in pair if column is not None]
    if len(named) < 2:
        named = [choose_column(path, columns, "image_column", image_column, IMAGE_COLUMNS)]
    return {row[column].replace("\\", "/") for row in rows for column in named}


def _paths(folder: Path, csv: Path, names: Sequence[str]) -> list[Path]:
    files = FileIndex(folder)
    paths = [files[name] for name in names]
    # Path.is_file fails for names that are too long.
    missing = [name for name, path in zip(names, paths, strict=True) if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{csv} names {len(missing):,} of its {len(names):,} photographs that are not in {folder}, such as "
            f"{missing[0]}."
        )
    return paths


def _comparisons(folder: Path, path: Path, rows: list[dict[str, str]], better: str, worse: str) -> Ratings:
    pairs = [(row[better].replace("\\", "/"), row[worse].replace("\\", "/")) for row in rows]
    if same := [one for one, other in pairs if one == other]:
        raise DataError(f"{path} compares {same[0]} with itself.")
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    index = {name: number for number, name in enumerate(names)}
    numbers = np.array([[index[one], index[other]] for one, other in pairs])
    return Ratings(
        _paths(folder, path, names), names, bradley_terry(numbers, len(names)), None, names, are_strengths=True
    )


def bradley_terry(pairs: npt.NDArray[np.intp], n: int, *, deviation: float = 1.5) -> npt.NDArray[np.float64]:
    """Strengths of n photographs, `(n,)`, of which pairs were compared.

    The probability that i is found better than j is `1 / (1 + exp(strength[j] - strength[i]))`. A normal prior keeps
    the strength of a photograph that won or lost all its comparisons finite, and ties photographs together that were
    never compared.

    Args:
        pairs: `(m, 2)`, the better one and the worse one.
        n: number of photographs.
        deviation: standard deviation of the prior.

    Source: Bradley and Terry, "Rank analysis of incomplete block designs", Biometrika 39 (1952); the prior as in Caron
    and Doucet, "Efficient Bayesian inference for generalized Bradley-Terry models" (2012), but normal.
    """
    won, lost = pairs.T

    def loss(strengths: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        margins = strengths[won] - strengths[lost]
        surprise = special.expit(-margins)
        gradient = strengths / deviation**2
        np.add.at(gradient, won, -surprise)
        np.add.at(gradient, lost, surprise)
        penalty = float(np.square(strengths).sum()) / (2 * deviation**2)
        return penalty - float(special.log_expit(margins).sum()), gradient

    return np.asarray(optimize.minimize(loss, np.zeros(n), jac=True, method="L-BFGS-B").x)


__all__ = ["Ratings", "bradley_terry", "rated_names", "read_ratings"]
