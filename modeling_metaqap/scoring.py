"""Files, folders and streams of images -> one record each, robustly."""

import glob
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoImageProcessor

from . import DEFAULT_CHECKPOINT
from .engines import Engine, ScoringError, TorchEngine, load_engine
from .image_processing_metaqap import to_rgb
from .modeling_metaqap import MetaQAPModel

#: File name endings that a folder is searched for.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .png .ppm .pgm .tga .tif .tiff .webp".split()
)


@dataclass(kw_only=True)
class ScoreRecord:
    """What is known about one image. Fields that the checkpoint does not give are None.

    Attributes:
        path: as given.
        quality: higher is better; [0, 1] is the training range, values are not clipped to it.
        quality_low, quality_high: calibrated 90 % prediction interval.
        distortion: name of the synthetic distortion that the image resembles most.
        distortion_probability: of that distortion, in [0, 1].
        width, height: pixels, after the EXIF orientation.
        error: why the image has no score.
        base_scores: each base learner's own score.
    """

    path: str
    quality: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None
    distortion: str | None = None
    distortion_probability: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    base_scores: list[float] | None = None


def find_images(paths: Iterable[str], *, recursive: bool = False) -> list[str]:
    """Expand files, folders and globs to a list of image files without repetition, folders in sorted order.

    Args:
        paths: files (of any name), folders (searched for `IMAGE_SUFFIXES`) and glob patterns.
        recursive: also search the folders' sub-folders.

    Raises:
        ScoringError: for a path that does not exist, a pattern without a match or a folder without images.
    """
    found: dict[str, None] = {}
    for path in paths:
        if Path(path).is_dir():
            candidates = Path(path).rglob("*") if recursive else Path(path).glob("*")
            images = [file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
            files = sorted(map(str, images))
            if not files:
                hint = "" if recursive else "; add --recursive to search its sub-folders"
                raise ScoringError(f"The folder {path} holds no images{hint}.")
        elif Path(path).exists():
            files = [path]
        elif glob.has_magic(path):
            files = sorted(file for file in glob.glob(path, recursive=recursive) if Path(file).is_file())
            if not files:
                raise ScoringError(f"No file matches {path}.")
        else:
            raise ScoringError(f"There is no file or folder {path}.")
        found |= dict.fromkeys(files)
    return list(found)


@dataclass
class Prepared:
    """One decoded image on its way through the engine.

    Attributes:
        record: without a score yet, or with the reason why there will be none.
        crops: `(N, 3, H, W)` RGB bytes; None if the image could not be read.
        outputs: of the engine, crop by crop.
    """

    record: ScoreRecord
    crops: np.ndarray | None = None
    outputs: list[dict[str, torch.Tensor]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.crops is None or len(self.outputs) == len(self.crops)


class Scorer:
    """Scores images one by one or by the thousand with bounded memory; the result does not depend on the batching.

    Args:
        checkpoint: folder or Hub id; default the ensemble that ships with the package.
        engine: `"torch"`, or `"onnx"` or `"onnx-int8"` for a file that `metaqap export` wrote, run by onnxruntime.
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one (the CPU with onnxruntime).
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; with PyTorch only.
        batch_size: crops in one pass through the model; a photograph gives one to a few.
        num_workers: threads that decode images.

    Raises:
        ScoringError: for a checkpoint, engine, device or dtype that cannot be used.

    Example:

    ```python
    >>> from modeling_metaqap.scoring import Scorer

    >>> [record] = Scorer().score(["photo.jpg"])
    >>> record.quality, record.quality_low, record.quality_high
    ```
    """

    def __init__(
        self,
        checkpoint: str | Path = DEFAULT_CHECKPOINT,
        *,
        engine: str = Engine.torch,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
        num_workers: int = 4,
    ):
        if batch_size < 1:
            raise ScoringError(f"The batch size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.engine = load_engine(checkpoint, engine, device=device, dtype=dtype)
        try:
            self.image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        except (OSError, ValueError) as error:
            raise ScoringError(f"{checkpoint} has no image processor: {str(error).splitlines()[0]}") from error

    @property
    def model(self) -> MetaQAPModel:
        """The PyTorch model.

        Raises:
            ScoringError: with another engine.
        """
        if not isinstance(self.engine, TorchEngine):
            raise ScoringError("Only the PyTorch engine has the model itself.")
        return self.engine.model

    def score(self, images: Iterable[str | Path | Image.Image]) -> Iterator[ScoreRecord]:
        """Yields one record for each image, in their order; an image that cannot be read gets one with `error`."""
        waiting: deque[Future[Prepared]] = deque()
        pending: deque[Prepared] = deque()
        todo: list[tuple[Prepared, int]] = []
        source = iter(images)
        with ThreadPoolExecutor(self.num_workers) as pool:
            exhausted = False
            while not exhausted or waiting or pending:
                # A few images ahead keep the model busy; more would only fill the memory.
                while not exhausted and len(waiting) < 2 * self.num_workers:
                    try:
                        waiting.append(pool.submit(self.prepare, next(source)))
                    except StopIteration:
                        exhausted = True
                if waiting:
                    prepared = waiting.popleft().result()
                    pending.append(prepared)
                    if prepared.crops is not None:
                        todo += [(prepared, index) for index in range(len(prepared.crops))]
                while len(todo) >= self.batch_size or (todo and not waiting):
                    self._run(todo[: self.batch_size])
                    del todo[: self.batch_size]
                while pending and pending[0].is_complete:
                    yield self._finish(pending.popleft())

    def prepare(self, image: str | Path | Image.Image) -> Prepared:
        """Decodes one image and cuts it into crops."""
        record = ScoreRecord(path="" if isinstance(image, Image.Image) else str(image))
        try:
            rgb = _read(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            record.error = _explain(error)
            return Prepared(record)
        record.width, record.height = rgb.size
        # Bytes travel between threads; the engine divides by 255.
        inputs = self.image_processor(rgb, do_rescale=False, return_tensors="np")
        return Prepared(record, crops=inputs["pixel_values"][0])

    def _run(self, batch: Sequence[tuple[Prepared, int]]) -> None:
        values = self.engine(np.stack([prepared.crops[index] for prepared, index in batch]))  # type: ignore[index]
        for row, (prepared, _) in enumerate(batch):
            prepared.outputs.append({name: value[row] for name, value in values.items()})

    def _finish(self, prepared: Prepared) -> ScoreRecord:
        record = prepared.record
        if prepared.crops is None:
            return record
        # Linear in the averaged features, so the mean over crops is the model's output for all crops together.
        means = {
            name: torch.stack([output[name] for output in prepared.outputs]).mean(dim=0)
            for name in prepared.outputs[0]
        }
        record.quality = means["logits"].item()
        record.base_scores = means["base_scores"].tolist()
        if "interval" in means:
            record.quality_low, record.quality_high = means["interval"].tolist()
        if "distortion_logits" in means:
            probabilities = means["distortion_logits"].softmax(dim=0)
            record.distortion = self.engine.config.distortion_labels[int(probabilities.argmax())]
            record.distortion_probability = probabilities.max().item()
        return record


def _read(image: str | Path | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    with warnings.catch_warnings():
        # Pillow warns of large photographs long before it refuses decompression bombs.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(image) as opened:
            return to_rgb(opened)


def _explain(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def describe(model: Any) -> dict[str, Any]:
    """What a checkpoint is made of and was measured at: learners, meta-learner weights, parameters, training."""
    weights = model.meta_learner.weight.tolist()
    return {
        "base_learners": [
            {
                "name": learner["name"],
                "backbone": learner["backbone"],
                "weight": weight,
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
            }
            for learner, weight, module in zip(model.config.base_learners, weights, model.base_learners, strict=True)
        ],
        "intercept": model.meta_learner.intercept.item(),
        "interval_radius": model.config.interval_radius,
        "distortion_labels": model.config.distortion_labels,
        "training_summary": model.config.training_summary,
    }


__all__ = ["IMAGE_SUFFIXES", "Prepared", "ScoreRecord", "Scorer", "ScoringError", "describe", "find_images"]
