"""What tells weights, images and software apart: digests and versions."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from . import __version__


def image_ids_sha256(image_ids: Iterable[str]) -> str:
    """SHA-256 of image ids, one a line, in their order: two results with the same digest are about the same images."""
    return hashlib.sha256("".join(f"{name}\n" for name in image_ids).encode()).hexdigest()


def software_versions() -> dict[str, str]:
    """Versions of what a score depends on."""
    names = ("torch", "torchvision", "timm", "transformers", "pillow", "numpy", "datasets")
    return {"python": platform.python_version(), "metaqap": __version__} | {name: version(name) for name in names}


def weights_sha256(checkpoint: str | Path) -> str | None:
    """SHA-256 of the weight file of a checkpoint in a folder or in the Hub's cache; None where there is none."""
    path = Path(checkpoint) / "model.safetensors"
    if not Path(checkpoint).is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(str(checkpoint), path.name)
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


__all__ = ["image_ids_sha256", "software_versions", "weights_sha256"]
