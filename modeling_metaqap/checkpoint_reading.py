"""Reads checkpoints, whoever made them: two JSON files and one file of weights, each checked before it is used.

`from_pretrained` of transformers obeys much more of what lies in a folder: code, pickled weights, adapters, settings
of other libraries. Programs of this package load models with the functions here, which obey nothing of it.

The code of the model and of its image processor takes more than a second to import, so this is done where one is read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.utils import cached_file

from .checkpoint_places import checkpoint_folder
from .configuration_metaqap import MetaQAPConfig
from .crops_metaqap import LONGEST_SIDE
from .errors import MetaQAPError

if TYPE_CHECKING:
    from .image_processing_metaqap import MetaQAPImageProcessor
    from .modeling_metaqap import MetaQAPModel

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILE = "model.safetensors"

#: Bytes of a JSON file; more cannot be meant.
_LARGEST_JSON = 10_000_000

#: What a configuration says of the model itself. The rest is transformers' and not obeyed.
_CONFIG_FIELDS = frozenset(field.name for field in fields(MetaQAPConfig)) & set(MetaQAPConfig.__annotations__)
_PROCESSOR_FIELDS = ("size", "crop_size", "resample", "do_resize")


def read_config(checkpoint: str | Path) -> MetaQAPConfig:
    """The configuration of a checkpoint. Of its entries those count that MetaQAP defines; the others are ignored.

    Args:
        checkpoint: folder or Hub id.

    Raises:
        MetaQAPError: if there is none, it is one of another model, or a value in it cannot be.
    """
    entries = _read_json(checkpoint, CONFIG_FILE)
    if (model_type := entries.get("model_type")) != MetaQAPConfig.model_type:
        raise MetaQAPError(f"{checkpoint} is a {model_type} model, not a MetaQAP checkpoint.")
    with _refused(checkpoint, CONFIG_FILE):
        config = MetaQAPConfig(**{name: value for name, value in entries.items() if name in _CONFIG_FIELDS})
    config._name_or_path = str(checkpoint)
    return config


@dataclass(frozen=True)
class CropSettings:
    """How the image processor of a checkpoint cuts images.

    Attributes:
        shortest_edge: that images are shrunk to; None if they are not.
        crop_size: side of the crops.
        resample: the filter, of Pillow.
    """

    shortest_edge: int | None
    crop_size: int
    resample: int


def read_crop_settings(checkpoint: str | Path) -> CropSettings:
    """How images are cut for a checkpoint: its image processor, without the code of one if it was saved by one.

    Args:
        checkpoint: folder or Hub id.

    Raises:
        MetaQAPError: if there is none, or a value in it cannot be.
    """
    entries = _read_json(checkpoint, PROCESSOR_FILE)
    size, crop_size, resample, do_resize = (entries.get(name) for name in _PROCESSOR_FIELDS)
    match size, crop_size:
        case {"shortest_edge": edge}, {"height": side}:
            if (
                (size, crop_size) == ({"shortest_edge": edge}, {"height": side, "width": side})
                and all(type(pixels) is int and 1 <= pixels <= LONGEST_SIDE for pixels in (edge, side))
                and type(resample) is int
                and resample in set(Image.Resampling)
                and type(do_resize) is bool
            ):
                return CropSettings(edge if do_resize else None, side, resample)
    # Other ways to say it, and what cannot be, are the image processor's business.
    processor = read_image_processor(checkpoint)
    return CropSettings(processor.seen_edge, processor.crop_size["height"], int(processor.resample))


def read_image_processor(checkpoint: str | Path) -> "MetaQAPImageProcessor":
    """The image processor of a checkpoint; of its settings those count that can be changed.

    Args:
        checkpoint: folder or Hub id.

    Raises:
        MetaQAPError: if there is none, or a value in it cannot be.
    """
    from .image_processing_metaqap import MetaQAPImageProcessor

    entries = _read_json(checkpoint, PROCESSOR_FILE)
    with _refused(checkpoint, PROCESSOR_FILE):
        processor = MetaQAPImageProcessor(**{name: entries[name] for name in _PROCESSOR_FIELDS if name in entries})
        processor.layout(512, 512)
        Image.Resampling(processor.resample)
        if type(processor.do_resize) is not bool:
            raise ValueError(f"`do_resize` must be true or false, got {processor.do_resize!r}.")
    return processor


def read_model(
    checkpoint: str | Path, *, dtype: torch.dtype = torch.float32, config: MetaQAPConfig | None = None
) -> "MetaQAPModel":
    """The model of a checkpoint on the CPU, in evaluation mode.

    Nothing is built in memory before the names and shapes in the weight file are those that the configuration asks
    for, so a few bytes cannot take up gigabytes.

    Args:
        checkpoint: folder or Hub id.
        dtype: of the backbones; what a score depends on directly stays in float32.
        config: of the checkpoint, if it has been read already.

    Raises:
        MetaQAPError: if a file is missing, damaged or does not fit the others, or a weight is not finite.
    """
    from transformers import initialization as init

    from .modeling_metaqap import MetaQAPModel

    config = read_config(checkpoint) if config is None else config
    with _refused(checkpoint, CONFIG_FILE), init.no_init_weights(), torch.device("meta"):
        model = MetaQAPModel(config)  # shapes without memory
    try:
        with safe_open(_find(checkpoint, WEIGHTS_FILE), framework="pt") as weights:
            names = list(weights.keys())
            _refuse_other_shapes(model, {name: weights.get_slice(name).get_shape() for name in names}, checkpoint)
            tensors = {name: _converted(model, name, weights.get_tensor(name), dtype) for name in names}
    except (SafetensorError, OverflowError) as error:
        raise MetaQAPError(f"The weights of {checkpoint} cannot be read: {error}.") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MetaQAPError(f"The weights of {checkpoint} are damaged: {name} has values that are not finite.")
    model.load_state_dict(tensors, assign=True)
    with _refused(checkpoint, CONFIG_FILE):
        _fill_other_buffers(model, dtype)
    model.config.dtype = dtype
    return model.eval()


def _find(checkpoint: str | Path, name: str) -> str:
    """Where a file of a checkpoint lies on this machine, after a download if it is on the Hub."""
    path: str | Path | None
    if (folder := checkpoint_folder(checkpoint)) is not None:
        path = folder / name
    else:
        try:
            path = cached_file(str(checkpoint), name)
        except (OSError, ValueError) as error:
            raise MetaQAPError(f"{checkpoint} is not a MetaQAP checkpoint: {str(error).splitlines()[0]}") from error
    if path is None or not Path(path).is_file():
        raise MetaQAPError(f"{checkpoint} is not a MetaQAP checkpoint: it has no file {name}.")
    return str(path)


def _read_json(checkpoint: str | Path, name: str) -> dict[str, Any]:
    path = Path(_find(checkpoint, name))
    if path.stat().st_size > _LARGEST_JSON:
        raise MetaQAPError(f"{name} of {checkpoint} is larger than {_LARGEST_JSON:,} bytes.")
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MetaQAPError(f"{name} of {checkpoint} is not JSON: {error}.") from error
    if not isinstance(entries, dict):
        raise MetaQAPError(f"{name} of {checkpoint} is not a JSON object.")
    return entries


@contextmanager
def _refused(checkpoint: str | Path, name: str) -> Iterator[None]:
    """Turn whatever a library raises for values of a stranger into a sentence about the file that they are in."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MetaQAPError(f"{name} of {checkpoint} cannot be used: {reason}") from error


