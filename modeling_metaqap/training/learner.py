"""A base learner in training: how it starts, what of it learns, and its head in closed form."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import get_cosine_schedule_with_warmup

from ..backbones import load_imagenet_weights
from ..configuration_metaqap import MetaQAPConfig
from ..modeling_metaqap import MetaQAPBaseLearner, MetaQAPKernelHead, MetaQAPModel
from .recipe import Recipe, RecipeError


def new_base_learner(recipe: Recipe, *, init: str | Path | None = None) -> MetaQAPModel:
    """A base learner with ImageNet weights in its backbone and untrained heads, or the trained one in `init`.

    Raises:
        RecipeError: for a backbone that timm or its weights do not offer, or an `init` that is not such a learner.
    """
    torch.manual_seed(recipe.seed)
    try:
        model = MetaQAPModel(recipe.model_config())
        learner = base_learners_of(model)[0]
        if init is None:
            load_imagenet_weights(learner.backbone, recipe.backbone)
        else:
            _load_learner(learner, model.config, init, new_distortion_head=recipe.refit_distortion_head)
    except (OSError, ValueError) as error:
        raise RecipeError(str(error)) from error
    freeze_stages(model, recipe.freeze_stages)
    if learner.distortion_head is not None and not recipe.trains_distortions:
        learner.distortion_head.requires_grad_(False)
    return cast(nn.Module, model).to(memory_format=torch.channels_last)  # type: ignore[return-value]


def _load_learner(
    learner: MetaQAPBaseLearner, config: MetaQAPConfig, init: str | Path, *, new_distortion_head: bool
) -> None:
    """Take over the weights of a trained learner.

    The kernel head, and a distortion head that the new one does not have, are dropped. With `new_distortion_head` the
    trained learner needs none.
    """
    try:
        trained = MetaQAPModel.from_pretrained(init)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{init} holds no trained base learner: {str(error).splitlines()[0]}") from error
    described = [one | {"kernel_head": None} for one in trained.config.base_learners]  # type: ignore[union-attr]
    if described != config.base_learners:
        raise RecipeError(f"{init} does not hold the base learner that the recipe describes.")
    same = trained.config.distortion_labels == config.distortion_labels
    if config.distortion_labels and not same and not new_distortion_head:
        raise RecipeError(
            f"{init} has no head for the {len(config.distortion_labels)} distortions; pretrain it first."
        )
    dropped = ("kernel_head.",) if same else ("kernel_head.", "distortion_head.")
    weights = base_learners_of(trained)[0].state_dict()
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(dropped)}
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
            raise RecipeError(f"`freeze_stages` must lie between 0 and {len(names)}, got {count}.")
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


@torch.no_grad()
def move_toward_imagenet(model: MetaQAPModel, share: float) -> None:
    """Move the backbone's weights part of the way back to the ImageNet weights that it once started from.

    Fine-tuning gains on photographs like the training ones and loses on others. Between its two ends lie weights that
    keep most of the gain and lose little. The heads do not fit the features any more and must be fitted anew.

    Args:
        model: one base learner, in place.
        share: in [0, 1]; 0 changes nothing, 1 gives the ImageNet weights.

    Raises:
        RecipeError: where the weights are neither installed nor can be downloaded.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1 (from the other end).
    """
    backbone = cast(Any, base_learners_of(model)[0].backbone)
    trained = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    try:
        load_imagenet_weights(backbone, model.config.base_learners[0]["backbone"])  # type: ignore[index]
    except OSError as error:
        raise RecipeError(str(error)) from error
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


@torch.no_grad()
def pooled_features(
    model: MetaQAPModel,
    loader: Iterable[dict[str, Tensor]],
    *,
    device: torch.device,
    gather: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda tensors: tensors,
    targets: Sequence[str] = ("labels",),
) -> tuple[Tensor, ...]:
    """Features of all images of a loader before standardisation, and what to learn about them.

    Args:
        model: one base learner, on `device`.
        loader: over the images; gives the `targets` `(B,)` and `pixel_values`, `(B, 3, H, W)` uint8 or
            `(B, N, 3, H, W)` in [0, 1] with `crop_weights` `(B, N)`.
        device: where to compute.
        gather: brings the parts of a batch of all processes together.
        targets: keys of the batch: `"labels"` for quality, `"distortion"` for the class.

    Returns:
        Features `(n, F)` in float64, and each of the targets `(n,)`, in float64 too unless they are whole numbers; on
        the CPU.
    """
    learner = base_learners_of(model)[0].eval()
    batches = []
    for batch in loader:
        pixels = batch["pixel_values"].to(device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        weights = batch.get("crop_weights", torch.ones(len(pixels), 1)).to(device)
        crops = pixels.reshape(-1, *pixels.shape[-3:]).contiguous(memory_format=torch.channels_last)
        pooled = learner.pool(learner.stage_activations(crops)).unflatten(0, weights.shape)
        pooled = (pooled * weights.unsqueeze(-1)).sum(dim=1)
        gathered = gather((pooled, *(batch[target].to(device) for target in targets)))
        batches.append([tensor.cpu() for tensor in gathered])
    found = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in found)


@torch.no_grad()
def fit_ridge_head(
    model: MetaQAPModel,
    features: Tensor,
    targets: Tensor,
    *,
    penalty: float | None = None,
    distorted: tuple[Tensor, Tensor] | None = None,
    distorted_weight: float = 0.0,
) -> dict[str, float]:
    """Set the feature standardisation and the quality head by ridge regression on the backbone's pooled features.

    Before fine-tuning it gives a head that makes sense, so that the first gradients do not destroy the backbone. After
    it, on whole images, it replaces a head that has seen crops only and that gradient steps have made noisy. The
    distortion head is rewritten for the new standardisation; what it says does not change.

    Opinions on photographs alone leave open how quality falls when a distortion is added to one. With distorted images
    the head learns that too, from pseudo opinion scores. Where these begin on the scale of the opinions is not known,
    so the distorted images have an intercept of their own, which is then dropped.

    Args:
        model: one base learner.
        features: `(n, F)`, from `pooled_features`.
        targets: `(n,)`, quality.
        penalty: on the squared weights of the standardised features, for each image; by default chosen by generalised
            cross-validation (Golub, Heath and Wahba, 1979). That choice is for images like these; photographs from
            other sources ask for a higher one.
        distorted: features and pseudo opinion scores of distorted images, `(m, F)` and `(m,)`.
        distorted_weight: what all of these weigh together, in units of all photographs; 0 leaves them out.

    Returns:
        The penalty for each image, and the training RMSE.
    """
    learner = base_learners_of(model)[0]
    x, y = features, targets
    mean, std = x.mean(dim=0), x.std(dim=0)
    # A dead channel has no spread; standardising it by 1 leaves it at zero.
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    rows, centered = (x - mean) / std, y - y.mean()
    if distorted is not None and distorted_weight:
        others, scores = distorted
        factor = math.sqrt(distorted_weight * len(x) / len(others))
        rows = torch.cat([rows, (others - others.mean(dim=0)) / std * factor])
        centered = torch.cat([centered, (scores - scores.mean()) * factor])
    u, singular_values, vt = torch.linalg.svd(rows, full_matrices=False)
    projected = u.T @ centered
    if penalty is None:
        best = (math.inf, 0.0)
        for total in np.logspace(-1, 5, 13).tolist():
            shrink = singular_values.square() / (singular_values.square() + total)
            # Of the photographs alone, whatever else weighs in.
            residual = y - y.mean() - u[: len(y)] @ (shrink * projected)
            freedom = (u[: len(y)].square() @ shrink).sum().item()
            gcv = residual.square().mean().item() / (1 - freedom / len(y)) ** 2
            best = min(best, (gcv, total))
        penalty = best[1] / len(y)
    weight = vt.T @ (singular_values / (singular_values.square() + penalty * len(y)) * projected)
    if learner.distortion_head is not None:
        head = learner.distortion_head
        old_mean, old_std, old = (
            tensor.cpu().double() for tensor in (learner.feature_mean, learner.feature_std, head.weight)
        )
        head.bias.add_((old @ ((mean - old_mean) / old_std)).to(head.bias))
        head.weight.copy_(old * (std / old_std))
    learner.feature_mean.copy_(mean)
    learner.feature_std.copy_(std)
    learner.quality_head.weight.copy_(weight.unsqueeze(0))
    learner.quality_head.bias.fill_(y.mean().item())
    learner.kernel_head = None
    model.config.base_learners[0]["kernel_head"] = None  # type: ignore[index]
    fitted = (x - mean) / std @ weight + y.mean()
    return {"ridge_penalty": penalty, "train_rmse": (fitted - y).square().mean().sqrt().item()}


def _standardized(learner: MetaQAPBaseLearner, features: Tensor) -> Tensor:
    """As `MetaQAPBaseLearner.standardize`, but where and as precise as the features are: float64 on the CPU."""
    return (features - learner.feature_mean.to(features)) / learner.feature_std.to(features)


@torch.no_grad()
def fit_kernel_head(
    model: MetaQAPModel,
    features: Tensor,
    targets: Tensor,
    *,
    num_components: int,
    num_centers: int,
    gamma: float,
    penalty: float,
    seed: int,
) -> dict[str, float]:
    """Give the learner a kernel head: kernel ridge regression of what its linear head leaves over.

    Args:
        model: one base learner, with its linear head fitted to the same features.
        features: `(n, F)`, from `pooled_features`.
        targets: `(n,)`, quality.
        num_components: principal components of the standardised features to measure distances in; at most F and n.
        num_centers: training images that become centres, drawn at random if there are more.
        gamma: inverse square width of the Gaussians, in units of the components' total variance: 1 reaches as far as
            the training images lie apart, higher values keep the head to photographs that resemble one of them.
        penalty: of the regression, > 0; 1 is the weight of one image.
        seed: of the draw.

    Returns:
        The training RMSE.

    Source: kernel ridge regression where every image is a centre; otherwise its Nystroem estimator, Rudi, Carratino
    and Rosasco, "FALKON: an optimal large scale kernel method", NeurIPS 2017, equation 8, solved directly.
    """
    learner = base_learners_of(model)[0]
    device = learner.feature_mean.device
    x = _standardized(learner, features)
    linear = x @ learner.quality_head.weight[0].cpu().double() + learner.quality_head.bias.cpu().double()
    residual = targets - linear
    vt = torch.linalg.svd(x, full_matrices=False)[2]
    # Rounded as they are stored, so that the fit makes up for it.
    components = vt[:num_components].T.half().double()
    points = (x @ components).half().double()
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:num_centers].sort().values
    centers = points[drawn]
    scale = gamma / points.var(dim=0).sum().item()
    kernel = torch.exp(-scale * torch.cdist(points, centers).square())
    if len(centers) == len(points):
        matrix, right = kernel.clone(), residual
        matrix.diagonal().add_(penalty)
    else:
        matrix, right = kernel.T @ kernel + penalty * kernel[drawn], kernel.T @ residual
        matrix.diagonal().add_(1e-9 * len(x))  # centres that coincide
    coefficients = torch.cholesky_solve(right.unsqueeze(1), torch.linalg.cholesky(matrix))[:, 0]
    sizes = {"num_components": components.shape[1], "num_centers": len(centers)}
    head = MetaQAPKernelHead(x.shape[1], **sizes)
    head.components.copy_(components)
    head.centers.copy_(centers)
    head.coefficients.copy_(coefficients)
    head.gamma.fill_(scale)
    learner.kernel_head = head.to(device)
    model.config.base_learners[0]["kernel_head"] = sizes  # type: ignore[index]
    return {"train_rmse": (kernel @ coefficients - residual).square().mean().sqrt().item()}


@torch.no_grad()
def fit_distortion_head(
    model: MetaQAPModel, features: Tensor, distortions: Tensor, *, penalty: float = 1e-3, max_iterations: int = 200
) -> dict[str, float]:
    """Set the distortion head by multinomial logistic regression on the backbone's pooled features.

    Args:
        model: one base learner with a distortion head and the standardisation of its features.
        features: `(n, F)`, from `pooled_features`.
        distortions: `(n,)`, class indices.
        penalty: half of it times the squared weights is added to the mean cross-entropy.
        max_iterations: of L-BFGS.

    Returns:
        The mean cross-entropy, in nats.

    Raises:
        ValueError: if the learner has no distortion head.
    """
    learner = base_learners_of(model)[0]
    if learner.distortion_head is None:
        raise ValueError("The base learner has no distortion head.")
    # On the axes of its own distortions the regression is well-conditioned, which L-BFGS needs to get anywhere.
    x = _standardized(learner, features)
    center, spread = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x = ((x - center) / spread).float()
    weight = torch.zeros(x.shape[1], learner.distortion_head.out_features, requires_grad=True)
    bias = torch.zeros(learner.distortion_head.out_features, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iterations, line_search_fn="strong_wolfe")

    def cross_entropy() -> Tensor:
        return F.cross_entropy(x @ weight + bias, distortions)

    @torch.enable_grad()
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy() + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    final = weight.double() / spread.unsqueeze(1)
    learner.distortion_head.weight.copy_(final.T)
    learner.distortion_head.bias.copy_(bias.double() - center @ final)
    return {"distortion_cross_entropy": cross_entropy().item()}


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


__all__ = [
    "fit_distortion_head",
    "fit_kernel_head",
    "fit_ridge_head",
    "freeze_batch_norm",
    "freeze_stages",
    "make_optimizer",
    "new_base_learner",
    "parameter_groups",
    "pooled_features",
]
