"""One step of training: the loss of the global batch, its gradients, and what is updated with them."""

import math
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from ..losses_metaqap import quality_aware_loss
from .recipe import Recipe


def training_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    average: AveragedModel,
    recipe: Recipe,
    batch: tuple[Tensor, Tensor, Tensor | None],
    *,
    parts: int = 1,
) -> Tensor:
    """Learn from one batch.

    Args:
        accelerator: that has prepared `model` and `optimizer`.
        model: one base learner.
        optimizer: over its parameters.
        scheduler: of the optimizer's rates.
        average: of the model's weights.
        recipe: losses and clipping.
        batch: of this process: pixels `(B, 3, H, W)` uint8, labels of the first and distortions of the last images.
        parts: computes the batch in so many parts to save memory.

    Returns:
        The loss of the global batch, `()`. Where it or its gradient is not finite, NaN, and nothing has been updated.
        (With fp16 the gradient may overflow once in a while: the gradient scaler skips such a step and goes on.)
    """
    loss = forward_backward(accelerator, model, recipe, *batch, parts=parts)
    if not torch.isfinite(loss):
        return torch.full_like(loss, torch.nan)
    norm = accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
    if accelerator.scaler is None and not math.isfinite(norm.item()):
        optimizer.zero_grad()
        return torch.full_like(loss, torch.nan)
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    update_average(average, accelerator.unwrap_model(model))
    return loss


def update_average(average: AveragedModel, model: nn.Module) -> None:
    """Let a moving average, which every process has whole, take in a model whose weights may be sharded (FSDP)."""
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        # Memory for one more copy of the weights, on each process, while it lasts.
        whole = nn.ParameterList(
            parameter.detach().full_tensor() if isinstance(parameter, DTensor) else parameter  # type: ignore[attr-defined]
            for parameter in model.parameters()
        )
        for index, buffer in enumerate(model.buffers()):
            whole.register_buffer(f"buffer_{index}", buffer)
        model = whole
    average.update_parameters(model)


def quality_loss(accelerator: Accelerator, logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Quality-aware loss over the global batch.

    Each process computes it on everyone's predictions but has a gradient through its own only. Data parallelism then
    averages the processes' gradients, hence the factor for the backward pass.
    """
    predictions = logits.squeeze(1).float()
    if accelerator.num_processes > 1:
        gathered = accelerator.gather(predictions.detach())
        start = accelerator.process_index * len(predictions)
        predictions = torch.cat([gathered[:start], predictions, gathered[start + len(predictions) :]])
        labels = accelerator.gather(labels)
    return quality_aware_loss(
        predictions,
        labels,
        lambda_mse=recipe.loss_mse_weight,
        lambda_srocc=recipe.loss_srocc_weight,
        surrogate=recipe.loss_surrogate,
    )


def distortion_loss(accelerator: Accelerator, logits: Tensor, distortions: Tensor) -> Tensor:
    """This process's part of the mean cross-entropy over the global batch."""
    return F.cross_entropy(logits.float(), distortions, reduction="sum") / (len(logits) * accelerator.num_processes)


def forward_backward(
    accelerator: Accelerator,
    model: nn.Module,
    recipe: Recipe,
    pixels: Tensor,
    labels: Tensor,
    distortions: Tensor | None,
    *,
    parts: int = 1,
) -> Tensor:
    """Compute the loss and its gradients for this process's images; return the loss of the global batch.

    The first images have a quality label and the last ones a distortion; in pretraining all have both.

    A loss that is a statistic of the batch is no sum over parts of it. With several `parts` the outputs of all are
    computed first, without a graph; then each part is run again and takes its share of the loss's gradient with
    respect to the outputs (Gao, Zhang, Han and Callan, "Scaling deep contrastive learning batch size under memory
    limited setup", RepL4NLP 2021).
    """

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        with accelerator.autocast():
            output = model(pixel_values=images.to(memory_format=torch.channels_last).float() / 255)
        named = output.distortion_logits
        return (output.logits,) if named is None else (output.logits, named)

    chunks = pixels.chunk(parts)
    if len(chunks) == 1:
        outputs = forward(pixels)
    else:
        with torch.no_grad():
            outputs = tuple(torch.cat(tensors) for tensors in zip(*map(forward, chunks), strict=True))
        outputs = tuple(tensor.requires_grad_() for tensor in outputs)
    loss = quality_loss(accelerator, outputs[0][: len(labels)], labels, recipe)
    total = loss.detach()
    if distortions is not None:
        part = distortion_loss(accelerator, outputs[1][-len(distortions) :], distortions)
        loss = loss + recipe.distortion_loss_weight * part
        total = total + recipe.distortion_loss_weight * accelerator.reduce(part.detach(), "sum")
    if not torch.isfinite(total):
        return total
    if len(chunks) == 1:
        accelerator.backward(loss * accelerator.num_processes)
        return total
    gradients = torch.autograd.grad(loss * accelerator.num_processes, outputs)
    shares = zip(*(gradient.split([len(chunk) for chunk in chunks]) for gradient in gradients), strict=True)
    for number, (chunk, share) in enumerate(zip(chunks, shares, strict=True), start=1):
        # Processes exchange gradients once, with the last part.
        with nullcontext() if number == len(chunks) else accelerator.no_sync(model):
            pairs = zip(forward(chunk), share, strict=True)
            accelerator.backward(sum((output * gradient).sum() for output, gradient in pairs))
    return total


__all__ = ["distortion_loss", "forward_backward", "quality_loss", "training_step", "update_average"]
