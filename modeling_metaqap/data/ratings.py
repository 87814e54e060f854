"""A person's own ratings from a CSV file: a row for each photograph, each rating, or each comparison of two."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from ..errors import DataError
from .iqa_datasets.files import FileIndex, parse_score, read_csv
from .iqa_datasets.folder import (
    IMAGE_COLUMNS,
    MOS_COLUMNS,
    REFERENCE_COLUMNS,
    SPLIT_COLUMNS,
    STD_COLUMNS,
    known_column,
)

RATER_COLUMNS = ("rater", "rater_id", "user", "user_id", "observer", "worker", "worker_id", "participant")
BETTER_COLUMNS = ("better", "winner", "preferred", "chosen")
WORSE_COLUMNS = ("worse", "loser", "rejected", "other")

_TITLE = "ratings"


@dataclass(frozen=True)
class Ratings:
    """Opinions on n photographs.

    Attributes:
        paths: of the photographs.
        names: of the photographs, as the CSV file has them.
        quality: `(n,)`, higher is better: ratings in [0, 1], or logarithms of strengths of a comparison.
        spread: `(n,)`, standard deviation of the raters' opinions on the same scale; None where it is not known.
        references: of each photograph, the name of the one that it is a version of; default its own name.
        are_strengths: whether `quality` has no scale, since photographs were only compared.
    """

    paths: list[Path]
    names: list[str]
    quality: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None
    references: list[str]
    are_strengths: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def groups(self) -> npt.NDArray[np.intp]:
        """`(n,)`: versions of one photograph have the same number."""
        return np.unique(self.references, return_inverse=True)[1]


def read_ratings(
    folder: str | Path,
    csv: str | Path,
    *,
    image_column: str | None = None,
    mos_column: str | None = None,
    mos_range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
) -> Ratings:
    """Read ratings of photographs in a folder.

    Three kinds of files are understood. A row for each photograph has its name and mean rating, and if there is one
    the standard deviation `mos_std`. A row for each rating has a column `rater` besides; the mean of all raters counts
    and their spread is kept. A row for each comparison has the columns `better` and `worse` with two names. A column
    `reference_id` says which photographs are versions of one; rows with `test` in a column `split` are left out.

    Args:
        folder: with the photographs; the file names them relative to it.
        csv: the file, relative to the working directory or else to the folder.
        image_column, mos_column: names of the columns, default the usual ones.
        mos_range: lowest and highest rating that a rater could give; default 0 to 1, if all lie there.
        higher_is_better: False for ratings of which lower ones are better.

    Raises:
        DataError: for a file that cannot be understood, in one sentence.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist.")
    path = Path(csv) if Path(csv).is_file() else folder / csv
    rows = _rows(path)
    columns = list(rows[0])
    better, worse = (known_column(columns, names) for names in (BETTER_COLUMNS, WORSE_COLUMNS))
    if better is not None and worse is not None:
        return _comparisons(folder, path, rows, better, worse)
    image_column = _column(path, columns, image_column, IMAGE_COLUMNS, "image_column")
    mos_column = _column(path, columns, mos_column, MOS_COLUMNS, "mos_column")
    rater_column, std_column, reference_column = (
        known_column(columns, names) for names in (RATER_COLUMNS, STD_COLUMNS, REFERENCE_COLUMNS)
    )
    split_column = known_column(columns, SPLIT_COLUMNS)
    rows = [
        row for row in rows if row[mos_column] and (split_column is None or row[split_column].casefold() != "test")
    ]
    scores: dict[str, list[float]] = defaultdict(list)
    raters: dict[str, set[str]] = defaultdict(set)
    deviations: dict[str, float] = {}
    references: dict[str, str] = {}
    for row in rows:
        name = row[image_column].replace("\\", "/")
        if rater_column is None and name in scores:
            raise DataError(
                f"{path} has more than one row for {name}; keep one, or say in a column `rater` whose rating each is."
            )
        if rater_column is not None:
            if row[rater_column] in raters[name]:
                raise DataError(f"{path} has more than one rating of {name} by the rater {row[rater_column]!r}.")
            raters[name].add(row[rater_column])
        score = parse_score(row[mos_column], what=name, path=path, title=_TITLE)
        if not np.isfinite(score):
            raise DataError(f"{path} has the rating {row[mos_column]!r} for {name}, which is not a number.")
        scores[name].append(score)
        if std_column is not None and rater_column is None and row[std_column]:
            deviations[name] = parse_score(row[std_column], what=name, path=path, title=_TITLE)
        references[name] = (row[reference_column] if reference_column is not None else "") or name
    low, high = _range(path, [score for several in scores.values() for score in several], mos_range)
    names = list(scores)
    quality = (np.array([np.mean(scores[name]) for name in names]) - low) / (high - low)
    if not higher_is_better:
        quality = 1 - quality
    if rater_column is not None and all(len(several) > 1 for several in scores.values()):
        deviations = {name: float(np.std(several, ddof=1)) for name, several in scores.items()}
    spread = np.array([deviations[name] for name in names]) / (high - low) if len(deviations) == len(names) else None
    return Ratings(_paths(folder, path, names), names, quality, spread, [references[name] for name in names])


def rated_names(csv: str | Path, *, image_column: str | None = None) -> set[str]:
    """Names of all photographs in a file of ratings or comparisons.

    Raises:
        DataError: see `read_ratings`.
    """
    rows = _rows(Path(csv))
    columns = list(rows[0])
    pair = [known_column(columns, names) for names in (BETTER_COLUMNS, WORSE_COLUMNS)]
    named = [column for column in pair if column is not None]
    if len(named) < 2:
        named = [_column(Path(csv), columns, image_column, IMAGE_COLUMNS, "image_column")]
    return {row[column].replace("\\", "/") for row in rows for column in named}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"The file {path} does not exist.")
    rows = read_csv(path, columns=(), title=_TITLE)
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def _column(path: Path, columns: list[str], chosen: str | None, names: Sequence[str], option: str) -> str:
    if chosen is not None and chosen not in columns:
        raise DataError(f"{path} has no column {chosen!r}; its columns are {', '.join(columns)}.")
    column = chosen or known_column(columns, names)
    if column is None:
        raise DataError(
            f"{path} has none of the columns {', '.join(names)}; choose one of {', '.join(columns)} with `{option}`."
        )
    return column


def _range(path: Path, scores: Sequence[float], mos_range: tuple[float, float] | None) -> tuple[float, float]:
    if not scores:
        raise DataError(f"{path} has no ratings.")
    lowest, highest = min(scores), max(scores)
    if mos_range is None:
        if lowest < 0 or highest > 1:
            raise DataError(
                f"The ratings in {path} run from {lowest:g} to {highest:g}; say with `mos_range` which lowest and "
                "highest rating a rater could give, such as `mos_range` 1 5."
            )
        mos_range = (0.0, 1.0)
    low, high = mos_range
    if not low < high:
        raise DataError(f"The range must be the lowest and the highest rating, not {low:g} to {high:g}.")
    if lowest < low or highest > high:
        raise DataError(
            f"The ratings in {path} run from {lowest:g} to {highest:g}, outside of the range {low:g} to {high:g}."
        )
    if lowest == highest:
        raise DataError(f"All ratings in {path} are {lowest:g}; nothing can be learned from them.")
    return low, high


def _paths(folder: Path, csv: Path, names: Sequence[str]) -> list[Path]:
    files = FileIndex(folder)
    paths = [files[name] for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
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
