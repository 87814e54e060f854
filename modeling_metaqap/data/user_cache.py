"""Where this package keeps what it has computed once: exported files, choices of engines, features."""

import os
from pathlib import Path

from huggingface_hub.constants import HF_HOME


def user_cache() -> Path:
    """`$METAQAP_CACHE`, or `metaqap` in the cache of Hugging Face. The folder may be missing."""
    return Path(os.environ.get("METAQAP_CACHE") or Path(HF_HOME) / "metaqap")


__all__ = ["user_cache"]
