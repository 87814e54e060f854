"""Speed: of the distortions, the pseudo opinion score, the engines that score, and a training step.

Each section is a function `Bench -> JSON values`. A figure is taken from the fastest of its repetitions, which other
work on the machine disturbs least. Where things are compared they take turns, and the ratio is the median over the
turns.
"""

import functools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage import data
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_reading import read_config, read_crop_settings, read_model
from ..crops_metaqap import crop_layout
from ..data.distorted.building import find_photographs
from ..data.distorted.pseudo_mos import METRIC_SETS, METRICS, pseudo_mos
from ..data.distortions import DISTORTIONS, LEVELS, distort
from ..decoding_metaqap import read_rgb
from ..errors import MetaQAPError
from ..inference.choices import Engine
from ..inference.engines import CropEngine, load_engine
from ..inference.learner_subsets import keep_learners
from ..inference.onnx_export import export_onnx
from ..inference.torch_engine import TorchEngine
from ..lineage import weights_sha256
from ..modeling_metaqap import MetaQAPModel
from ..training.learner import freeze_batch_norm, model_config
from ..training.recipe import Recipe
from ..training.state import begin_state
from ..training.step import Batch, training_step
from .distributed_speed import distributed_speed
from .racing import contenders, race, ratio
from .start_up_speed import start_up_speed
from .training_speed import training_speed

#: Sides of the images that the pseudo opinion score is measured at.
METRIC_SIDES = (256, 384, 512)


@dataclass(frozen=True)
class Bench:
    """What a section measures with.

    Attributes:
        photographs: Square uint8 RGB images of `side` pixels.
        seconds: Time to spend on one figure, at least one repetition.
        checkpoint: Folder of the model that `inference` measures.
        backbone: That `training` trains.
        threads, turns, size, before, pyiqa_python, contenders: Of `scoring`, see `race`. The size is width and height
            of its JPEG files in pixels. The first three also of `distributed`, the first four of `training` and
            `start_up`.
        scored: Photographs that `distributed` measures a rate on.
    """

    photographs: list[NDArray[np.uint8]]
    seconds: float
    checkpoint: Path = DEFAULT_CHECKPOINT
    backbone: str = "mobilenetv2_100"
    threads: int = 1
    turns: int = 5
    size: tuple[int, int] = (512, 512)
    before: Path | None = None
    pyiqa_python: str | None = None
    contenders: tuple[str, ...] = ()
    scored: int = 400

    def fastest(self, work: Callable[[], Any]) -> float:
        """Seconds that one run of `work` takes at best, after a first run that does not count."""
        work()
        best, end = float("inf"), time.perf_counter() + self.seconds
        while True:
            started = time.perf_counter()
            work()
            now = time.perf_counter()
            best = min(best, now - started)
            if now >= end:
                return best


def distortions(bench: Bench) -> dict[str, Any]:
    """Distorted images a second, for each distortion, over the photographs and levels."""
    rate, milliseconds = {}, {}
    for name, entry in DISTORTIONS.items():
        taken = statistics.mean(
            bench.fastest(functools.partial(entry, image, level, 0)) for image in bench.photographs for level in LEVELS
        )
        milliseconds[name] = round(taken * 1e3, 2)
        rate[name] = round(1 / taken, 2)
    median, slowest = statistics.median(milliseconds.values()), max(milliseconds, key=milliseconds.__getitem__)
    return {
        "side": bench.photographs[0].shape[0],
        "images_per_second": rate,
        "median_images_per_second": round(1e3 / median, 2),
        "slowest": slowest,
        "slowest_over_median": round(milliseconds[slowest] / median, 2),
    }


def pseudo_mos_speed(bench: Bench) -> dict[str, Any]:
    """Pseudo opinion scores a second, and what each metric takes, at several sizes."""
    sizes = {}
    for side in METRIC_SIDES:
        reference = torch.stack([_tensor(_resized(image, side)) for image in bench.photographs])
        distorted = torch.stack(
            [_tensor(distort(_resized(image, side), "jpeg_compression", 3, 0)) for image in bench.photographs]
        )
        count = len(reference)
        milliseconds = {
            name: bench.fastest(functools.partial(pseudo_mos, distorted, reference, metrics=[name])) / count * 1e3
            for name in METRICS
        }
        sizes[str(side)] = {
            **{
                f"{kind}_images_per_second": round(1e3 / sum(milliseconds[name] for name in names), 2)
                for kind, names in METRIC_SETS.items()
            },
            "milliseconds": {name: round(value, 2) for name, value in milliseconds.items()},
        }
    return {"sides": sizes}


