"""An ensemble with fewer learners: those that together serve best, as the checkpoint says."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..configuration_metaqap import MetaQAPConfig
from ..errors import MetaQAPError

if TYPE_CHECKING:
    from ..modeling_metaqap import MetaQAPModel


def check_learners(config: MetaQAPConfig, count: int | None) -> None:
    """Refuse a number of learners that a checkpoint cannot give; None means all of them.

    Raises:
        MetaQAPError: for less than one, more than there are, and where the checkpoint does not say which ones.
    """
    most = config.num_base_learners
    if count is None:
        return
    if not 1 <= count <= most:
        raise MetaQAPError(f"The checkpoint has {most} base learners; {count} of them cannot be taken.")
    if count < most and _subset(config, count) is None:
        raise MetaQAPError(
            f"The checkpoint does not say which {count} of its {most} base learners serve best; use all of them, or "
            "choose them with scripts/choose_learners.py."
        )


def keep_learners(model: "MetaQAPModel", count: int) -> "MetaQAPModel":
    """The model with the `count` learners that together serve best; it shares them with the one given.

    Which they are, their weights, their intercept and their interval are `config.learner_subsets`.

    Raises:
        MetaQAPError: see `check_learners`.
    """
    check_learners(model.config, count)
    if count == model.config.num_base_learners:
        return model
    # Here, so that a number can be checked without the model's code.
    from ..modeling_metaqap import MetaQAPMetaLearner

    subset = _subset(model.config, count)
    assert subset is not None
    config = MetaQAPConfig.from_dict(model.config.to_dict())
    config.base_learners = [config.base_learners[index] for index in subset["learners"]]  # type: ignore[index]
    if not any(learner["distortion_head"] for learner in config.base_learners):
        config.distortion_labels = []
    config.interval_radius = subset["interval_radius"]
    config.interval_scale = subset.get("interval_scale")
    config.familiar_distances = subset.get("familiar_distances")
    config.learner_subsets = None
    smaller = copy.copy(model)
    smaller._modules = dict(model._modules)
    smaller.config = config
    smaller.base_learners = nn.ModuleList(model.base_learners[index] for index in subset["learners"])
    smaller.meta_learner = MetaQAPMetaLearner(count).to(model.meta_learner.weight.device)
    smaller.meta_learner.weight.copy_(torch.tensor(subset["weights"]))
    smaller.meta_learner.intercept.fill_(subset["intercept"])
    return smaller.eval()


def _subset(config: MetaQAPConfig, count: int) -> dict[str, Any] | None:
    return next((one for one in config.learner_subsets or [] if len(one["learners"]) == count), None)


__all__ = ["check_learners", "keep_learners"]