def _refuse_other_shapes(model: "MetaQAPModel", shapes: dict[str, list[int]], checkpoint: str | Path) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := [name for name in wanted if name not in shapes]:
        reason = f"{missing[0]} is missing"
    elif unknown := [name for name in shapes if name not in wanted]:
        reason = f"nothing in the configuration asks for {unknown[0]}"
    elif other := [name for name in wanted if wanted[name] != shapes[name]]:
        reason = f"{other[0]} has the shape {shapes[other[0]]} instead of {wanted[other[0]]}"
    else:
        return
    raise MetaQAPError(f"The weights of {checkpoint} do not fit its configuration: {reason}.")


def _converted(model: "MetaQAPModel", name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy, so that the model does not depend on the file any more."""
    if not tensor.is_floating_point():
        return tensor.clone()
    is_exact = not set(name.split(".")).isdisjoint(model._keep_in_fp32_modules_strict or ())
    return tensor.to(torch.float32 if is_exact else dtype, copy=True)


def _fill_other_buffers(model: nn.Module, dtype: torch.dtype) -> None:
    """Give values to the buffers that no file holds, such as the blur filters of some of timm's layers."""
    for module in model.modules():
        names = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name in names:
            buffer = getattr(module, name)
            kept = dtype if buffer.is_floating_point() else buffer.dtype
            setattr(module, name, torch.empty_like(buffer, device="cpu", dtype=kept))
        if names:
            module.init_non_persistent_buffers()  # type: ignore[operator]


__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "CropSettings",
    "read_config",
    "read_crop_settings",
    "read_image_processor",
    "read_model",
]