def inference(bench: Bench) -> dict[str, Any]:
    """Size of a checkpoint, multiply-adds and memory for one crop, and the speed of each engine beside PyTorch's."""
    with tempfile.TemporaryDirectory() as exported:
        pictures = [Image.fromarray(photograph) for photograph in bench.photographs]
        export_onnx(bench.checkpoint, exported, photographs=pictures, int8=True)
        engines: dict[str, CropEngine] = {
            "torch": TorchEngine(bench.checkpoint, device="cpu"),
            "torch-bfloat16": TorchEngine(bench.checkpoint, device="cpu", dtype="bfloat16"),
            "onnx": load_engine(exported, Engine.onnx),
            "onnx-int8": load_engine(exported, Engine.onnx_int8),
        }
    crops = np.stack([photograph.transpose(2, 0, 1) for photograph in bench.photographs])
    seconds = in_turns({name: functools.partial(engine, crops) for name, engine in engines.items()}, bench.seconds)
    model = engines["torch"].model  # type: ignore[attr-defined]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *crops.shape[1:]))
    return {
        "checkpoint": bench.checkpoint.name,
        "weights_sha256": weights_sha256(bench.checkpoint),
        "side": crops.shape[-1],
        "threads": torch.get_num_threads(),
        "crops_in_one_pass": len(crops),
        "turns": len(seconds["torch"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": counter.get_total_flops() // 2,
        "weights_megabytes": round((bench.checkpoint / "model.safetensors").stat().st_size / 1e6, 2),
        "peak_memory_megabytes": _peak_memory(bench.checkpoint, pictures[0]),
        "engines": {
            name: {
                "crops_per_second": round(len(crops) / min(taken), 2),
                # Within a turn all engines meet about the same machine.
                "over_torch": round(
                    statistics.median(base / own for base, own in zip(seconds["torch"], taken, strict=True)), 3
                ),
            }
            for name, taken in seconds.items()
        },
    }


def scoring(bench: Bench) -> dict[str, Any]:
    """Photographs a second from file to score: ours, an older version and pyiqa's metrics, in turns.

    Each contender is a process of its own, on as many cores as it has threads.
    """
    config = read_config(bench.checkpoint)
    model = read_model(bench.checkpoint)
    counts = {len(subset["learners"]) for subset in config.learner_subsets or []} | {config.num_base_learners}
    side = read_crop_settings(bench.checkpoint).crop_size
    width, height = bench.size
    crops = len(crop_layout(height, width, shortest_edge=side, crop_size=side).corners)
    macs = {}
    for count in sorted(counts):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            keep_learners(model, count)(torch.zeros(1, 3, side, side))
        macs[count] = counter.get_total_flops() // 2 * crops
    taking_part = contenders(
        bench.checkpoint,
        macs=macs,
        before=bench.before,
        pyiqa_python=bench.pyiqa_python,
        chosen=bench.contenders,
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [str(file) for file in _jpeg_files(bench, Path(folder))]
        results = race(taking_part, files, threads=bench.threads, seconds=bench.seconds, turns=bench.turns)
    references = (
        "version before",
        "bare forward, PyTorch folded",
        "bare forward, ONNX Runtime",
        "pyiqa topiq_nr",
        "pyiqa musiq",
    )
    return {
        "checkpoint": bench.checkpoint.name,
        "weights_sha256": weights_sha256(bench.checkpoint),
        "threads": bench.threads,
        "turns": bench.turns,
        "seconds": bench.seconds,
        "size": list(bench.size),
        "files": len(bench.photographs),
        "crops_for_one_photograph": crops,
        "contenders": results,
        **{
            title: {
                reference: {
                    name: ratio(results, name, reference, of=of)
                    for name in results
                    if name not in (reference, "matrix product")
                }
                for reference in references
                if reference in results
            }
            for title, of in (("ratios", "rates"), ("processor_ratios", "processor_rates"))
        },
    }


def distributed(bench: Bench) -> dict[str, Any]:
    """Photographs a second of Ray's workers, one core each, beside one process on as many cores."""
    with tempfile.TemporaryDirectory() as folder:
        measured = distributed_speed(
            bench.checkpoint,
            _jpeg_files(bench, Path(folder)),
            workers=bench.threads,
            photographs=bench.scored,
            turns=bench.turns,
        )
    about = {"checkpoint": bench.checkpoint.name, "weights_sha256": weights_sha256(bench.checkpoint)}
    return about | {"size": list(bench.size)} | measured


def _jpeg_files(bench: Bench, folder: Path) -> list[Path]:
    """The photographs in the size that is asked for; larger than they are, with mirrored copies beside them.

    A photograph that is enlarged would have no fine detail, and its file would be decoded faster than a real one.
    """
    files = [folder / f"{index}.jpg" for index in range(len(bench.photographs))]
    for file, photograph in zip(files, bench.photographs, strict=True):
        missing = [max(0, wanted - side) for wanted, side in zip(bench.size[::-1], photograph.shape, strict=False)]
        mosaic = np.pad(photograph, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")
        ImageOps.fit(Image.fromarray(mosaic), bench.size).save(file, quality=92)
    return files


def start_up(bench: Bench) -> dict[str, Any]:
    """Seconds until `metaqap score` says the score of one photograph, beside those of the imports it needs."""
    with tempfile.TemporaryDirectory() as folder:
        measured = start_up_speed(
            bench.checkpoint,
            _jpeg_files(bench, Path(folder))[0],
            threads=bench.threads,
            turns=bench.turns,
            before=bench.before,
        )
    about = {"checkpoint": bench.checkpoint.name, "weights_sha256": weights_sha256(bench.checkpoint)}
    return about | {"size": list(bench.size)} | measured


def training(bench: Bench) -> dict[str, Any]:
    """Images a second of a training step, beside the same backbone in a bare loop over timm's own classifier.

    And with reading, see `training_speed`. The step and the bare loop learn one number from the same batches with
    AdamW, from random weights, with BatchNorm frozen. The bare loop has timm's global pooling and the mean squared
    error; ours has the pooling of all stages, the quality-aware loss, clipping, the schedule and the moving average on
    top.
    """
    recipe = Recipe(backbone=bench.backbone)
    crops = np.stack([_resized(image, recipe.crop_size).transpose(2, 0, 1) for image in bench.photographs])
    pixels = torch.from_numpy(np.resize(crops, (recipe.batch_size, *crops.shape[1:])))
    labels = torch.linspace(0, 1, recipe.batch_size)

    try:
        model = MetaQAPModel(model_config(recipe))
    except ValueError as error:
        raise MetaQAPError(str(error)) from error
    bare = timm.create_model(recipe.backbone, num_classes=1).to(memory_format=torch.channels_last)
    bare_optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-6)

    def bare_step() -> None:
        inputs = pixels.to(memory_format=torch.channels_last).float() / 255
        loss = F.mse_loss(bare(inputs)[:, 0], labels)
        loss.backward()
        bare_optimizer.step()
        bare_optimizer.zero_grad()

    accelerator = Accelerator(cpu=True)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    state = begin_state(model, recipe, accelerator, steps_per_epoch=1_000_000)

    def own_step() -> None:
        training_step(accelerator, state, recipe, Batch(pixels, labels))

    for network in (bare, state.model):
        freeze_batch_norm(network.train())
    seconds = in_turns({"timm": bare_step, "metaqap": own_step}, bench.seconds)
    with tempfile.TemporaryDirectory() as folder:
        with_reading = training_speed(
            bench.backbone,
            _jpeg_files(bench, Path(folder)),
            threads=bench.threads,
            seconds=bench.seconds,
            turns=bench.turns,
            before=bench.before,
        )
    return {
        "backbone": recipe.backbone,
        "crop_size": recipe.crop_size,
        "batch_size": recipe.batch_size,
        "threads": torch.get_num_threads(),
        "turns": len(seconds["timm"]),
        "images_per_second": {name: round(recipe.batch_size / min(taken), 2) for name, taken in seconds.items()},
        "over_timm": round(
            statistics.median(base / own for base, own in zip(seconds["timm"], seconds["metaqap"], strict=True)), 3
        ),
        "with_reading": {"size": list(bench.size)} | with_reading,
    }


def in_turns(works: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each run, all works once in every turn, after a first turn that does not count."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds * len(works)
    while True:
        for name, work in works.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
        if time.perf_counter() >= end:
            return taken


def _peak_memory(checkpoint: Path, picture: Image.Image) -> float:
    """Megabytes that a process takes at most which loads the checkpoint and scores one image; Linux tells them."""
    code = """
import sys
from modeling_metaqap import Scorer
[record] = Scorer(sys.argv[1], device="cpu").score([sys.argv[2]])
assert record.error is None, record.error
print(open("/proc/self/status").read())
"""
    with tempfile.TemporaryDirectory() as folder:
        picture.save(Path(folder) / "picture.png")
        run = subprocess.run(
            [sys.executable, "-c", code, str(checkpoint.resolve()), str(Path(folder) / "picture.png")],
            capture_output=True,
            text=True,
            check=True,
        )
    # Not getrusage: its peak starts from that of the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", run.stdout)
    assert peak is not None
    return round(int(peak[1]) * 1024 / 1e6)


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "distortions": distortions,
    "inference": inference,
    "pseudo_mos": pseudo_mos_speed,
    "scoring": scoring,
    "training": training,
    "distributed": distributed,
    "start_up": start_up,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}


def load_photographs(directory: Path | None, *, side: int, count: int) -> list[NDArray[np.uint8]]:
    """The first images of a directory, or scikit-image's, cut and shrunk to a square."""
    if directory is None:
        pictures = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea)]
    else:
        pictures = [read_rgb(directory / name) for name in find_photographs(directory)[:count]]
    return [np.asarray(ImageOps.fit(picture, (side, side))) for picture in pictures[:count]]


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side)))


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))


__all__ = ["SECTIONS", "Bench", "load_photographs", "machine"]
