"""One step of training: the loss of the global batch, its gradients, and what is updated with them."""

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from ..losses_metaqap import quality_aware_loss
from .recipe import Recipe
from .state import TrainingState


class Batch(NamedTuple):
    """This process's share of a batch. In pretraining all images have a quality and a distortion.

    Attributes:
        pixels: `(B, 3, H, W)` uint8.
        labels: `(L,)`, quality of the first images.
        distortions: `(D,)`, classes of the last images, if any have one.
    """

    pixels: Tensor
    labels: Tensor
    distortions: Tensor | None = None


def training_step(
    accelerator: Accelerator, state: TrainingState, recipe: Recipe, batch: Batch, *, chunks: int = 1
) -> float:
    """Learn from one batch.

    The host waits for the device once, before the update: a loss or gradient that is not finite must not reach the
    weights, whatever the optimizer is. (With fp16 the gradient scaler waits once more.)

    Args:
        accelerator: that the state was begun with.
        state: model, optimizer, schedule and average; updated.
        recipe: losses and clipping.
        batch: of this process.
        chunks: computes the batch in so many chunks to save memory.

    Returns:
        The loss of the global batch. Where it or its gradient is not finite, NaN, and nothing has been updated.
        (With fp16 the gradient may overflow once in a while: the gradient scaler skips such a step and goes on.)
    """
    total = forward_backward(accelerator, state.model, recipe, batch, chunks=chunks)
    norm = accelerator.clip_grad_norm_(state.model.parameters(), recipe.max_grad_norm)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    loss, gradient_norm = torch.stack([total, norm.to(total)]).tolist()
    if not math.isfinite(loss) or (accelerator.scaler is None and not math.isfinite(gradient_norm)):
        state.optimizer.zero_grad()
        return math.nan
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.scheduler.step()
    state.average.update(accelerator.unwrap_model(state.model))
    return loss


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
    """This process's share of the mean cross-entropy over the global batch."""
    return F.cross_entropy(logits.float(), distortions, reduction="sum") / (len(logits) * accelerator.num_processes)


def forward_backward(
    accelerator: Accelerator,
    model: nn.Module,
    recipe: Recipe,
    batch: Batch,
    *,
    chunks: int = 1,
) -> Tensor:
    """Compute the gradients for this process's images, and return the loss of the global batch, `()`.

    A loss that is a statistic of the batch is no sum over chunks of it. With several `chunks` the outputs of all are
    computed first, without a graph. Then each chunk is run again and takes its share of the loss's gradient with
    respect to the outputs (Gao, Zhang, Han and Callan, "Scaling deep contrastive learning batch size under memory
    limited setup", RepL4NLP 2021).
    """

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        with accelerator.autocast():
            output = model(pixel_values=images.to(memory_format=torch.channels_last).float() / 255)
        if output.distortion_logits is None:
            return (output.logits,)
        return output.logits, output.distortion_logits

    pieces = batch.pixels.chunk(chunks)
    if len(pieces) == 1:
        outputs = forward(batch.pixels)
    else:
        with torch.no_grad():
            outputs = tuple(torch.cat(tensors) for tensors in zip(*map(forward, pieces), strict=True))
        outputs = tuple(tensor.requires_grad_() for tensor in outputs)
    loss = quality_loss(accelerator, outputs[0][: len(batch.labels)], batch.labels, recipe)
    total = loss.detach()
    if batch.distortions is not None:
        own_share = distortion_loss(accelerator, outputs[1][-len(batch.distortions) :], batch.distortions)
        loss = loss + recipe.distortion_loss_weight * own_share
        total = total + recipe.distortion_loss_weight * accelerator.reduce(own_share.detach(), "sum")
    if len(pieces) == 1:
        accelerator.backward(loss * accelerator.num_processes)
        return total
    gradients = torch.autograd.grad(loss * accelerator.num_processes, outputs)
    shares = zip(*(gradient.split([len(piece) for piece in pieces]) for gradient in gradients), strict=True)
    for number, (piece, share) in enumerate(zip(pieces, shares, strict=True), start=1):
        # Processes exchange gradients once, with the last chunk.
        with nullcontext() if number == len(pieces) else accelerator.no_sync(model):
            pairs = zip(forward(piece), share, strict=True)
            accelerator.backward(sum((output * gradient).sum() for output, gradient in pairs))
    return total


__all__ = ["Batch", "distortion_loss", "forward_backward", "quality_loss", "training_step"]
