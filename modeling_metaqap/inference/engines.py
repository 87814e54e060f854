"""What runs a checkpoint: PyTorch, or ONNX Runtime on a file that `metaqap export` wrote."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import cached_file

from .. import DEFAULT_CHECKPOINT
from ..errors import MetaQAPError
from ..lineage import weights_sha256
from ..modeling_metaqap import IMAGE_OUTPUTS, MetaQAPModel
from .choices import ONNX_FILES, Dtype, Engine


class CropEngine(Protocol):
    """Crops in, the model's outputs out."""

    config: Any

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> dict[str, torch.Tensor]:
        """`(B, 3, H, W)` RGB crops -> those of `IMAGE_OUTPUTS` that there are, `(B, ...)` in float32 on the CPU.

        With `quality_map` also the `quality_map`, `(B, h, w)`.

        Raises:
            MetaQAPError: if this engine cannot give the map.
        """


class TorchEngine:
    """The model itself.

    Args:
        checkpoint: folder or Hub id.
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`.
    """

    def __init__(self, checkpoint: str | Path, *, device: str | None = None, dtype: str = "float32"):
        self.device = _resolve_device(device)
        self.model: MetaQAPModel = AutoModel.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
        self.config = self.model.config
        self.model.eval().to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> dict[str, torch.Tensor]:
        pixel_values = torch.from_numpy(crops).to(self.device, memory_format=torch.channels_last)
        outputs = self.model(pixel_values=pixel_values.to(self.model.dtype) / 255, output_quality_map=quality_map)
        names = (*IMAGE_OUTPUTS, "quality_map")
        return {name: outputs[name].float().cpu() for name in names if outputs.get(name) is not None}


class OnnxEngine:
    """ONNX Runtime, on a file that was exported from the weights of the checkpoint.

    Args:
        checkpoint: folder or Hub id with the exported file.
        name: `Engine.onnx` or `Engine.onnx_int8`.
        device: `"cpu"` (default) or `"cuda"` with onnxruntime-gpu.
        dtype: `"float32"`; the file has its own number format.

    Raises:
        MetaQAPError: without onnxruntime or the file, for another device or dtype, or if the checkpoint's weights are
            not those that the file was exported from.
    """

    def __init__(
        self, checkpoint: str | Path, name: Engine = Engine.onnx, *, device: str | None = None, dtype: str = "float32"
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise MetaQAPError(
                "The ONNX engine needs onnxruntime; install it with `pip install onnxruntime`."
            ) from error
        if dtype != "float32":
            raise MetaQAPError(f"The ONNX engine has the number format of its file; leave out the dtype {dtype}.")
        self.config = AutoConfig.from_pretrained(checkpoint)
        export = _export_command(checkpoint, name)
        try:
            file = cached_file(str(checkpoint), ONNX_FILES[name])
        except OSError as error:
            raise MetaQAPError(f"{checkpoint} holds no {ONNX_FILES[name]}; make it with `{export}`.") from error
        options = onnxruntime.SessionOptions()
        # As many threads as PyTorch has, which `OMP_NUM_THREADS` and the process's share of the cores decide.
        options.intra_op_num_threads = torch.get_num_threads()
        providers = _execution_providers(device, onnxruntime.get_available_providers())
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=providers)
        except Exception as error:  # each kind of failure has its class, and they have no base of their own
            raise MetaQAPError(f"onnxruntime cannot read {file}: {str(error).splitlines()[0]}") from error
        exported_from = self.session.get_modelmeta().custom_metadata_map.get("weights_sha256")
        if (present := weights_sha256(checkpoint)) is not None and present != exported_from:
            raise MetaQAPError(f"{file} was exported from other weights than {checkpoint} has; repeat `{export}`.")
        self.output_names = [output.name for output in self.session.get_outputs()]

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> dict[str, torch.Tensor]:
        if quality_map:
            raise MetaQAPError("The quality map needs the PyTorch engine; leave out --engine.")
        pixel_values = crops[:, None].astype(np.float32) / np.float32(255)
        crop_weights = np.ones(pixel_values.shape[:2], dtype=np.float32)
        values = self.session.run(self.output_names, {"pixel_values": pixel_values, "crop_weights": crop_weights})
        return {name: torch.from_numpy(value) for name, value in zip(self.output_names, values, strict=True)}


def load_engine(
    checkpoint: str | Path, engine: str = "torch", *, device: str | None = None, dtype: str = "float32"
) -> CropEngine:
    """The engine of that name, ready to score crops.

    Raises:
        MetaQAPError: for an engine, device or dtype that cannot be used, or a checkpoint of another model.
    """
    try:
        name = Engine(engine)
    except ValueError as error:
        raise MetaQAPError(f"The engine must be {', '.join(Engine)}, not {engine}.") from error
    if dtype not in list(Dtype):
        raise MetaQAPError(f"The dtype must be {', '.join(Dtype)}, not {dtype}.")
    try:
        model_type = AutoConfig.from_pretrained(checkpoint).model_type
        if model_type != "metaqap":
            raise MetaQAPError(f"{checkpoint} is a {model_type} model, not a MetaQAP checkpoint.")
        if name is Engine.torch:
            return TorchEngine(checkpoint, device=device, dtype=dtype)
        return OnnxEngine(checkpoint, name, device=device, dtype=dtype)
    except MetaQAPError:
        raise
    except (OSError, ValueError) as error:
        raise MetaQAPError(f"{checkpoint} is not a MetaQAP checkpoint: {str(error).splitlines()[0]}") from error


def _resolve_device(device: str | None) -> torch.device:
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


def _execution_providers(device: str | None, available: list[str]) -> list[Any]:
    kind, _, index = (device or "cpu").partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    raise MetaQAPError(f"The device {device!r} cannot be used: this onnxruntime runs on {', '.join(available)}.")


def _export_command(checkpoint: str | Path, name: Engine) -> str:
    options = " --int8 --photos FOLDER" if name is Engine.onnx_int8 else ""
    return f"metaqap export{options}" + (
        "" if Path(checkpoint) == DEFAULT_CHECKPOINT else f" --checkpoint {checkpoint}"
    )


__all__ = ["CropEngine", "OnnxEngine", "TorchEngine", "load_engine"]
