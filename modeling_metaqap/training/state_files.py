"""The files of a saved state: what accelerate does not write, and the digests that tell whether a state is whole.

Nothing here is unpickled, and accelerate reads its own files with `weights_only=True`: a state can be a stranger's.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.atomic import write_atomically
from ..data.iqa_datasets.files import file_sha256

#: Says of each file of a state what its SHA-256 is. It is written last.
DIGESTS = "digests.json"
AVERAGE = "average.safetensors"
PROGRESS = "progress.json"


def write_progress(state: Path, average: dict[str, Tensor], progress: dict[str, Any]) -> None:
    """Write the averaged weights, and what is numbers only."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in average.items()}, state / AVERAGE)
    write_atomically(state / PROGRESS, json.dumps(progress).encode())


def read_progress(state: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_progress` wrote.

    Raises:
        OSError: if a file is missing.
        SafetensorError, ValueError: if one is damaged.
    """
    return load_file(state / AVERAGE), json.loads((state / PROGRESS).read_bytes())


def write_digests(state: Path) -> None:
    """Note what all files of a state hold."""
    write_atomically(state / DIGESTS, json.dumps(_digests(state), indent=2).encode())


def damage(state: Path) -> str | None:
    """What is wrong with a state, in a few words, or None if each file is as it was written."""
    try:
        noted = json.loads((state / DIGESTS).read_bytes())
        if not isinstance(noted, dict):
            return f"{DIGESTS} cannot be read"
        present = _digests(state)
    except FileNotFoundError:
        return f"{DIGESTS} is missing"
    except (OSError, ValueError):
        return f"{DIGESTS} cannot be read"
    for name in sorted(noted.keys() | present.keys()):
        if name not in present:
            return f"{name} is missing"
        if noted.get(name) != present[name]:
            return f"{name} is damaged" if name in noted else f"{name} does not belong there"
    return None


def _digests(state: Path) -> dict[str, str]:
    files = (path for path in sorted(state.rglob("*")) if path.is_file() and path.name != DIGESTS)
    return {path.relative_to(state).as_posix(): file_sha256(path) for path in files}


__all__ = ["DIGESTS", "damage", "read_progress", "write_digests", "write_progress"]
