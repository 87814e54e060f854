"""ONNX Runtime as the engine of a scorer, which needs neither the model's code nor timm."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import cached_file

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_places import checkpoint_folder
from ..checkpoint_reading import read_config
from ..configuration_metaqap import MetaQAPConfig
from ..errors import MetaQAPError
from ..installing import missing_package
from ..lineage import weights_sha256
from .choices import ONNX_FILES, Engine
from .crop_by_crop import CropByCrop, Outputs


class OnnxEngine:
    """ONNX Runtime, on a file that was exported from the weights of the checkpoint.

    Args:
        checkpoint: folder or Hub id with the exported file.
        name: `Engine.onnx` or `Engine.onnx_int8`.
        device: `"cpu"` (default) or `"cuda"` with onnxruntime-gpu.
        dtype: `"float32"` or `"auto"`; the file has its own number format.
        config: of the checkpoint, if it has been read already.

    Raises:
        MetaQAPError: without onnxruntime or the file, for another device or dtype, or if the checkpoint's weights are
            not those that the file was exported from.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        name: Engine = Engine.onnx,
        *,
        device: str | None = None,
        dtype: str = "float32",
        config: MetaQAPConfig | None = None,
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise MetaQAPError(f"The ONNX engine cannot be used. {missing_package('onnxruntime')}") from error
        if dtype not in ("float32", "auto"):
            raise MetaQAPError(f"The ONNX engine has the number format of its file; leave out the dtype {dtype}.")
        self.config = read_config(checkpoint) if config is None else config
        self.name, self.dtype = name, "float32"
        export = _export_command(checkpoint, name)
        try:
            file = cached_file(str(checkpoint_folder(checkpoint) or checkpoint), ONNX_FILES[name])
        except OSError as error:
            raise MetaQAPError(f"{checkpoint} holds no {ONNX_FILES[name]}; make it with `{export}`.") from error
        self._file = file
        self._providers = _execution_providers(device, onnxruntime.get_available_providers())
        # For one photograph no other session is needed. It has as many threads as PyTorch, which `OMP_NUM_THREADS` and
        # the process's share of the cores decide.
        self._threads = torch.get_num_threads()
        self._session_of_all_threads = self._open(threads=self._threads)
        exported_from = self._session_of_all_threads.get_modelmeta().custom_metadata_map.get("weights_sha256")
        if (present := weights_sha256(checkpoint)) is not None and present != exported_from:
            raise MetaQAPError(f"{file} was exported from other weights than {checkpoint} has; repeat `{export}`.")
        self.output_names = [output.name for output in self._session_of_all_threads.get_outputs()]
        if "distances" not in self.output_names:
            raise MetaQAPError(f"{file} was exported by another version of this package; repeat `{export}`.")
        self._crop_by_crop = CropByCrop()

    def _open(self, *, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            return onnxruntime.InferenceSession(self._file, options, providers=self._providers)
        except Exception as error:  # each kind of failure has its class, and they have no base of their own
            raise MetaQAPError(f"onnxruntime cannot read {self._file}: {str(error).splitlines()[0]}") from error

    @functools.cached_property
    def _session_of_one_thread(self) -> Any:
        return self._session_of_all_threads if self._threads == 1 else self._open(threads=1)

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> Outputs:
        if quality_map:
            raise MetaQAPError("The quality map needs the PyTorch engine; choose it with --engine torch.")
        if self._providers != ["CPUExecutionProvider"]:
            return self._run_in_all_threads(crops)
        if len(crops) > 1:
            _ = self._session_of_one_thread  # is opened before several threads ask for it
        return self._crop_by_crop(self._run_in_one_thread, crops, run_alone=self._run_in_all_threads)

    def _run_in_all_threads(self, crops: npt.NDArray[np.uint8]) -> Outputs:
        return self._run(self._session_of_all_threads, crops)

    def _run_in_one_thread(self, crops: npt.NDArray[np.uint8]) -> Outputs:
        return self._run(self._session_of_one_thread, crops)

    def _run(self, session: Any, crops: npt.NDArray[np.uint8]) -> Outputs:
        pixel_values = crops[:, None].astype(np.float32)
        pixel_values /= np.float32(255)
        crop_weights = np.ones(pixel_values.shape[:2], dtype=np.float32)
        inputs = {"pixel_values": pixel_values, "crop_weights": crop_weights}
        values = session.run(self.output_names, inputs)
        return {name: torch.from_numpy(value) for name, value in zip(self.output_names, values, strict=True)}


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


__all__ = ["OnnxEngine"]
