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
from .set_lines import SetLines
from .state import TrainingState


class Batch(NamedTuple):
    """This process's share of a batch. In pretraining all images have a quality and a distortion.

    Attributes:
        pixels: `(B, 3, H, W)` uint8.
        labels: `(L,)`, quality of the first images.
        distortions: `(D,)`, classes of the last images, if any have one.
        sets: `(L,)`, numbers of the sets that the labels are of; None if there is one set.
    """

    pixels: Tensor
    labels: Tensor
    distortions: Tensor | None = None
    sets: Tensor | None = None


def training_step(
    accelerator: Accelerator, state: TrainingState, recipe: Recipe, batch: Batch, *, chunks: int = 1
) -> float:
    """Learn from one batch.

    The host waits for the device once, before the update: a loss or gradient that is not finite must not reach the
    weights, whatever the optimizer is. (With fp16 the gradient scaler waits once more.)

    Args:
        accelerator: that the state was begun with.
        state: model, optimizer, schedule, average and lines of the sets; updated.
        recipe: losses and clipping.
        batch: of this process.
        chunks: computes the batch in so many chunks to save memory.

    Returns:
        The loss of the global batch. Where it or its gradient is not finite, NaN, and nothing has been updated.
        (With fp16 the gradient may overflow once in a while: the gradient scaler skips such a step and goes on.)
    """
    total, of_lines = forward_backward(accelerator, state.model, recipe, batch, lines=state.lines, chunks=chunks)
    norm = accelerator.clip_grad_norm_(state.model.parameters(), recipe.max_grad_norm)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    norms = [one.norm() for one in of_lines]
    loss, gradient_norm, *norms_of_lines = torch.stack([total, norm.to(total), *norms]).tolist()
    if not all(map(math.isfinite, (loss, *norms_of_lines))) or (
        accelerator.scaler is None and not math.isfinite(gradient_norm)
    ):
        state.optimizer.zero_grad()
        return math.nan
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.lines is not None:
        state.lines.step(of_lines, factor=float(state.scheduler.get_last_lr()[0] / state.scheduler.base_lrs[0]))
    state.scheduler.step()
    state.average.update(accelerator.unwrap_model(state.model))
    return loss


def quality_loss(
    accelerator: Accelerator,
    logits: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    sets: Tensor | None = None,
    lines: SetLines | None = None,
) -> Tensor:
    """Quality-aware loss over the global batch; of several `sets` each on its own scale, by its line.

    Each process computes it on everyone's predictions but has a gradient through its own only. Data parallelism then
    averages the processes' gradients, hence the factor for the backward pass.
    """
    predictions = logits.squeeze(1).float()
    if accelerator.num_processes > 1:
        gathered = accelerator.gather(predictions.detach())
        start = accelerator.process_index * len(predictions)
        predictions = torch.cat([gathered[:start], predictions, gathered[start + len(predictions) :]])
        labels = accelerator.gather(labels)
        sets = None if sets is None else accelerator.gather(sets)
    if lines is not None:
        assert sets is not None
        predictions = lines.ratings(predictions, sets)
    return quality_aware_loss(
        predictions,
        labels,
        lambda_mse=recipe.loss_mse_weight,
        lambda_srocc=recipe.loss_srocc_weight,
        surrogate=recipe.loss_surrogate,
        sets=sets,
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
    lines: SetLines | None = None,
    chunks: int = 1,
) -> tuple[Tensor, list[Tensor]]:
    """Compute the gradients for this process's images.

    A loss that is a statistic of the batch is no sum over chunks of it. With several `chunks` the outputs of all are
    computed first, without a graph. Then each chunk is run again and takes its share of the loss's gradient with
    respect to the outputs (Gao, Zhang, Han and Callan, "Scaling deep contrastive learning batch size under memory
    limited setup", RepL4NLP 2021).

    Returns:
        The loss of the global batch, `()`, and its gradients with respect to the parameters of the lines, if there are
        any.
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
    logits = outputs[0][: len(batch.labels)]
    loss = quality_loss(accelerator, logits, batch.labels, recipe, sets=batch.sets, lines=lines)
    total = loss.detach()
    # Each process has the loss of the whole batch, so these gradients are whole; their mean keeps rounding together.
    of_lines = [] if lines is None else list(torch.autograd.grad(loss, lines.parameters, retain_graph=True))
    of_lines = [accelerator.reduce(gradient, "mean") for gradient in of_lines]
    if batch.distortions is not None:
        own_share = distortion_loss(accelerator, outputs[1][-len(batch.distortions) :], batch.distortions)
        loss = loss + recipe.distortion_loss_weight * own_share
        total = total + recipe.distortion_loss_weight * accelerator.reduce(own_share.detach(), "sum")
    if len(pieces) == 1:
        accelerator.backward(loss * accelerator.num_processes)
        return total, of_lines
    gradients = torch.autograd.grad(loss * accelerator.num_processes, outputs)
    shares = zip(*(gradient.split([len(piece) for piece in pieces]) for gradient in gradients), strict=True)
    for number, (piece, share) in enumerate(zip(pieces, shares, strict=True), start=1):
        # Processes exchange gradients once, with the last chunk.
        with nullcontext() if number == len(pieces) else accelerator.no_sync(model):
            pairs = zip(forward(piece), share, strict=True)
            accelerator.backward(sum((output * gradient).sum() for output, gradient in pairs))
    return total, of_lines


__all__ = ["Batch", "distortion_loss", "forward_backward", "quality_loss", "training_step"]
