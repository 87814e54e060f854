"""Features of photographs on disk: files of NumPy, each of which is complete or not there."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import nn


def features_key(depends_on: str, network: nn.Module) -> str:
    """A name for the folder of features.

    Args:
        depends_on: what else than weights the features depend on, such as what a learner sees of an image.
        network: its weights are the others.
    """
    digest = hashlib.sha256(depends_on.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_shards(folder: Path, wanted: set[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """What is on disk of some photographs: a row of each column, by the photograph's digest.

    Args:
        folder: of `write_shard`.
        wanted: digests; others are left out.
    """
    known: dict[str, tuple[np.ndarray, ...]] = {}
    for file in sorted(folder.glob("*.npz")):
        try:
            with np.load(file) as shard:
                digests = shard["digests"].tolist()
                if wanted.isdisjoint(digests):
                    continue
                columns = [shard[f"column_{number}"] for number in range(len(shard.files) - 1)]
        except (BadZipFile, OSError, ValueError, KeyError, EOFError):
            continue  # of another program, or damaged; what it held is computed again
        known |= {
            digest: row for digest, row in zip(digests, zip(*columns, strict=True), strict=True) if digest in wanted
        }
    return known


def write_shard(folder: Path, digests: Sequence[str], columns: Sequence[np.ndarray]) -> None:
    """Keep rows of photographs, all together or not at all.

    Args:
        folder: must be there.
        digests: `n` texts that name the photographs.
        columns: each `(n, ...)`.

    Raises:
        OSError: if the folder cannot be written to.
    """
    file = folder / f"{hashlib.sha256(''.join(digests).encode()).hexdigest()[:16]}.npz"
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as opened:
        arrays: dict[str, Any] = {f"column_{number}": column for number, column in enumerate(columns)}
        np.savez(opened, digests=np.array(digests), **arrays)
    temporary.replace(file)


__all__ = ["features_key", "read_shards", "write_shard"]
