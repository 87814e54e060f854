"""What runs a checkpoint: PyTorch, or ONNX Runtime on a file that `metaqap export` wrote.

PyTorch's engine is imported when it is chosen. ONNX Runtime then starts without the model's code, which needs most of
what PyTorch, timm and transformers have: more than a second.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..checkpoint_reading import read_config
from ..devices import resolve_device
from ..errors import MetaQAPError
from .choices import Dtype, Engine
from .learner_subsets import check_learners
from .onnx_cache import cached_onnx
from .onnx_engine import OnnxEngine


class CropEngine(Protocol):
    """Crops in, the model's outputs out.

    Attributes:
        config: of the checkpoint.
        name: which of `Engine` this is; never `auto`.
        dtype: number format of the computation, such as `"float32"`.
    """

    config: Any
    name: Engine
    dtype: str

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> dict[str, torch.Tensor]:
        """`(B, 3, H, W)` RGB crops -> those of `IMAGE_OUTPUTS` that there are, `(B, ...)` in float32 on the CPU.

        With `quality_map` also the `quality_map`, `(B, h, w)`.

        Raises:
            MetaQAPError: if this engine cannot give the map.
        """


#: From how many images on an ONNX file is made: that takes as long as PyTorch takes for about so many.
WORTH_AN_EXPORT = 200

#: From how many images on PyTorch's model is folded.
WORTH_FOLDING = 8


def load_engine(
    checkpoint: str | Path,
    engine: str = "torch",
    *,
    device: str | None = None,
    dtype: str = "float32",
    learners: int | None = None,
    num_images: int | None = None,
) -> CropEngine:
    """The engine of that name, ready to score crops.

    Args:
        checkpoint: folder or Hub id.
        engine: one of `Engine`. `auto` is ONNX Runtime on the CPU where it is installed, in float32 and within 1e-4
            of PyTorch: with the file that `metaqap export` wrote, or one in the user's cache, see `cached_onnx`.
            Otherwise it is PyTorch.
        device, dtype: see `Scorer`.
        learners: how many of the learners to take, see `keep_learners`; default all.
        num_images: how many will be scored, if that is known: for few, `auto` makes no file, and PyTorch does not fold
            (scores differ by about 1e-6).

    Raises:
        MetaQAPError: for an engine, device, dtype or number of learners that cannot be used, or a checkpoint of
            another model.
    """
    try:
        name = Engine(engine)
    except ValueError as error:
        raise MetaQAPError(f"The engine must be {', '.join(Engine)}, not {engine}.") from error
    if dtype not in list(Dtype):
        raise MetaQAPError(f"The dtype must be {', '.join(Dtype)}, not {dtype}.")
    config = read_config(checkpoint)
    check_learners(config, learners)

    def pays_from(number: int) -> bool:
        return num_images is None or num_images >= number

    if name is Engine.auto:
        folder = None
        if resolve_device(device).type == "cpu" and dtype == "float32":
            folder = cached_onnx(checkpoint, config, learners=learners, make=pays_from(WORTH_AN_EXPORT))
        if folder is not None:
            return OnnxEngine(folder)
        name = Engine.torch
    if name is Engine.torch:
        from .torch_engine import TorchEngine

        fold = pays_from(WORTH_FOLDING)
        return TorchEngine(checkpoint, device=device, dtype=dtype, config=config, learners=learners, fold=fold)
    if learners is not None and learners != config.num_base_learners:
        raise MetaQAPError(f"The exported file has all learners; leave out the engine {name}, or their number.")
    return OnnxEngine(checkpoint, name, device=device, dtype=dtype, config=config)


__all__ = ["CropEngine", "load_engine"]
