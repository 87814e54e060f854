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
    """Whether a device computes bfloat16 in hardware, faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: Mapping[str, Any] = (
            torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        )
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


__all__ = ["has_bfloat16", "resolve_device"]
