"""Which photographs to rate next: those whose ratings would make the scores of all the others most certain."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import DEFAULT_CHECKPOINT
from ..data.image_files import find_images
from ..data.ratings import rated_names
from ..errors import MetaQAPError
from ..inference.features import image_features
from ..inference.scorer import Scorer
from .residual_regression import USUAL, FloatArray, IntArray, draw_centers, fit_basis, functions_of

#: Photographs that the certainty is looked at on, at most; of more in a folder so many are drawn.
_LOOKED_AT = 2000


def suggest(
    folder: str | Path,
    n: int,
    *,
    csv: str | Path | None = None,
    image_column: str | None = None,
    recursive: bool = False,
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    cache_dir: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 8,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_unreadable: Callable[[Path, str], None] = lambda path, reason: None,
) -> list[str]:
    """Names of n photographs of a folder to be rated next, the most instructive one first.

    Args:
        folder: with the photographs.
        n: how many to name.
        csv, image_column: of ratings that there are already; these photographs are not named again.
        recursive: look into sub-folders too.
        checkpoint: that is to be adapted.
        cache_dir, on_progress, on_unreadable: see `image_features`.
        device, batch_size: see `Scorer`.
        seed: of the draw of photographs that are looked at, of more than 2,000.

    Raises:
        MetaQAPError: for a folder without so many photographs that are not rated.
        DataError: for a CSV file that cannot be read.
    """
    folder = Path(folder)
    paths = [Path(path) for path in find_images([str(folder)], recursive=recursive)]
    names = [path.relative_to(folder).as_posix() for path in paths]
    known = set() if csv is None else {name.casefold() for name in rated_names(csv, image_column=image_column)}
    _refuse_more(folder, n, sum(name.casefold() not in known for name in names))
    scorer = Scorer(checkpoint, device=device, batch_size=batch_size)
    features = image_features(scorer, paths, cache_dir=cache_dir, on_progress=on_progress, on_unreadable=on_unreadable)
    names = [names[row] for row in features.rows]
    rated = np.array([name.casefold() in known for name in names])
    _refuse_more(folder, n, int((~rated).sum()))
    standardized = features.standardized(scorer.model)
    drawn = draw_centers(len(names), most=_LOOKED_AT, seed=seed)
    functions = functions_of([fit_basis(rows, drawn) for rows in standardized], standardized, gammas=USUAL[:1])
    chosen = most_instructive(
        features.quality(scorer.model), functions[USUAL[0]].values, np.flatnonzero(rated), n, looked_at=drawn
    )
    return [names[row] for row in chosen]


def _refuse_more(folder: Path, n: int, free: int) -> None:
    if not 1 <= n <= free:
        raise MetaQAPError(f"{folder} has {free:,} photographs that are not rated; name a number from 1 to that.")


def most_instructive(
    scores: FloatArray, values: FloatArray, rated: IntArray, n: int, *, looked_at: IntArray | None = None
) -> list[int]:
    """Rows of n photographs, one after the other that which lowers the variance of all scores most if it is rated.

    Args:
        scores: `(m,)`, of all photographs.
        values: `(m, M)` of the functions that span the Gaussians, see `Functions`.
        rated: rows that have a rating.
        n: how many to choose of the others.
        looked_at: rows whose variance counts; default all.

    Source: Cohn, Ghahramani and Jordan, "Active learning with statistical models", JAIR 4 (1996), for the model of
    `residual_regression`.
    """
    noise = USUAL[1]
    spread = scores.std() or 1.0
    # The line is not known either: its height and slope weigh as much as the Gaussians.
    rows = np.column_stack([values, np.ones(len(scores)), (scores - scores.mean()) / spread])
    # Instead of the covariance of all photographs, that of the functions.
    covariance = np.eye(rows.shape[1])
    seen = rows if looked_at is None else rows[looked_at]
    moments = seen.T @ seen
    for row in rated:
        covariance = _after_rating(covariance, rows[row], noise)
    free = np.ones(len(rows), dtype=bool)
    free[rated] = False
    chosen = []
    along = rows @ covariance
    looked_along = along @ moments
    for _ in range(n):
        variances = np.einsum("ij,ij->i", along, rows)
        gains = np.einsum("ij,ij->i", looked_along, along) / (variances + noise)
        best = int(np.argmax(np.where(free, gains, -np.inf)))
        chosen.append(best)
        free[best] = False
        direction = along[best] / np.sqrt(variances[best] + noise)
        change = rows @ direction
        along -= np.outer(change, direction)
        looked_along -= np.outer(change, moments @ direction)
    return chosen


def _after_rating(covariance: FloatArray, row: FloatArray, noise: float) -> FloatArray:
    direction = covariance @ row
    return covariance - np.outer(direction, direction) / (row @ direction + noise)


__all__ = ["most_instructive", "suggest"]
