"""A checkpoint as ONNX files that answer as PyTorch does, checked on photographs before they are kept."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_places import checkpoint_folder
from ..errors import MetaQAPError
from ..installing import missing_package
from ..lineage import weights_sha256
from .choices import ONNX_FILES, Engine
from .records import ScoreRecord
from .scorer import Scorer

#: Largest difference in quality (and in all else that has its unit) between ONNX and PyTorch that is let pass.
TOLERANCE = 1e-3

Photograph = str | Path | Image.Image


@dataclass(frozen=True)
class Agreement:
    """How far an exported file is from PyTorch, in units of quality.

    Attributes:
        n: Photographs compared.
        largest: Largest absolute difference of a quality, an end of its interval or a base score.
        mean: Mean absolute difference of the qualities.
    """

    n: int
    largest: float
    mean: float


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Checkpoint folder that holds the files; `Scorer(folder, engine="onnx")` uses them.
        agreement: For each engine, how its file agrees with PyTorch.
        records: The records that this was judged by, PyTorch's among them.
    """

    folder: Path
    agreement: dict[Engine, Agreement]
    records: dict[Engine, list[ScoreRecord]]


def export_onnx(
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    output: str | Path | None = None,
    *,
    photographs: Sequence[Photograph] = (),
    int8: bool = False,
    learners: int | None = None,
    tolerance: float | None = None,
) -> Export:
    """Write `onnx/model.onnx` by transformers' own exporter, and on request `onnx/model_int8.onnx`.

    The graph takes `pixel_values` `(B, N, 3, H, W)` and `crop_weights` `(B, N)` of any B and N; H and W are the crop
    size of the checkpoint's image processor, which any image is cut to. It gives `logits`, `base_scores` and, where
    the checkpoint has them, `interval` and `distortion_logits`, as `MetaQAPOutput` describes them.

    For int8 the convolutions are quantised, weights by channel and activations by their range over every second
    photograph; the agreement is measured on the others.

    Args:
        checkpoint: folder or Hub id.
        output: folder of the files, which also gets configuration and image processor; default the checkpoint's own.
        photographs: to compare with PyTorch, default a few generated pictures.
        int8: also write the int8 file; needs photographs.
        learners: how many of the learners; default all.
        tolerance: how much the file may differ from PyTorch, in units of quality, default `TOLERANCE`; the int8
            file's difference is only measured.

    Raises:
        MetaQAPError: for a checkpoint or photographs that cannot be used, a missing package, or an export that does
            not agree with PyTorch to `tolerance`; nothing is written then.
    """
    output = checkpoint_folder(checkpoint) if output is None else output
    if output is None:
        raise MetaQAPError(f"{checkpoint} is not a local folder; name another folder to write to.")
    if int8 and len(photographs) < 2:
        raise MetaQAPError("An int8 file needs photographs to be calibrated and judged on; name them with `photos`.")
    try:
        import onnx_ir
        from transformers.exporters import OnnxConfig, OnnxExporter
    except ImportError as error:
        raise MetaQAPError(missing_package(error.name or "onnx")) from error

    tolerance = TOLERANCE if tolerance is None else tolerance
    folder = Path(output)
    reference = Scorer(checkpoint, device="cpu", learners=learners)
    side = reference.seen.crop_size
    inputs: dict[str, Any] = {
        "pixel_values": torch.full((2, 3, 3, side, side), 0.5),
        "crop_weights": torch.full((2, 3), 1 / 3),
    }
    dynamic = {name: {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} for name in inputs}
    with _quiet():
        exported = OnnxExporter().export(reference.model, inputs, config=OnnxConfig(dynamic_shapes=dynamic))
    programs = {Engine.onnx: exported.program}
    judged = list(photographs) or _generated_pictures(side)
    if int8:
        with _quiet():
            crops = _float_crops(reference, judged[::2])
            programs[Engine.onnx_int8] = _quantized(exported.program, inputs, crops)
        judged = judged[1::2]

    records = {Engine.torch: list(reference.score(judged))}
    agreement = {}
    _make(folder)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        reference.model.config.save_pretrained(temporary)
        reference.image_processor.save_pretrained(temporary)
        for engine, program in programs.items():
            # Ties the file to the weights, see `OnnxEngine`.
            program.metadata_props["weights_sha256"] = weights_sha256(checkpoint) or ""
            file = Path(temporary) / ONNX_FILES[engine]
            file.parent.mkdir(exist_ok=True)
            onnx_ir.save(program, file)
            records[engine] = list(Scorer(temporary, engine=engine).score(judged))
            agreement[engine] = compare(records[Engine.torch], records[engine])
        largest = agreement[Engine.onnx].largest
        if largest > tolerance:
            raise MetaQAPError(
                f"The ONNX file differs from PyTorch by {largest:.2g}, more than {tolerance:g}, and was not kept."
            )
        for file in sorted(Path(temporary).rglob("*")):
            target = folder / file.relative_to(temporary)
            # A checkpoint keeps its own configuration and code.
            if file.is_file() and (file.suffix == ".onnx" or not target.exists()):
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)
    return Export(folder, agreement, records)


