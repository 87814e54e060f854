"""What to expect of an adapted model: each rating predicted by others, and how that grows with their number."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..evaluation.metrics import plcc_and_srocc, rmse
from .folds import random_folds
from .residual_regression import Fit, FloatArray, Functions, IntArray, fit_line, fit_residual

#: Numbers of ratings that a learning curve shows, as far as there are that many.
SIZES = (15, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102400)


def choose_fit(
    scores: FloatArray,
    targets: FloatArray,
    functions: dict[float, Functions],
    rows: IntArray,
    *,
    groups: IntArray | None = None,
) -> Fit | None:
    """The most that the ratings support: Gaussians and line, the line alone, or None for the scores as they are.

    More is taken where it predicts ratings that are left out with smaller squared errors.

    Args:
        scores, targets, functions, rows, groups: see `fit_residual`.
    """
    choices: list[tuple[float, Fit | None]] = [(float(np.square(targets - scores).mean()), None)]
    line = fit_line(scores, targets, groups=groups)
    if line.slope > 0:
        choices.append((_loss(line, targets), line))
    whole = fit_residual(scores, targets, functions, rows, groups=groups)
    if whole.slope > 0:
        choices.append((_loss(whole, targets), whole))
    return min(choices, key=lambda choice: choice[0])[1]


def predict(fit: Fit | None, scores: FloatArray, functions: dict[float, Functions], rows: IntArray) -> FloatArray:
    """Quality by a fit, or the scores themselves where there is none."""
    return scores if fit is None else fit.predict(scores, functions, rows)


def cross_validated(
    scores: FloatArray,
    targets: FloatArray,
    functions: dict[float, Functions],
    *,
    groups: IntArray,
    folds: int = 10,
    seed: int = 0,
) -> FloatArray:
    """Quality `(n,)` of each photograph by a fit that was chosen and made on the other folds' ratings alone.

    Args:
        scores, targets, functions: of the n photographs, see `fit_residual`.
        groups: `(n,)`, numbers of groups that are not torn apart.
        folds: parts that the groups are shared out to; one group each where there are fewer.
        seed: of the sharing out.
    """
    predicted = np.empty(len(targets))
    for others, held_out in random_folds(groups, folds=folds, seed=seed):
        fit = choose_fit(scores[others], targets[others], functions, others, groups=groups[others])
        predicted[held_out] = predict(fit, scores[held_out], functions, held_out)
    return predicted


def learning_curve(
    scores: FloatArray,
    targets: FloatArray,
    functions: dict[float, Functions],
    *,
    groups: IntArray,
    draws: int = 10,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """How well a fit on fewer ratings predicts a fifth of the ratings that it has not seen.

    Args:
        scores, targets, functions, groups: see `cross_validated`.
        draws: times that the fifth is drawn, and from the rest the ratings to fit on.
        seed: of the draws.
        on_progress: gets the numbers of draws that are done and of all.

    Returns:
        For 0 ratings, each of `SIZES` that is left and the whole rest: `n`, and of `plcc`, `srocc` and `rmse` the mean
        over the draws and its standard deviation (`plcc_sd`, ...).
    """
    rng = np.random.default_rng(seed)
    numbers = np.unique(groups)
    rest = len(targets) - max(1, len(targets) // 5)
    sizes = [0, *(size for size in SIZES if size < 0.9 * rest), rest]
    figures: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for draw in range(draws):
        order = np.concatenate([np.flatnonzero(groups == number) for number in rng.permutation(numbers)])
        seen, unseen = order[:rest], order[rest:]
        seen = seen[~np.isin(groups[seen], groups[unseen])]
        for size in sizes:
            known = rng.permutation(seen)[:size]
            fit = choose_fit(scores[known], targets[known], functions, known, groups=groups[known]) if size else None
            predicted = predict(fit, scores[unseen], functions, unseen)
            figures[size].append(
                {**plcc_and_srocc(predicted, targets[unseen]), "rmse": rmse(predicted, targets[unseen])}
            )
        on_progress(draw + 1, draws)
    return [
        {"n": size}
        | {name: float(np.nanmean([one[name] for one in several])) for name in several[0]}
        | {f"{name}_sd": float(np.nanstd([one[name] for one in several])) for name in several[0]}
        for size, several in figures.items()
    ]


def _loss(fit: Fit, targets: FloatArray) -> float:
    return float(np.square(fit.left_out - targets).mean())


__all__ = ["SIZES", "choose_fit", "cross_validated", "learning_curve", "predict"]
