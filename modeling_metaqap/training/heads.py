"""The heads of a base learner in closed form, on the features of its backbone."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..folding import fold_for_inference
from ..image_processing_metaqap import merge_crops
from ..modeling_metaqap import MetaQAPBaseLearner, MetaQAPKernelHead, MetaQAPModel
from .learner import base_learners_of


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
        gather: brings the shares of a batch of all processes together.
        targets: keys of the batch: `"labels"` for quality, `"distortion"` for the class.

    Returns:
        Features `(n, F)` in float64, and each of the targets `(n,)`, in float64 too unless they are whole numbers; on
        the CPU.
    """
    learner = base_learners_of(fold_for_inference(model.eval()))[0]
    batches = []
    for batch in loader:
        pixels = batch["pixel_values"].to(device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        weights = batch.get("crop_weights", torch.ones(len(pixels), 1)).to(device)
        crops = pixels.reshape(-1, *pixels.shape[-3:]).contiguous(memory_format=torch.channels_last)
        pooled = learner.pool(learner.stage_activations(crops)).unflatten(0, weights.shape)
        gathered = gather((merge_crops(pooled, weights), *(batch[target].to(device) for target in targets)))
        batches.append([tensor.cpu() for tensor in gathered])
    columns = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    return tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in columns)


@torch.no_grad()
def fit_ridge_head(
    model: MetaQAPModel,
    features: Tensor,
    targets: Tensor,
    *,
    penalty: float | None = None,
    weights: Tensor | None = None,
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
        weights: `(n,)`, of the photographs, 1 on average; by default all count the same.
        distorted: features and pseudo opinion scores of distorted images, `(m, F)` and `(m,)`.
        distorted_weight: what all of these weigh together, in units of all photographs; 0 leaves them out.

    Returns:
        The penalty for each image, and the training RMSE.
    """
    learner = base_learners_of(model)[0]
    x, y = features, targets
    mean, std, level = x.mean(dim=0), x.std(dim=0), y.mean()
    if weights is not None:
        mean, level = weights @ x / weights.sum(), weights @ y / weights.sum()
    # A dead channel has no spread; standardising it by 1 leaves it at zero.
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    rows, centered = (x - mean) / std, y - level
    if weights is not None:
        rows, centered = rows * weights.sqrt()[:, None], centered * weights.sqrt()
    of_photographs = centered
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
            residual = of_photographs - u[: len(y)] @ (shrink * projected)
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
    learner.quality_head.bias.fill_(level.item())
    learner.kernel_head = None
    learner.residual_heads = torch.nn.ModuleList()
    model.config.base_learners[0] |= {"kernel_head": None, "residual_heads": []}  # type: ignore[index]
    fitted = (x - mean) / std @ weight + level
    return {"ridge_penalty": penalty, "train_rmse": (fitted - y).square().mean().sqrt().item()}


def _standardized(learner: MetaQAPBaseLearner, features: Tensor) -> Tensor:
    """As `MetaQAPBaseLearner.standardize`, but where and as precise as the features are: float64 on the CPU."""
    return (features - learner.feature_mean.to(features)) / learner.feature_std.to(features)


@torch.no_grad()
def linear_scores(model: MetaQAPModel, features: Tensor) -> Tensor:
    """What the linear quality head of a base learner says of features, `(n,)` in float64."""
    learner = base_learners_of(model)[0]
    weight, bias = (tensor.cpu().double() for tensor in (learner.quality_head.weight[0], learner.quality_head.bias))
    return _standardized(learner, features) @ weight + bias


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
    weights: Tensor | None = None,
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
        weights: `(n,)`, of the images, 1 on average; by default all count the same.

    Returns:
        The training RMSE.

    Source: kernel ridge regression where every image is a centre; otherwise its Nystroem estimator, Rudi, Carratino
    and Rosasco, "FALKON: an optimal large scale kernel method", NeurIPS 2017, equation 8, solved directly.
    """
    learner = base_learners_of(model)[0]
    device = learner.feature_mean.device
    x = _standardized(learner, features)
    residual = targets - linear_scores(model, features)
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
        matrix.diagonal().add_(penalty if weights is None else penalty / weights)
    else:
        counted = kernel if weights is None else kernel * weights[:, None]
        matrix, right = counted.T @ kernel + penalty * kernel[drawn], counted.T @ residual
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


__all__ = ["fit_distortion_head", "fit_kernel_head", "fit_ridge_head", "linear_scores", "pooled_features"]
