"""`Scorer`: files and streams of images -> one record each, in bounded memory, past images that cannot be read."""

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from .. import DEFAULT_CHECKPOINT
from ..assessment_metaqap import assess_image
from ..checkpoint_reading import read_config, read_crop_settings, read_image_processor
from ..configuration_metaqap import MetaQAPConfig
from ..crops_metaqap import prepare_crops
from ..data.rating_options import checked_range
from ..data.stored_images import StoredImage
from ..decoding_metaqap import Photograph, UnreadableImage, read_image, warning_of
from ..devices import resolve_device
from ..errors import MetaQAPError
from .choices import Engine
from .decoding import MAX_CROPS, Seen, read_as_seen
from .engines import CropEngine, load_engine
from .isolation import IsolatedDecoder
from .learner_subsets import check_learners
from .records import ScoreRecord
from .thumbnails import make_thumbnail

if TYPE_CHECKING:
    from ..image_processing_metaqap import MetaQAPImageProcessor
    from ..modeling_metaqap import MetaQAPModel
    from .fastest import Choice

#: What can be scored: a path, an image in an archive or elsewhere, an open file, an image of Pillow, or what
#: `Scorer.read` gave.
AnyImage = str | Path | StoredImage | IO[bytes] | Image.Image | Photograph


#: From so many images on it does not matter that processes have to be started to decode them.
WORTH_ISOLATING = 1000


