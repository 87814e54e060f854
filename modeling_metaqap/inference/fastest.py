"""The fastest engine whose scores stay close to those of PyTorch in float32: measured once, on this machine."""

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..configuration_metaqap import MetaQAPConfig
from ..data.atomic import write_atomically
from ..devices import has_bfloat16, resolve_device
from .choices import Engine
from .engines import CropEngine
from .onnx_cache import cache_folder, cached_onnx
from .onnx_engine import OnnxEngine
from .scorer import Scorer

#: Largest difference to PyTorch in float32, in units of quality, of an engine that may be taken for its speed.
CLOSE = 0.01

#: Photographs with a blurred and a crushed version of each, to compare engines on and for the demo to offer.
PHOTOGRAPHS = Path(__file__).parent / "photographs"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was measured of an engine.

    Attributes:
        engine: that runs the model.
        dtype: number format of the computation.
        crops_per_second: on this machine.
        largest: difference to PyTorch in float32 on `n` photographs, in units of quality.
    """

    engine: str
    dtype: str
    crops_per_second: float
    largest: float
    n: int

    def __str__(self) -> str:
        name = {"torch": "PyTorch", "onnx": "ONNX Runtime"}[self.engine]
        return (
            f"{name} in {self.dtype}: {self.crops_per_second:.1f} crops a second, scores within {self.largest:.1g} of "
            f"PyTorch in float32 on {self.n} photographs"
        )


def fastest_engine(
    checkpoint: str | Path, config: MetaQAPConfig, *, device: str | None = None, learners: int | None = None
) -> tuple[CropEngine, Choice]:
    """The fastest engine here that stays within `CLOSE` of PyTorch in float32, and what was measured of it.

    Candidates are PyTorch in float32, PyTorch in bfloat16 where the device has it in hardware, and ONNX Runtime. Each
    scores the photographs that ship with the package, and then crops against the clock. That takes about a minute the
    first time; the choice is kept in the user's cache.
    """
    resolved = resolve_device(device)
    key = [str(resolved), torch.get_num_threads(), os.cpu_count()]
    folder = cache_folder(checkpoint, config, learners, key)
    choice = _read(folder / "fastest.json") if folder is not None else None
    if choice is None:
        choices = _measure(checkpoint, config, device, learners)
        choice = max((one for one in choices if one.largest <= CLOSE), key=lambda one: one.crops_per_second)
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / "fastest.json", json.dumps(asdict(choice)).encode())
            except OSError as error:
                logger.warning("The choice of the fastest engine could not be kept in %s: %s", folder, error)
    return _load(choice.engine, choice.dtype, checkpoint, config, device, learners), choice


def _measure(checkpoint: str | Path, config: MetaQAPConfig, device: str | None, learners: int | None) -> list[Choice]:
    # Here, as `TorchEngine` below: a choice that was made before needs none of it.
    from .onnx_export import compare

    candidates = [(Engine.torch, "float32")]
    resolved = resolve_device(device)
    if has_bfloat16(resolved):
        candidates.append((Engine.torch, "bfloat16"))
    if resolved.type == "cpu" and cached_onnx(checkpoint, config, learners=learners) is not None:
        candidates.append((Engine.onnx, "float32"))
    photographs = sorted(PHOTOGRAPHS.glob("*.jpg"))
    scorer = Scorer(checkpoint, device=device, learners=learners)
    crops = np.concatenate([scorer.prepare(photograph).crops for photograph in photographs])
    choices: list[Choice] = []
    expected = None
    for engine, dtype in candidates:
        if choices:  # the first one is the scorer's own
            scorer.engine = _load(engine, dtype, checkpoint, config, device, learners)
        records = list(scorer.score(photographs))
        expected = expected or records
        agreement = compare(expected, records)
        started = time.perf_counter()
        scorer.engine(crops)
        rate = len(crops) / (time.perf_counter() - started)
        choices.append(Choice(engine, dtype, rate, agreement.largest, agreement.n))
    return choices


def _load(
    engine: str,
    dtype: str,
    checkpoint: str | Path,
    config: MetaQAPConfig,
    device: str | None,
    learners: int | None,
) -> CropEngine:
    if engine == Engine.onnx:
        folder = cached_onnx(checkpoint, config, learners=learners)
        if folder is not None:
            return OnnxEngine(folder)
        dtype = "float32"
    from .torch_engine import TorchEngine

    return TorchEngine(checkpoint, device=device, dtype=dtype, config=config, learners=learners)


def _read(file: Path) -> Choice | None:
    try:
        return Choice(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


__all__ = ["CLOSE", "Choice", "fastest_engine"]
