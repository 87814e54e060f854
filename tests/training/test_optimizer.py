from dataclasses import replace

import pytest
import torch

from modeling_metaqap.training.learner import (
    freeze_stages,
)
from modeling_metaqap.training.optimizer import make_optimizer, parameter_groups
from modeling_metaqap.training.recipe import Recipe


def test_heads_and_backbone_learn_at_their_own_rates_and_only_matrices_decay(make_model):
    model = make_model("test_efficientnet")
    freeze_stages(model, 1)
    recipe = Recipe(
        backbone="x", learning_rate=1e-4, head_learning_rate=1e-3, distortion_learning_rate=1e-2, weight_decay=0.02
    )
    settings_of = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in settings_of
        elif ".backbone." in name:
            assert settings_of[id(parameter)] == (1e-4, 0.02 if parameter.ndim > 1 else 0), name
        else:
            rate = 1e-2 if "distortion_head" in name else 1e-3
            assert settings_of[id(parameter)] == (rate, 0), name


def rates(recipe, model, steps):
    optimizer, scheduler = make_optimizer(model, recipe, steps_per_epoch=10)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, seen


def test_rates_rise_and_fall_as_the_recipe_says(make_model):
    model = make_model("test_resnet", distortion_labels=[])
    recipe = Recipe(backbone="x", epochs=6, learning_rate=0.1, head_learning_rate=0.1, warmup_fraction=0.1)
    optimizer, cosine = rates(recipe, model, 60)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert cosine[0] == 0 and cosine[6] == pytest.approx(0.1) and max(cosine) == cosine[6] and cosine[-1] < 1e-3
    recipe = replace(recipe, optimizer="sgd", schedule="halving", halving_epochs=2, warmup_fraction=0.0)
    optimizer, halving = rates(recipe, model, 60)
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9
    assert halving == pytest.approx([0.1] * 20 + [0.05] * 20 + [0.025] * 20)