@dataclass
class Prepared:
    """One decoded image on its way through the engine.

    Attributes:
        record: without a score yet, or with the reason why there will be none.
        size: width and height of what the model sees of it.
        crops: `(N, 3, H, W)` RGB bytes; None if the image could not be read.
        outputs: of the engine, `(1, ...)` for each crop.
    """

    record: ScoreRecord
    size: tuple[int, int] = (0, 0)
    crops: np.ndarray | None = None
    outputs: list[dict[str, torch.Tensor]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.crops is None or len(self.outputs) == len(self.crops)


class Scorer:
    """Scores images one by one or by the thousand with bounded memory; the result does not depend on the batching.

    Args:
        checkpoint: folder or Hub id; default the ensemble that ships with the package.
        engine: `"torch"`; `"onnx"` or `"onnx-int8"` for a file that `metaqap export` wrote, run by onnxruntime; or
            `"auto"`, see `load_engine`.
        device: such as `"cpu"` or `"cuda:1"`; default the GPU if there is one (the CPU with onnxruntime).
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"` for bfloat16 where that is faster;
            with PyTorch only.
        scale: report scores on this scale, such as `(1, 5)`, instead of [0, 1]; `"raters"` for that of the ratings
            that the checkpoint was fitted to. Quality 0 becomes the lowest score and 1 the highest, without clipping.
        learners: how many of the base learners to take, those that together serve best; default all.
        num_images: how many will be scored, if that is known; see `load_engine`.
        fast: take the fastest engine and number format that stay within 0.01 of PyTorch in float32; `engine` and
            `dtype` have no say then, and the attribute `choice` says what was taken.
        batch_size: crops in one pass through the model; a photograph gives one to a few.
        num_workers: threads that decode images.
        max_pixels: images of more are refused before they are decoded. Pillow itself warns of what has more than its
            `Image.MAX_IMAGE_PIXELS` and refuses twice as many.
        max_crops: images that need more crops, long and narrow ones, are refused too; each takes the time of one
            ordinary photograph.
        isolate: decode files in other processes, within limits of time and memory: a file that makes a decoder crash,
            loop or take gigabytes is then an error of this file. Pillow images are not concerned. None isolates where
            it costs little: `WORTH_ISOLATING` images or more on the CPU, where the model takes most of the time.
        pad_batches: fill up the last batch, which costs time. All batches are then computed in the same way, so that
            scores do not differ in the last bit either when images are shared out among processes.

    Raises:
        MetaQAPError: for a checkpoint, engine, device, dtype or scale that cannot be used.

    Example:

    ```python
    >>> from modeling_metaqap import Scorer

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
        scale: Sequence[float] | str | None = None,
        learners: int | None = None,
        num_images: int | None = None,
        fast: bool = False,
        batch_size: int = 8,
        num_workers: int = 4,
        max_pixels: int | None = None,
        max_crops: int | None = MAX_CROPS,
        isolate: bool | None = False,
        pad_batches: bool = False,
    ):
        if batch_size < 1:
            raise MetaQAPError(f"The batch size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pad_batches = pad_batches
        if isolate is None:
            many = num_images is None or num_images >= WORTH_ISOLATING
            isolate = many and resolve_device(device).type == "cpu"
        self._decoder = IsolatedDecoder() if isolate else None
        self.engine: CropEngine
        self.choice: Choice | None = None
        if fast:
            # Here, since engines are compared by what a `Scorer` says.
            from .fastest import fastest_engine

            config = read_config(checkpoint)
            check_learners(config, learners)
            self.engine, self.choice = fastest_engine(checkpoint, config, device=device, learners=learners)
        else:
            self.engine = load_engine(
                checkpoint, engine, device=device, dtype=dtype, learners=learners, num_images=num_images
            )
        self._checkpoint = checkpoint
        crops = read_crop_settings(checkpoint)
        #: What the model sees of an image.
        self.seen = Seen(**asdict(crops), max_pixels=max_pixels, max_crops=max_crops)
        self.scale = _scale_of(self.engine.config, scale)

    @cached_property
    def image_processor(self) -> "MetaQAPImageProcessor":
        """The image processor of the checkpoint, which scoring without quality maps needs nothing of."""
        return read_image_processor(self._checkpoint)

    @property
    def model(self) -> "MetaQAPModel":
        """The PyTorch model.

        Raises:
            MetaQAPError: with another engine.
        """
        from .torch_engine import TorchEngine

        if not isinstance(self.engine, TorchEngine):
            raise MetaQAPError("Only the PyTorch engine has the model itself.")
        return self.engine.model

    def score(
        self, images: Iterable[AnyImage], *, quality_map: bool = False, thumbnail: int | None = None
    ) -> Iterator[ScoreRecord]:
        """Yields one record for each image, in their order; an image that cannot be read gets one with `error`.

        Args:
            images: paths, what `images_in` gives, open files, Pillow images or what `read` gives; the last three have
                no name in the records.
            quality_map: also give each record the map of local quality.
            thumbnail: also give each record a picture whose longer side has so many pixels at most.
        """
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
                        waiting.append(pool.submit(self.prepare, next(source), thumbnail=thumbnail))
                    except StopIteration:
                        exhausted = True
                if waiting:
                    prepared = waiting.popleft().result()
                    pending.append(prepared)
                    if prepared.crops is not None:
                        todo += [(prepared, index) for index in range(len(prepared.crops))]
                while len(todo) >= self.batch_size or (todo and not waiting):
                    self._run(todo[: self.batch_size], quality_map=quality_map)
                    del todo[: self.batch_size]
                while pending and pending[0].is_complete:
                    yield self._finish(pending.popleft())

    def read(self, image: AnyImage) -> Photograph:
        """Read an image and shrink it to what the model sees; its score is that of the original.

        Raises:
            MetaQAPError: if the image cannot be read or is over the limits; the message has no name in it.
        """
        if isinstance(image, Photograph):
            return image
        try:
            if isinstance(image, Image.Image):
                return self.seen.shrink(read_image(image))
            source = image.read() if isinstance(image, StoredImage) else image
            if self._decoder is not None and isinstance(source, (str, Path, bytes)):
                return self._decoder.read(source, self.seen)
            return read_as_seen(io.BytesIO(source) if isinstance(source, bytes) else source, self.seen)
        except UnreadableImage as error:
            raise MetaQAPError(str(error)) from error

    def prepare(self, image: AnyImage, *, thumbnail: int | None = None) -> Prepared:
        """Decodes one image and cuts it into crops; see `score` for the thumbnail."""
        record = ScoreRecord(path=name_of(image))
        try:
            photograph = self.read(image)
        except MetaQAPError as error:
            record.error = str(error)
            return Prepared(record)
        record.width, record.height = photograph.width, photograph.height
        record.warning = warning_of(photograph)
        if thumbnail is not None:
            record.thumbnail = make_thumbnail(photograph.pixels, thumbnail)
        # Bytes travel between threads; the engine divides by 255.
        crops = prepare_crops(photograph.pixels, self.seen.layout(*photograph.pixels.size))
        return Prepared(record, size=photograph.pixels.size, crops=crops)

    def _run(self, batch: Sequence[tuple[Prepared, int]], *, quality_map: bool) -> None:
        crops = np.stack([prepared.crops[index] for prepared, index in batch])  # type: ignore[index]
        if self.pad_batches:
            missing = self.batch_size - len(crops)
            crops = np.concatenate([crops, np.repeat(crops[-1:], missing, axis=0)])
        values = self.engine(crops, quality_map=quality_map)
        for row, (prepared, _) in enumerate(batch):
            prepared.outputs.append({name: value[row : row + 1] for name, value in values.items()})

    def _finish(self, prepared: Prepared) -> ScoreRecord:
        record = prepared.record
        if prepared.crops is None:
            return record
        for name, value in assess_image(prepared.outputs, self.engine.config).items():
            setattr(record, name, value)
        if record.error is None and "quality_map" in prepared.outputs[0]:
            from ..modeling_metaqap import MetaQAPOutput

            crop_maps = torch.cat([outputs["quality_map"] for outputs in prepared.outputs])
            [whole] = self.image_processor.post_process_quality_map(
                MetaQAPOutput(quality_map=crop_maps.unsqueeze(0)), [prepared.size[::-1]]
            )
            record.quality_map = whole.numpy()
        record.put_on_scale(self.scale)
        return record


def _scale_of(config: MetaQAPConfig, scale: Sequence[float] | str | None) -> tuple[float, float]:
    if scale is None:
        return 0.0, 1.0
    if scale != "raters":
        return checked_range(scale, name="scale")
    if config.mos_range is None:
        raise MetaQAPError(
            "The checkpoint does not say which ratings its raters could give; name the lowest and the highest with "
            "`scale`, such as `scale` 1 5."
        )
    return checked_range(config.mos_range)


def name_of(image: AnyImage) -> str:
    """What an image is called in its record."""
    if isinstance(image, StoredImage):
        return image.name
    return str(image) if isinstance(image, (str, Path)) else ""


def describe(model: Any) -> dict[str, Any]:
    """What a checkpoint is made of: learners, meta-learner weights, parameters, and the lineage of the weights."""
    weights = model.meta_learner.weight.tolist()
    return {
        "base_learners": [
            {
                "name": learner["name"],
                "backbone": learner["backbone"],
                "scales": list(learner["scales"]),
                "weight": weight,
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
                "lineage": learner["lineage"],
            }
            for learner, weight, module in zip(model.config.base_learners, weights, model.base_learners, strict=True)
        ],
        "intercept": model.meta_learner.intercept.item(),
        "interval_radius": model.config.interval_radius,
        "interval_scale": model.config.interval_scale,
        "interval_coverage": model.config.interval_coverage,
        "mos_range": model.config.mos_range,
        "distortion_labels": model.config.distortion_labels,
        "lineage": model.config.lineage or [],
    }


__all__ = ["WORTH_ISOLATING", "AnyImage", "Prepared", "Scorer", "describe", "name_of"]
