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
from transformers import AutoImageProcessor, AutoModel

from . import DEFAULT_CHECKPOINT
from .image_processing_metaqap import to_rgb

#: File name endings that a folder is searched for.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .png .ppm .pgm .tga .tif .tiff .webp".split()
)


class ScoringError(ValueError):
    """A path, device or checkpoint that cannot be used; the message says what to change."""


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
class _Prepared:
    """One decoded image on its way through the model."""

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
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`.
        batch_size: crops in one pass through the model; a photograph gives one to a few.
        num_workers: threads that decode images.
        pad_batches: fill up the last batch, which costs time. All batches are then computed in the same way, so that
            scores do not differ in the last bit either when images are shared out among processes.

    Raises:
        ScoringError: for a checkpoint, device or dtype that cannot be used.

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
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
        num_workers: int = 4,
        pad_batches: bool = False,
    ):
        if batch_size < 1:
            raise ScoringError(f"The batch size must be at least 1, got {batch_size}.")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ScoringError(f"The dtype must be float32, bfloat16 or float16, got {dtype}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pad_batches = pad_batches
        self.device = _resolve_device(device)
        try:
            self.model = AutoModel.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
            self.image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        except (OSError, ValueError) as error:
            raise ScoringError(f"{checkpoint} is not a MetaQAP checkpoint: {str(error).splitlines()[0]}") from error
        if self.model.config.model_type != "metaqap":
            raise ScoringError(f"{checkpoint} is a {self.model.config.model_type} model, not a MetaQAP checkpoint.")
        self.model = self.model.eval().to(self.device, memory_format=torch.channels_last)

    def score(self, images: Iterable[str | Path | Image.Image]) -> Iterator[ScoreRecord]:
        """Yields one record for each image, in their order; an image that cannot be read gets one with `error`."""
        waiting: deque[Future[_Prepared]] = deque()
        pending: deque[_Prepared] = deque()
        todo: list[tuple[_Prepared, int]] = []
        source = iter(images)
        with ThreadPoolExecutor(self.num_workers) as pool:
            exhausted = False
            while not exhausted or waiting or pending:
                # A few images ahead keep the model busy; more would only fill the memory.
                while not exhausted and len(waiting) < 2 * self.num_workers:
                    try:
                        waiting.append(pool.submit(self._prepare, next(source)))
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

    def _prepare(self, image: str | Path | Image.Image) -> _Prepared:
        record = ScoreRecord(path="" if isinstance(image, Image.Image) else str(image))
        try:
            rgb = read_rgb(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            record.error = explain(error)
            return _Prepared(record)
        record.width, record.height = rgb.size
        # Bytes travel between threads; the division by 255 waits until the batch is on the device.
        inputs = self.image_processor(rgb, do_rescale=False, return_tensors="np")
        return _Prepared(record, crops=inputs["pixel_values"][0])

    @torch.inference_mode()
    def _run(self, batch: Sequence[tuple[_Prepared, int]]) -> None:
        crops = np.stack([prepared.crops[index] for prepared, index in batch])  # type: ignore[index]
        if self.pad_batches:
            missing = self.batch_size - len(crops)
            crops = np.concatenate([crops, np.repeat(crops[-1:], missing, axis=0)])
        pixel_values = torch.from_numpy(crops).to(self.device, memory_format=torch.channels_last)
        outputs = self.model(pixel_values=pixel_values.to(self.model.dtype) / 255)
        names = [
            name
            for name in ("logits", "base_scores", "interval", "distortion_logits")
            if outputs.get(name) is not None
        ]
        values = {name: outputs[name].float().cpu() for name in names}
        for row, (prepared, _) in enumerate(batch):
            prepared.outputs.append({name: value[row] for name, value in values.items()})

    def _finish(self, prepared: _Prepared) -> ScoreRecord:
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
            record.distortion = self.model.config.distortion_labels[int(probabilities.argmax())]
            record.distortion_probability = probabilities.max().item()
        return record


def read_rgb(image: str | Path | Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, upright (see `to_rgb`)."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    with warnings.catch_warnings():
        # Pillow warns of large photographs long before it refuses decompression bombs.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(image) as opened:
            return to_rgb(opened)


def explain(error: Exception) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _resolve_device(device: str | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ScoringError(f"The device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return resolved


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


__all__ = [
    "IMAGE_SUFFIXES",
    "ScoreRecord",
    "Scorer",
    "ScoringError",
    "describe",
    "explain",
    "find_images",
    "read_rgb",
]
