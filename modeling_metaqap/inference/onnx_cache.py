"""ONNX files that are made on first use, in the user's cache, and checked there."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..checkpoint_reading import read_crop_settings
from ..configuration_metaqap import MetaQAPConfig
from ..data.user_cache import user_cache
from ..errors import MetaQAPError
from ..lineage import weights_sha256
from .choices import ONNX_FILES, Engine

#: Largest difference to PyTorch in float32, in units of quality, at which a file is taken without being asked for.
TOLERANCE = 1e-4

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

logger = logging.getLogger(__name__)


def can_make_onnx() -> bool:
    """Whether the packages of the onnx extra are here."""
    return all(find_spec(package) is not None for package in _PACKAGES)


def cached_onnx(
    checkpoint: str | Path, config: MetaQAPConfig, *, learners: int | None = None, make: bool = True
) -> Path | None:
    """The folder of an ONNX file of a checkpoint in the user's cache; it is made if it is not there.

    The cache is `user_cache()`. A folder's name is made of the weights, the configurations of model and image
    processor, and the versions of all that a file depends on, so an old file never answers for new weights.

    Args:
        checkpoint: folder or Hub id.
        config: of the checkpoint.
        learners: how many of its learners, see `keep_learners`; default all.
        make: whether to make a file, which takes about half a minute; otherwise only one that is there is given.

    Returns:
        A folder that `OnnxEngine` reads. None if there is none, none can be made, or the one made differs from
        PyTorch by more than `TOLERANCE`; a line of the log says why.
    """
    folder = cache_folder(checkpoint, config, learners)
    if folder is None or find_spec("onnxruntime") is None:
        return None
    if (folder / ONNX_FILES[Engine.onnx]).is_file():
        return folder
    if not make or not can_make_onnx():
        return None
    # Here, since a file that is there needs none of it.
    from .onnx_export import export_onnx

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            export_onnx(checkpoint, made, learners=learners, tolerance=TOLERANCE)
            _put(made, folder)
    except (MetaQAPError, OSError) as error:
        logger.warning("No ONNX file could be made in %s, so PyTorch computes: %s", folder.parent, error)
        return None
    return folder


def cache_folder(
    checkpoint: str | Path, config: MetaQAPConfig, learners: int | None, further: Sequence[object] = ()
) -> Path | None:
    """The folder in the cache for a checkpoint's weights and configurations, and these versions of the packages.

    None for a checkpoint without weights.
    """
    weights = weights_sha256(checkpoint)
    if weights is None:
        return None
    versions = map(_version, (*_PACKAGES, "torch"))
    crops = asdict(read_crop_settings(checkpoint))  # a file is for crops of one size
    key = json.dumps([weights, config.to_json_string(), crops, learners, __version__, *versions, *further])
    return user_cache() / "engines" / hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PackedEngine:
    """A folder of the cache, to be sent to another machine.

    Attributes:
        name: of the folder; the same for the same weights, configurations and versions.
        files: content by name.
    """

    name: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> "PackedEngine":
        """What `cached_onnx` gave."""
        files = {
            file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }
        return cls(folder.name, files)

    def unpack(self) -> Path:
        """The folder in this machine's cache.

        Raises:
            OSError: if it is not there and cannot be written.
        """
        folder = user_cache() / "engines" / self.name
        if (folder / ONNX_FILES[Engine.onnx]).is_file():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            for name, content in self.files.items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
            _put(made, folder)
        return folder


def _put(made: Path, folder: Path) -> None:
    try:
        os.replace(made, folder)
    except OSError:
        if not (folder / ONNX_FILES[Engine.onnx]).is_file():  # another process was not faster
            raise


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


__all__ = ["TOLERANCE", "PackedEngine", "cache_folder", "cached_onnx", "can_make_onnx"]
