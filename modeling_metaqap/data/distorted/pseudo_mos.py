"""Pseudo opinion scores: full-reference metrics against the pristine image, fused into one score in [0, 1].

Thirteen metrics of `piq` each say how far a distorted image is from its reference. A metric's *deviation* is the
distance from the value that it gives to identical images, which brings all of them to one direction, and catches
metrics such as VIF that leave their usual range when contrast is exaggerated. The deviations are fused by rank, with
no opinion score involved: Borda's count (in the form of Dwork, Kumar, Naor and Sivakumar, "Rank aggregation methods
for the web", WWW 2001), applied to full-reference metrics as Ye, Kumar and Doermann, "Beyond human opinion scores:
blind image quality assessment based on synthetic scores" (CVPR 2014), apply reciprocal rank fusion.

The ranks are taken in a fixed reference population, not in the batch: `reference_population.json`, written by
`scripts/calibrate_pseudo_mos.py`, holds each metric's quantiles over all distortions and levels on pristine
photographs. A score of 0.7 means that, on the average of the metrics, 70 % of that population are farther from their
references. So a score depends on its own image pair alone, and adding images changes nothing.

>>> score = pseudo_mos(distorted, reference)  # both (B, 3, H, W) in [0, 1]
>>> score = pseudo_mos(distorted, reference, metrics="fast")
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import piq
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...errors import MetaQAPError

MetricFunction = Callable[[Tensor, Tensor], Tensor]

POPULATION_FILE = "reference_population.json"

# The last is not 1: the farthest images of the reference population keep a rank above 0, so that others can be worse.
_PROBABILITIES = np.append(np.linspace(0.0, 0.99, 100), 0.995)


@dataclass(frozen=True)
class FullReferenceMetric:
    """One full-reference metric.

    Attributes:
        name: Canonical name.
        function: Maps distorted and reference images, both (B, 3, H, W) in [0, 1], to (B,) values.
        identity: The value for identical images. The farther from it, the worse.
        higher_is_better: The metric's own direction.
        min_side: Shortest side in pixels that it accepts.
        source: The publication.
    """

    name: str
    function: MetricFunction
    identity: float
    higher_is_better: bool
    min_side: int
    source: str


def _unreduced(function: Callable[..., Any], **options: Any) -> MetricFunction:
    return functools.partial(function, reduction="none", data_range=1.0, **options)


def _one_by_one(function: MetricFunction) -> MetricFunction:
    """Call a metric for each image alone.

    piq's SR-SIM scales the saliency maps of a whole batch together, so that a value would depend on the other images,
    and its IW-SSIM raises for the whole batch if one reference has no structure; such an image gets NaN here.
    """

    def call(distorted: Tensor, reference: Tensor) -> Tensor:
        values = []
        for i in range(distorted.shape[0]):
            try:
                values.append(function(distorted[i : i + 1], reference[i : i + 1]))
            except torch.linalg.LinAlgError:
                values.append(distorted.new_full((1,), torch.nan))
        return torch.cat(values)

    return call


#: The 13 full-reference metrics by name.
METRICS: dict[str, FullReferenceMetric] = {
    metric.name: metric
    for metric in (
        FullReferenceMetric("psnr", _unreduced(piq.psnr), 80.0, True, 1, "peak signal-to-noise ratio"),
        FullReferenceMetric("ssim", _unreduced(piq.ssim), 1.0, True, 11, "Wang et al., IEEE TIP 2004"),
        FullReferenceMetric("ms_ssim", _unreduced(piq.multi_scale_ssim), 1.0, True, 161, "Wang et al., Asilomar 2003"),
        FullReferenceMetric(
            "iw_ssim",
            _one_by_one(_unreduced(piq.information_weighted_ssim)),
            1.0,
            True,
            161,
            "Wang and Li, IEEE TIP 2011",
        ),
        FullReferenceMetric("fsim", _unreduced(piq.fsim), 1.0, True, 16, "Zhang et al., IEEE TIP 2011 (FSIMc)"),
        FullReferenceMetric("vsi", _unreduced(piq.vsi), 1.0, True, 16, "Zhang et al., IEEE TIP 2014"),
        FullReferenceMetric("gmsd", _unreduced(piq.gmsd), 0.0, False, 16, "Xue et al., IEEE TIP 2014"),
        FullReferenceMetric(
            "ms_gmsd",
            _unreduced(piq.multi_scale_gmsd, chromatic=True),
            0.0,
            False,
            17,
            "Zhang et al., ICASSP 2017 (MS-GMSDc)",
        ),
        FullReferenceMetric("haarpsi", _unreduced(piq.haarpsi), 1.0, True, 16, "Reisenhofer et al., SPIC 2018"),
        FullReferenceMetric("vif_p", _unreduced(piq.vif_p), 1.0, True, 41, "Sheikh and Bovik, IEEE TIP 2006"),
        FullReferenceMetric("mdsi", _unreduced(piq.mdsi), 0.0, False, 16, "Nafchi et al., IEEE Access 2016"),
        FullReferenceMetric(
            "sr_sim", _one_by_one(_unreduced(piq.srsim, chromatic=True)), 1.0, True, 40, "Zhang and Li, ICIP 2012"
        ),
        FullReferenceMetric("dss", _unreduced(piq.dss), 1.0, True, 16, "Balanov et al., ICIP 2015"),
    )
}

#: Named sets of metrics: all of them, and a fast set that takes about an eighth of the time. It is the one that agreed
#: best with the full set on the photographs of the reference population; `studies/results/distortions.json` says how
#: closely on others.
METRIC_SETS: dict[str, tuple[str, ...]] = {
    "full": tuple(METRICS),
    "fast": ("ssim", "gmsd", "ms_gmsd", "sr_sim"),
}


def resolve_metrics(metrics: str | Iterable[str] = "full") -> tuple[str, ...]:
    """Turn "full", "fast", comma-separated names or an iterable of names into a tuple of metric names.

    Raises:
        MetaQAPError: A name is unknown or given twice, or there is none.
    """
    if isinstance(metrics, str):
        if metrics in METRIC_SETS:
            return METRIC_SETS[metrics]
        names = tuple(name.strip() for name in metrics.split(","))
    else:
        names = tuple(metrics)
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise MetaQAPError(
            f'Unknown metric "{unknown[0] if unknown else ""}". '
            f"Choose {', '.join(METRIC_SETS)}, or some of: {', '.join(METRICS)}."
        )
    if len(set(names)) < len(names):
        raise MetaQAPError(f"A metric is named twice in: {', '.join(names)}.")
    return names


@torch.no_grad()
def full_reference_scores(
    distorted: Tensor, reference: Tensor, *, metrics: str | Iterable[str] = "full"
) -> dict[str, Tensor]:
    """Compute full-reference metrics, each in its own range and direction.

    Args:
        distorted: Floating tensor in [0, 1], shape (B, 3, H, W) or (B, 1, H, W), on any device.
        reference: The pristine images, of the same shape, on the same device.
        metrics: "full", "fast", or names from `METRICS`.

    Returns:
        For each metric its values, float32 of shape (B,). Where an image equals its reference they are exactly the
        metric's identity value. NaN where a metric is not defined, such as IW-SSIM for a reference without structure.

    Raises:
        ValueError: Shapes or devices differ, values lie outside [0, 1], or the images are too small for a metric.
    """
    names = resolve_metrics(metrics)
    _check_images(distorted, reference)
    side, needed = min(distorted.shape[-2:]), max(METRICS[name].min_side for name in names)
    if side < needed:
        too_large = [name for name in names if METRICS[name].min_side > side]
        raise ValueError(
            f"{', '.join(too_large)} need{'s' * (len(too_large) == 1)} images of at least {needed} pixels on each "
            f'side, got {tuple(distorted.shape[-2:])}. Use larger images, or metrics="fast".'
        )
    with torch.autocast(distorted.device.type, enabled=False):
        x, y = (images.float().expand(-1, 3, -1, -1) for images in (distorted, reference))
        identical = (x == y).flatten(1).all(dim=1)
        return {
            name: METRICS[name]
            .function(x, y)
            .masked_fill(identical, METRICS[name].identity)
            .nan_to_num(nan=torch.nan, posinf=torch.nan, neginf=torch.nan)
            for name in names
        }


def fuse(scores: Mapping[str, Tensor], *, quantiles: Mapping[str, Sequence[float]] | None = None) -> Tensor:
    """Fuse full-reference metrics into pseudo opinion scores.

    Args:
        scores: For each metric its values, shape (B,), as `full_reference_scores` returns them.
        quantiles: For each metric its quantiles in the reference population, as `quantiles_of` returns them; the
            package's own by default.

    Returns:
        Scores in (0, 1], higher is better, shape (B,): the mean over the metrics, NaN left out, of an image's rank in
        the reference population. Exactly 1 for identical images.
    """
    if not scores:
        raise ValueError("There are no metrics to fuse.")
    table = load_reference_population()["quantiles"] if quantiles is None else quantiles
    ranks = [_rank(deviation(name, values), table[name]) for name, values in scores.items()]
    return torch.stack(ranks).nanmean(dim=0)


def pseudo_mos(distorted: Tensor, reference: Tensor, *, metrics: str | Iterable[str] = "full") -> Tensor:
    """Score distorted images against their pristine references.

    Args:
        distorted: Floating tensor in [0, 1], shape (B, 3, H, W) or (B, 1, H, W), on any device.
        reference: The pristine images, of the same shape, on the same device.
        metrics: "full" (the default), "fast", or names from `METRICS`.

    Returns:
        Pseudo opinion scores in (0, 1], higher is better, shape (B,); exactly 1 for identical images. A score does
        not depend on the other images.

    Raises:
        ValueError: As `full_reference_scores` raises it.
    """
    return fuse(full_reference_scores(distorted, reference, metrics=metrics))


def deviation(name: str, values: Tensor) -> Tensor:
    """Distance of a metric's values from its value for identical images: 0 or more, lower is better."""
    return (values - METRICS[name].identity).abs()


