"""PyTorch as the engine of a scorer."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..assessment_metaqap import IMAGE_OUTPUTS
from ..checkpoint_reading import read_model
from ..configuration_metaqap import MetaQAPConfig
from ..devices import is_faster_in_bfloat16, resolve_device
from ..folding import fold_for_inference
from ..modeling_metaqap import MetaQAPModel
from .choices import Engine
from .crop_by_crop import CropByCrop, Outputs
from .learner_subsets import keep_learners


class TorchEngine:
    """The model itself, folded for inference (see `fold_for_inference`).

    Args:
        checkpoint: folder or Hub id.
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"` for bfloat16 where that is faster.
        config: of the checkpoint, if it has been read already.
        learners: how many of the learners to take, see `keep_learners`; default all.
        fold: whether to fold; it takes as long as it saves on `WORTH_FOLDING` photographs.

    Attributes:
        model: as it was loaded, to export or to look into.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        config: MetaQAPConfig | None = None,
        learners: int | None = None,
        fold: bool = True,
    ):
        self.device = resolve_device(device)
        if dtype == "auto":
            dtype = "bfloat16" if is_faster_in_bfloat16(self.device) else "float32"
        model = read_model(checkpoint, config=config, dtype=getattr(torch, dtype))
        self.name, self.dtype = Engine.torch, dtype
        self.model: MetaQAPModel = model if learners is None else keep_learners(model, learners)
        self.config = self.model.config
        self.model.eval().to(self.device, memory_format=torch.channels_last)
        self._network = fold_for_inference(self.model) if fold else self.model
        self._crop_by_crop = CropByCrop()

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> Outputs:
        run = functools.partial(self._run, quality_map=quality_map)
        return run(crops) if self.device.type != "cpu" else self._crop_by_crop(run, crops)

    @torch.inference_mode()
    def _run(self, crops: npt.NDArray[np.uint8], *, quality_map: bool) -> Outputs:
        pixel_values = torch.from_numpy(crops).to(self.device, memory_format=torch.channels_last)
        outputs = self._network(pixel_values=pixel_values.to(self.model.dtype) / 255, output_quality_map=quality_map)
        names = (*IMAGE_OUTPUTS, "quality_map")
        return {name: outputs[name].float().cpu() for name in names if outputs.get(name) is not None}


__all__ = ["TorchEngine"]
