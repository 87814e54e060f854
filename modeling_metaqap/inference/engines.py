"""What runs a checkpoint: PyTorch, or ONNX Runtime on a file that `metaqap export` wrote.

On a CPU each thread takes a crop through the whole network by itself. That is faster than all threads together on each
layer, where they wait for each other, and a crop is computed in the same way whatever it shares a batch with.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import cached_file

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_reading import read_config, read_model
from ..configuration_metaqap import MetaQAPConfig
from ..errors import MetaQAPError
from ..folding import fold_for_inference, has_bfloat16
from ..installing import missing_package
from ..lineage import weights_sha256
from ..modeling_metaqap import IMAGE_OUTPUTS, MetaQAPModel
from .choices import ONNX_FILES, Dtype, Engine
from .learner_subsets import check_learners, keep_learners


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


Outputs = dict[str, torch.Tensor]


class TorchEngine:
    """The model itself, folded for inference (see `fold_for_inference`).

    Args:
        checkpoint: folder or Hub id.
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"` for bfloat16 where the device has it in hardware.
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
            dtype = "bfloat16" if has_bfloat16(self.device) else "float32"
        model = read_model(checkpoint, config=config, dtype=getattr(torch, dtype))
        self.name, self.dtype = Engine.torch, dtype
        self.model: MetaQAPModel = model if learners is None else keep_learners(model, learners)
        self.config = self.model.config
        self.model.eval().to(self.device, memory_format=torch.channels_last)
        self._network = fold_for_inference(self.model) if fold else self.model
        self._crop_by_crop = _CropByCrop()

    def __call__(self, crops: npt.NDArray[np.uint8], *, quality_map: bool = False) -> Outputs:
        run = functools.partial(self._run, quality_map=quality_map)
        return run(crops) if self.device.type != "cpu" else self._crop_by_crop(run, crops)

    @torch.inference_mode()
    def _run(self, crops: npt.NDArray[np.uint8], *, quality_map: bool) -> Outputs:
        pixel_values = torch.from_numpy(crops).to(self.device, memory_format=torch.channels_last)
        outputs = self._network(pixel_values=pixel_values.to(self.model.dtype) / 255, output_quality_map=quality_map)
        names = (*IMAGE_OUTPUTS, "quality_map")
        return {name: outputs[name].float().cpu() for name in names if outputs.get(name) is not None}


class _CropByCrop:
    """Takes crops through a network one by one, each in a thread of its own as far as there are threads.

    There are as many as PyTorch computes with when the first crops come.
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def __call__(
        self,
        run: Callable[[npt.NDArray[np.uint8]], Outputs],
        crops: npt.NDArray[np.uint8],
        *,
        run_alone: Callable[[npt.NDArray[np.uint8]], Outputs] | None = None,
    ) -> Outputs:
        """Outputs of all crops.

        Args:
            run: computes one crop `(1, 3, H, W)` in one thread.
            crops: `(N, 3, H, W)`.
            run_alone: computes one crop in all threads; default `run`, which asks PyTorch.
        """
        count = torch.get_num_threads()
        single = np.split(crops, len(crops))
        if count == 1 or len(single) < count:
            rows = [(run if count == 1 else run_alone or run)(crop) for crop in single]
        else:
            if self._threads is None:
                self._threads = _single_threads(count)
            rows = list(self._threads.map(run, single))
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which PyTorch computes with one thread; elsewhere it keeps its number."""
    everywhere = torch.get_num_threads()
    all_started = Barrier(count)

    def start() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    threads = ThreadPoolExecutor(count, thread_name_prefix="metaqap")
    for future in [threads.submit(start) for _ in range(count)]:
        future.result()
    # What is set last is what threads of the program that start later will have.
    torch.set_num_threads(everywhere)
    return threads


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
            file = cached_file(str(checkpoint), ONNX_FILES[name])
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
        self._crop_by_crop = _CropByCrop()

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
        # Here, since an export is compared with what a `Scorer` says, which needs this module.
        from .onnx_cache import cached_onnx

        folder = None
        if resolve_device(device).type == "cpu" and dtype == "float32":
            folder = cached_onnx(checkpoint, config, learners=learners, make=pays_from(WORTH_AN_EXPORT))
        if folder is not None:
            return OnnxEngine(folder)
        name = Engine.torch
    if name is Engine.torch:
        fold = pays_from(WORTH_FOLDING)
        return TorchEngine(checkpoint, device=device, dtype=dtype, config=config, learners=learners, fold=fold)
    if learners is not None and learners != config.num_base_learners:
        raise MetaQAPError(f"The exported file has all learners; leave out the engine {name}, or their number.")
    return OnnxEngine(checkpoint, name, device=device, dtype=dtype, config=config)


def resolve_device(device: str | None) -> torch.device:
    """The device of that name; default the GPU if there is one.

    Raises:
        MetaQAPError: if it cannot be used.
    """
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


__all__ = ["CropEngine", "OnnxEngine", "TorchEngine", "load_engine", "resolve_device"]
