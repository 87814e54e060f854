"""A base learner in training: the weights that it starts from, and which of them learn."""

from pathlib import Path
from typing import Any, cast

import torch
from timm.layers import DropPath
from torch import nn

from ..checkpoint_reading import read_model
from ..configuration_metaqap import MetaQAPConfig
from ..errors import MetaQAPError
from ..lineage import write_stages
from ..modeling_metaqap import MetaQAPBaseLearner, MetaQAPModel
from .backbones import imagenet_weights, load_imagenet_weights
from .recipe import Recipe


def model_config(recipe: Recipe) -> MetaQAPConfig:
    """Configuration of the base learner that a recipe trains from ImageNet weights, before any training."""
    weights = imagenet_weights(recipe.backbone)
    learner = {
        "backbone": recipe.backbone,
        "stages": recipe.stages,
        "scales": recipe.scales or [1],
        "lineage": write_stages([weights.stage()]),
    }
    return MetaQAPConfig(
        base_learners=[learner | weights.normalization()],
        distortion_labels=None if recipe.learns_distortions else [],
        loss_mse_weight=recipe.loss_mse_weight,
        loss_srocc_weight=recipe.loss_srocc_weight,
        loss_surrogate=recipe.loss_surrogate,
    )


def new_base_learner(recipe: Recipe, *, init: str | Path | None = None) -> MetaQAPModel:
    """A base learner with ImageNet weights in its backbone and untrained heads, or the trained one in `init`.

    Where the recipe says no `scales`, those of the trained one are kept. With others its heads do not fit, and only
    its backbone is taken.

    Its lineage says what its weights were made of so far.

    Raises:
        MetaQAPError: for a backbone that timm or its weights do not offer, or an `init` that is not such a learner.
    """
    torch.manual_seed(recipe.seed)
    try:
        config = model_config(recipe)
        trained = None if init is None else _open_learner(init, recipe, config)
        model = MetaQAPModel(config)
        learner = base_learners_of(model)[0]
        if trained is None:
            load_imagenet_weights(learner.backbone, imagenet_weights(recipe.backbone))
        else:
            _load_learner(learner, config, trained, init, new_distortion_head=recipe.refit_distortion_head)
    except (OSError, ValueError) as error:
        raise MetaQAPError(str(error)) from error
    freeze_stages(model, recipe.freeze_stages)
    if learner.distortion_head is not None and not recipe.trains_distortions:
        learner.distortion_head.requires_grad_(False)
    return cast(nn.Module, model).to(memory_format=torch.channels_last)  # type: ignore[return-value]


def _open_learner(init: str | Path, recipe: Recipe, config: MetaQAPConfig) -> MetaQAPModel:
    """The trained learner in `init`.

    The configuration takes over its lineage, how it normalises images and, unless the recipe says them, its scales;
    and where the recipe takes no gradient steps, the loss by which it was trained.
    """
    trained = read_model(init)
    [wanted] = config.base_learners  # type: ignore[misc]
    for own in trained.config.base_learners if trained.config.num_base_learners == 1 else []:  # type: ignore[union-attr]
        kept = {name: own[name] for name in ("image_mean", "image_std", "lineage")}
        if own | {"kernel_head": None, "residual_heads": [], "scales": wanted["scales"]} == wanted | kept:
            wanted.update(kept)
            if recipe.scales is None:
                wanted["scales"] = own["scales"]
            if recipe.epochs == 0:
                for name in ("loss_mse_weight", "loss_srocc_weight", "loss_surrogate"):
                    setattr(config, name, getattr(trained.config, name))
            return trained
    raise MetaQAPError(f"{init} does not hold the base learner that the recipe describes.")


def _load_learner(
    learner: MetaQAPBaseLearner,
    config: MetaQAPConfig,
    trained: MetaQAPModel,
    init: str | Path | None,
    *,
    new_distortion_head: bool,
) -> None:
    """Take over the weights of a trained learner.

    The kernel heads, and a distortion head that the new one does not have, are dropped. With `new_distortion_head` the
    trained learner needs none. Heads on features of other scales are dropped, too, with what standardises these.
    """
    same_features = base_learners_of(trained)[0].scales == learner.scales
    same = trained.config.distortion_labels == config.distortion_labels and same_features
    if config.distortion_labels and not same and not new_distortion_head:
        where = "" if same_features else " at these scales"
        raise MetaQAPError(
            f"{init} has no head for the {len(config.distortion_labels)} distortions{where}; pretrain it first."
        )
    dropped = ["kernel_head.", "residual_heads."]
    if not same:
        dropped.append("distortion_head.")
    if not same_features:
        dropped += ["quality_head.", "feature_mean", "feature_std"]
    weights = base_learners_of(trained)[0].state_dict()
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(dropped))}
    # Not strict for the sake of these heads; everything else is there, as the descriptions are the same.
    learner.load_state_dict(weights, strict=False)


