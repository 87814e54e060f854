"""The optimizer of a recipe and the schedule of its rates."""

from typing import Any

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from ..modeling_metaqap import MetaQAPModel
from .recipe import Recipe


def make_optimizer(
    model: MetaQAPModel, recipe: Recipe, *, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimizer of a recipe, and the schedule of its rates over all its steps."""
    groups = parameter_groups(model, recipe)
    optimizer: torch.optim.Optimizer
    optimizer = torch.optim.AdamW(groups) if recipe.optimizer == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    total = recipe.epochs * steps_per_epoch
    warmup = int(recipe.warmup_fraction * total)
    if recipe.schedule == "cosine":
        return optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, total)

    def halved(step: int) -> float:
        rise = step / warmup if step < warmup else 1.0
        return rise * 0.5 ** (step // (recipe.halving_epochs * steps_per_epoch))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, halved)


def parameter_groups(model: MetaQAPModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for the optimizer: heads and backbone have their own rates; heads, biases and norms are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.learning_rate if ".backbone." in name else recipe.head_learning_rate
        rate = recipe.distortion_learning_rate if ".distortion_head." in name else rate
        decay = recipe.weight_decay if parameter.ndim > 1 and ".backbone." in name else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


__all__ = ["make_optimizer", "parameter_groups"]
