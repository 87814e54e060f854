"""The quality-aware loss: mean squared error plus a differentiable stand-in for Spearman's rank correlation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# Added to variances: keeps the correlation of constant vectors at 0 with finite gradients instead of 0 / 0.
_VARIANCE_FLOOR = 1e-12

# Of soft ranks, for predictions on the [0, 1] quality scale.
_TEMPERATURE = 0.05


def _pearson(x: Tensor, y: Tensor, mean: Callable[[Tensor], Tensor] = torch.mean) -> Tensor:
    x = x - mean(x)
    y = y - mean(y)
    return mean(x * y) / ((mean(x.square()) + _VARIANCE_FLOOR) * (mean(y.square()) + _VARIANCE_FLOOR)).sqrt()


def softmax_correlation(predictions: Tensor, targets: Tensor) -> Tensor:
    """Pearson correlation of the softmax of both vectors, the paper authors' stand-in for SROCC.

    No ranks are in it: on the [0, 1] scale the softmax is close to linear, so this is close to PLCC.

    Args:
        predictions: `(B,)`, any range.
        targets: `(B,)`, any range.

    Returns:
        `()` in [-1, 1]; 0 where the correlation is undefined (one item, constant input).
    """
    # Softmax sums to 1, so its entries shrink with B; times B they have mean 1 and the variance floor stays small.
    size = predictions.numel()
    return _pearson(size * predictions.softmax(dim=0), size * targets.softmax(dim=0))


def soft_rank_correlation(predictions: Tensor, targets: Tensor, *, temperature: float = _TEMPERATURE) -> Tensor:
    """Differentiable Spearman correlation: Pearson correlation of the predictions' soft ranks and the targets' ranks.

    A soft rank counts the smaller items with a sigmoid in place of a step, `1/2 + sum_j sigmoid((x_i - x_j) / t)`,
    after Qin, Liu and Li, "A general approximation framework for direct optimization of information retrieval
    measures" (Information Retrieval 13, 2010), eq. 7. With `temperature -> 0` it is Spearman's correlation with
    tied ranks averaged.

    Args:
        predictions: `(B,)`, on the [0, 1] quality scale that the default temperature suits.
        targets: `(B,)`, any range; only their order counts.
        temperature: in units of the predictions, > 0.

    Returns:
        `()` in [-1, 1]; 0 where the correlation is undefined (one item, constant targets).
    """
    soft_ranks = ((predictions[:, None] - predictions[None, :]) / temperature).sigmoid().sum(dim=1)
    smaller = (targets[:, None] > targets[None, :]).to(predictions.dtype).sum(dim=1)
    equal = (targets[:, None] == targets[None, :]).to(predictions.dtype).sum(dim=1)
    # Ranks are divided by B so that the variance floor means the same at each batch size.
    return _pearson(soft_ranks / predictions.numel(), (smaller + equal / 2) / predictions.numel())


SURROGATES = {"softmax": softmax_correlation, "soft_rank": soft_rank_correlation}


def correlation_within_sets(predictions: Tensor, targets: Tensor, sets: Tensor, *, surrogate: str) -> Tensor:
    """Mean over several sets of a surrogate correlation within each, each weighted by its number of items.

    Items of different sets are never compared. A set with fewer than two items does not count. All sets are computed
    at once, without a number that the host would have to wait for.

    Args:
        predictions: `(B,)`, each on the scale of its set.
        targets: `(B,)`.
        sets: `(B,)`, the number of each item's set.
        surrogate: a key of `SURROGATES`.

    Returns:
        `()` in [-1, 1]; 0 where no set has two items.
    """
    # Row i holds the members of the set of item i, so a mean over rows is one over sets weighted by their sizes.
    same = sets[:, None] == sets[None, :]
    sizes = same.sum(dim=1).to(predictions.dtype)

    def mean(values: Tensor) -> Tensor:
        return (values * same).sum(dim=1, keepdim=True) / sizes[:, None]

    if surrogate == "softmax":
        hidden = torch.finfo(predictions.dtype).min
        x, y = (
            sizes[:, None] * values.expand(len(values), -1).masked_fill(~same, hidden).softmax(dim=1)
            for values in (predictions, targets)
        )
    else:
        soft_ranks = (((predictions[:, None] - predictions[None, :]) / _TEMPERATURE).sigmoid() * same).sum(dim=1)
        smaller = ((targets[:, None] > targets[None, :]) & same).sum(dim=1)
        equal = ((targets[:, None] == targets[None, :]) & same).sum(dim=1)
        x, y = ((ranks / sizes).expand(len(sizes), -1) for ranks in (soft_ranks, smaller + equal / 2))
    correlations = _pearson(x, y, mean).squeeze(1)
    counted = sizes >= 2
    return (correlations * counted).sum() / counted.sum().clamp(min=1)


def quality_aware_loss(
    predictions: Tensor,
    targets: Tensor,
    *,
    lambda_mse: float = 0.5,
    lambda_srocc: float = 0.5,
    surrogate: str = "softmax",
    sets: Tensor | None = None,
) -> Tensor:
    """The MetaQAP training loss, `lambda_mse * 0.5 * MSE + lambda_srocc * (1 - surrogate SROCC)`.

    The correlation is a statistic of the batch: under data parallelism gather predictions with gradient first. Where
    the batch mixes sets with different raters, it is taken within each set only, see `correlation_within_sets`.

    Args:
        predictions: `(B,)` or `(B, 1)`, on the scale of the targets.
        targets: the same number of elements; quality in [0, 1].
        lambda_mse: weight of the squared error, >= 0.
        lambda_srocc: weight of the correlation term, >= 0.
        surrogate: `"softmax"` (the authors' form) or `"soft_rank"` (a differentiable Spearman correlation).
        sets: the same number of elements, the number of each item's set; None for one set.

    Returns:
        `()`. Finite with finite gradients also for one item or constant targets, where the surrogate counts as 0.

    Raises:
        ValueError: for an unknown surrogate, an empty batch or different numbers of predictions, targets and sets.

    Source: MetaQAP (arXiv 2506.16601), quality-aware loss.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"Unknown surrogate {surrogate!r}; choose one of {sorted(SURROGATES)}.")
    if predictions.numel() != targets.numel() or predictions.numel() == 0:
        raise ValueError(
            f"Need one target for each prediction and at least one; got {predictions.numel()} predictions and "
            f"{targets.numel()} targets."
        )
    if sets is not None and sets.numel() != targets.numel():
        raise ValueError(f"Need the set of each target; got {sets.numel()} sets and {targets.numel()} targets.")
    # Half precision cannot resolve the differences that a rank correlation is about.
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    predictions = predictions.reshape(-1).to(dtype)
    targets = targets.reshape(-1).to(dtype)
    mse = F.mse_loss(predictions, targets)
    if sets is None:
        correlation = SURROGATES[surrogate](predictions, targets)
    else:
        correlation = correlation_within_sets(predictions, targets, sets.reshape(-1), surrogate=surrogate)
    return lambda_mse * 0.5 * mse + lambda_srocc * (1 - correlation)


__all__ = ["correlation_within_sets", "quality_aware_loss", "soft_rank_correlation", "softmax_correlation"]
