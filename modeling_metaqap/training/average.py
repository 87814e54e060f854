"""Averages of weights: the moving one that a run validates and saves, and that of several runs' models."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..modeling_metaqap import MetaQAPModel


class WeightAverage:
    """Exponential moving average of weights; buffers are copied. Saved and restored with the rest of a run's state.

    torch's `AveragedModel` does the same, but copies a counter to the device at each update and waits for that.

    Attributes:
        model: a model of the same kind with the averaged weights, whole on each process.
        decay: weight of the average before, in [0, 1); with 0 the average is the model itself.
        updates: number of models that it has taken in.
    """

    def __init__(self, model: MetaQAPModel, *, decay: float):
        self.model = deepcopy(model)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in a model. Its weights may be sharded (FSDP); then all processes must call this."""
        averages: list[Tensor] = list(self.model.parameters())
        # Sharded weights need memory for one more copy of them, on each process, while this lasts.
        weights = [_whole(parameter) for parameter in model.parameters()]
        # The untrained model does not count, so the first one is taken over as it is.
        share = 1.0 if self.updates == 0 else 1.0 - self.decay
        torch._foreach_lerp_(averages, weights, share)
        for averaged, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            averaged.copy_(buffer)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])


def _whole(parameter: Tensor) -> Tensor:
    weights = parameter.detach()
    return weights.full_tensor() if isinstance(weights, DTensor) else weights


@torch.no_grad()
def mean_of_models(models: Sequence[MetaQAPModel]) -> MetaQAPModel:
    """A model with the mean weights of several that were trained from the same weights.

    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", ICML 2022 (the uniform soup).
    """
    mean = deepcopy(models[0])
    states = [model.state_dict() for model in models]
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    return mean


__all__ = ["WeightAverage", "mean_of_models"]
