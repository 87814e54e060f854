"""What a model says of one image, as plain numbers and names; without the model's code, which takes long to import."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .configuration_metaqap import MetaQAPConfig
from .crops_metaqap import merge_crops
from .interval_metaqap import familiarity, prediction_interval

#: Outputs that are one thing for each image, see `MetaQAPOutput`.
IMAGE_OUTPUTS = ("logits", "base_scores", "distances", "interval", "familiarity", "distortion_logits")

# Of them, those that are the weighted mean over the crops. The others follow from these.
_MEANS_OF_CROPS = ("logits", "base_scores", "distances", "distortion_logits")


def assess_image(crop_outputs: Sequence[Mapping[str, Tensor]], config: MetaQAPConfig) -> dict[str, Any]:
    """What a model says of one image whose crops it was given one by one, as plain numbers and names.

    Args:
        crop_outputs: for each crop those of `IMAGE_OUTPUTS` that the model has, `(1, ...)`.
        config: of the model.

    Returns:
        `quality`, `quality_low`, `quality_high`, `interval_coverage`, `familiarity`, `distortion` (the most likely
        one), `distortion_probability`, `base_scores`, `distortion_probabilities` and `distances`, in the order of the
        configuration's `base_learners` and `distortion_labels`. What the model does not have is None. Of an image
        without a finite score only the `error` that says so.
    """
    labels = config.distortion_labels
    merged = {
        name: merge_crops(torch.cat([outputs[name] for outputs in crop_outputs]).float().unsqueeze(0))[0]
        for name in _MEANS_OF_CROPS
        if name in crop_outputs[0]
    }
    quality = merged["logits"].item()
    if not math.isfinite(quality):
        return {"error": "the model gave it no finite score"}
    whole = {name: values.unsqueeze(0) for name, values in merged.items()}
    distances = whole["distances"]
    # Of the photograph, as where its crops are given together; that is not the mean over the crops' intervals.
    interval = prediction_interval(config, whole["logits"], whole["base_scores"], distances)
    low, high = (None, None) if interval is None else interval[0].tolist()
    likeness = familiarity(config, distances)
    distortion, probability, probabilities = None, None, None
    if "distortion_logits" in merged and labels:
        probabilities = merged["distortion_logits"].softmax(dim=0).tolist()
        probability = max(probabilities)
        distortion = labels[probabilities.index(probability)]
    coverage = None if low is None else config.interval_coverage
    return {
        "quality": quality,
        "quality_low": low,
        "quality_high": high,
        "interval_coverage": coverage,
        "familiarity": None if likeness is None else likeness.item(),
        "distortion": distortion,
        "distortion_probability": probability,
        "base_scores": merged["base_scores"].tolist(),
        "distortion_probabilities": probabilities,
        "distances": merged["distances"].tolist(),
        "error": None,
    }


__all__ = ["IMAGE_OUTPUTS", "assess_image"]
