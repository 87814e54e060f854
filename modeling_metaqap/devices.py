"""Which device a model is computed on, and what that device can do."""

from collections.abc import Mapping
from typing import Any

import torch

from .errors import MetaQAPError


def resolve_device(device: str | None) -> torch.device:
    """The device of that name; default the GPU if there is one.

    Raises:
        MetaQAPError: if it cannot be used.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MetaQAPError(f"The device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return resolved


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(_can(name) for name in ("avx512_bf16", "amx_bf16"))


def is_faster_in_bfloat16(device: torch.device) -> bool:
    """Whether a device computes a CNN faster in bfloat16 than in float32.

    A processor does with AMX. With the instructions of AVX-512 alone, which have no matrices, convolutions of these
    networks were measured to take longer.
    """
    return has_bfloat16(device) and (device.type != "cpu" or _can("amx_bf16"))


def _can(name: str) -> bool:
    """Whether this processor has these instructions, as far as PyTorch says so."""
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get(name))


__all__ = ["has_bfloat16", "is_faster_in_bfloat16", "resolve_device"]
