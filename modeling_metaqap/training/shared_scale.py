"""Ratings of several sets on one scale, for the heads that are fitted in closed form."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..modeling_metaqap import MetaQAPModel
from .heads import fit_ridge_head, linear_scores
from .set_lines import SetLines


def start_lines(
    model: MetaQAPModel, features: Tensor, ratings: Tensor, sets: Tensor, lines: SetLines, *, penalty: float | None
) -> None:
    """Begin the lines of several sets: each set's ratings beside the scores of a head that is fitted to the first one.

    Args:
        model: one base learner; its quality head is that one afterwards.
        features: `(n, F)`, from `pooled_features`.
        ratings: `(n,)`, on the scale of each row's set.
        sets: `(n,)`, its numbers.
        lines: changed.
        penalty: of the head, see `fit_ridge_head`.
    """
    first = sets == 0
    fit_ridge_head(model, features[first], ratings[first], penalty=penalty)
    lines.start(linear_scores(model, features), ratings, sets)


def shared_targets(
    ratings: Tensor, sets: Tensor, lines: SetLines | None, *, parts: Sequence[float]
) -> tuple[Tensor, Tensor | None]:
    """Ratings of several sets as quality on their shared scale, and what each of them weighs.

    The weights make the squared errors on the shared scale those of the loss: each set has its part, and an error
    counts as large as it is on the set's own scale.

    Args:
        ratings: `(n,)`, on the scale of each row's set.
        sets: `(n,)`, its numbers.
        lines: of the sets; None if there is one.
        parts: of the batches that are of each set.

    Returns:
        Quality and weights, `(n,)` each; the weights are 1 on average. Of one set the ratings as they are, and None.
    """
    if lines is None:
        return ratings, None
    sizes = torch.bincount(sets, minlength=len(parts))
    weights = (torch.tensor(parts, dtype=torch.float64) / sizes)[sets] * lines.slopes(sets).square()
    return lines.quality(ratings, sets), weights / weights.mean()


__all__ = ["shared_targets", "start_lines"]