def base_learners_of(model: MetaQAPModel) -> list[MetaQAPBaseLearner]:
    return cast(list[MetaQAPBaseLearner], list(model.base_learners))


def freeze_stages(model: MetaQAPModel, count: int) -> None:
    """Stop gradients in the weights of the first `count` stages of each base learner's backbone.

    And in those behind the last pooled stage, which no score depends on: data parallelism would wait for a gradient of
    theirs in vain.
    """
    for learner in base_learners_of(model):
        info = cast(Any, learner.backbone).feature_info
        # Also the ones that are not pooled themselves, but lie before one that is.
        names = [stage["module"] for stage in info.info[: max(info.out_indices) + 1]]
        if not 0 <= count <= len(names):
            raise MetaQAPError(f"`freeze_stages` must lie between 0 and {len(names)}, got {count}.")
        # Modules are listed in the order of the data's way, so everything before a stage lies before it in the list.
        modules = list(learner.backbone.named_modules())
        frozen = modules[: _end_of(names[count - 1], modules)] if count else []
        if len(names) < len(info.info):
            frozen += modules[_end_of(names[-1], modules) :]
        for _, module in frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def _end_of(stage: str, modules: list[tuple[str, nn.Module]]) -> int:
    """Where in a list of named modules the first one behind a stage stands."""
    # Some of timm's feature extractors turn the module "stages.0" into "stages_0".
    inside = f"{stage}.", f"{stage.replace('.', '_')}."
    return 1 + max(place for place, (name, _) in enumerate(modules) if f"{name}.".startswith(inside))


def add_drop_path(model: MetaQAPModel, rate: float) -> None:
    """Leave out residual blocks of each base learner's backbone at random while it trains.

    Args:
        model: base learners, in place. Their weights and what they score stay as they are.
        rate: of the last block; that of the others rises linearly from 0 at the first.

    Raises:
        MetaQAPError: for a backbone without such blocks.

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016, equation 4.
    """
    for learner in base_learners_of(model):
        blocks = [module for module in learner.backbone.modules() if hasattr(module, "drop_path")]
        if not blocks:
            raise MetaQAPError("This backbone has no residual blocks that timm can leave out; set `drop_path` to 0.")
        for number, block in enumerate(blocks):
            block.drop_path = DropPath(rate * number / max(1, len(blocks) - 1)).train(block.training)


@torch.no_grad()
def move_toward_imagenet(model: MetaQAPModel, share: float) -> None:
    """Move the backbone's weights part of the way back to the ImageNet weights that it once started from.

    Fine-tuning gains on photographs like the training ones and loses on others. Between its two ends lie weights that
    keep most of the gain and lose little. The heads do not fit the features any more and must be fitted anew.

    Args:
        model: one base learner, in place.
        share: in [0, 1]; 0 changes nothing, 1 gives the ImageNet weights.

    Raises:
        MetaQAPError: where the weights are neither installed nor can be downloaded, or are not those that the learner
            started from.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1 (from the other end).
    """
    [learner] = model.config.base_learners  # type: ignore[misc]
    weights = imagenet_weights(learner["backbone"])
    if learner | weights.normalization() != learner:
        raise MetaQAPError(
            f"The learner normalises images in another way than the ImageNet weights of {weights.source}, so it did "
            "not start from these and cannot be moved toward them."
        )
    backbone = cast(Any, base_learners_of(model)[0].backbone)
    trained = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    try:
        load_imagenet_weights(backbone, weights)
    except OSError as error:
        raise MetaQAPError(str(error)) from error
    for name, tensor in backbone.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(trained[name], 1.0 - share)


def freeze_batch_norm(model: nn.Module) -> None:
    """Keep BatchNorm at its ImageNet statistics; call after each `model.train()`.

    Small batches of crops estimate them worse, and with them a score would depend on the other images in its batch
    and on the number of processes.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


__all__ = [
    "add_drop_path",
    "base_learners_of",
    "freeze_batch_norm",
    "freeze_stages",
    "model_config",
    "move_toward_imagenet",
    "new_base_learner",
]