def compare(expected: Sequence[ScoreRecord], found: Sequence[ScoreRecord]) -> Agreement:
    """Agreement of two engines' records of the same images; those that could not be read do not count.

    Raises:
        MetaQAPError: if none could be read.
    """
    pairs = [(one, other) for one, other in zip(expected, found, strict=True) if one.error is None]
    if not pairs:
        raise MetaQAPError("None of the photographs to compare with could be read.")
    differences = [np.abs(np.subtract(_figures(one), _figures(other))) for one, other in pairs]
    return Agreement(
        n=len(pairs),
        largest=float(max(difference.max() for difference in differences)),
        mean=float(np.mean([difference[0] for difference in differences])),
    )


def _figures(record: ScoreRecord) -> list[float]:
    figures = [record.quality, record.quality_low, record.quality_high, *(record.base_scores or [])]
    return [figure for figure in figures if figure is not None]


def _quantized(program: Any, inputs: dict[str, Any], crops: Sequence[dict[str, torch.Tensor]]) -> Any:
    try:
        from onnxruntime.quantization import QuantType
    except ImportError as error:
        raise MetaQAPError(missing_package("onnxruntime")) from error
    from transformers.exporters import OnnxRuntimeQuantizer, OnnxRuntimeStaticConfig
    from transformers.exporters.configs import ExportFormat

    # Convolutions take the time; a score depends on the pooled averages and the heads directly, so these stay as they
    # are. Without their activations, an output would be rounded before it is clipped, and most of the 256 values lost.
    config = OnnxRuntimeStaticConfig(
        op_types_to_quantize=["Conv", "Clip", "Relu"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # The mean over photographs of the lowest and highest activation: one odd picture would widen every range.
        extra_options={"CalibMovingAverage": True},
    )
    return OnnxRuntimeQuantizer(config, calibration_dataset=crops).quantize(program, inputs, ExportFormat.ONNX)


def _float_crops(scorer: Scorer, photographs: Sequence[Photograph]) -> list[dict[str, torch.Tensor]]:
    """Inputs of the graph, one crop each: the first of every photograph that can be read."""
    crops = [prepared.crops for prepared in map(scorer.prepare, photographs) if prepared.crops is not None]
    if not crops:
        raise MetaQAPError("None of the photographs to calibrate with could be read.")
    return [
        {"pixel_values": torch.from_numpy(crop[:1])[None].float() / 255, "crop_weights": torch.ones(1, 1)}
        for crop in crops
    ]


def _generated_pictures(side: int) -> list[Image.Image]:
    """Smooth and noisy pictures of one to several crops."""
    rng = np.random.default_rng(0)
    pictures = []
    for grain, (width, height) in zip((1, 4, 16, 64), ((1, 1), (1.5, 1), (1, 2.2), (0.5, 0.4)), strict=True):
        size = (round(width * side), round(height * side))
        noise = rng.integers(0, 256, (max(2, size[1] // grain), max(2, size[0] // grain), 3), dtype=np.uint8)
        pictures.append(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
    return pictures


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MetaQAPError(
            f"Cannot write to {folder}: {(error.strerror or str(error)).lower()}; name another folder with --output."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress on standard output and the notes of the libraries that it calls."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
        transformers_logging.set_verbosity(verbosity)


__all__ = ["TOLERANCE", "Agreement", "Export", "compare", "export_onnx"]