def quantiles_of(deviations: ArrayLike) -> list[float]:
    """A metric's quantiles in a reference population: the table that `fuse` takes ranks from.

    Args:
        deviations: The metric's deviations over the population; NaN is left out.
    """
    finite = np.asarray(deviations, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    quantiles = np.quantile(finite, _PROBABILITIES)
    # Nothing is nearer to a reference than itself: the first knot stands for it.
    quantiles[0] = 0.0
    return [float(f"{value:.6g}") for value in quantiles]


@functools.cache
def load_reference_population() -> dict[str, Any]:
    """The package's reference population: provenance, and under "quantiles" a list of quantiles for each metric."""
    text = resources.files(__package__).joinpath(POPULATION_FILE).read_text(encoding="utf-8")
    return json.loads(text)


def _rank(deviations: Tensor, quantiles: Sequence[float]) -> Tensor:
    """The share of the reference population that is farther from its reference, interpolated between the quantiles.

    Past the last quantile the rank falls in inverse proportion to the deviation, so that it stays ordered.
    """
    knots = torch.tensor(quantiles, dtype=torch.float32, device=deviations.device)
    ranks = torch.tensor(1.0 - _PROBABILITIES, dtype=torch.float32, device=deviations.device)
    right = torch.searchsorted(knots, deviations, right=True).clamp(1, len(knots) - 1)
    left = right - 1
    span = (knots[right] - knots[left]).clamp_min(torch.finfo(torch.float32).tiny)
    share = ((deviations - knots[left]) / span).clamp(0.0, 1.0)
    inside = ranks[left] + share * (ranks[right] - ranks[left])
    return torch.where(deviations > knots[-1], ranks[-1] * knots[-1] / deviations, inside)


def _check_images(distorted: Tensor, reference: Tensor) -> None:
    if distorted.shape != reference.shape:
        raise ValueError(
            f"Distorted and reference images differ in shape: {tuple(distorted.shape)} and {tuple(reference.shape)}."
        )
    if distorted.device != reference.device:
        raise ValueError(
            f"Distorted and reference images lie on different devices: {distorted.device} and {reference.device}."
        )
    if distorted.ndim != 4 or distorted.shape[1] not in (1, 3) or distorted.shape[0] == 0:
        raise ValueError(f"Images must have shape (B, 3, H, W) or (B, 1, H, W), got {tuple(distorted.shape)}.")
    for images in (distorted, reference):
        if not images.is_floating_point():
            raise ValueError(f"Images must be floating tensors in [0, 1], got {images.dtype}; divide uint8 by 255.")
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError("Images must hold values in [0, 1].")


__all__ = [
    "METRICS",
    "METRIC_SETS",
    "FullReferenceMetric",
    "deviation",
    "full_reference_scores",
    "fuse",
    "load_reference_population",
    "pseudo_mos",
    "quantiles_of",
    "resolve_metrics",
]
