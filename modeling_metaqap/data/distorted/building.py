"""Builds a quality-aware data set: distorted images with distortion, level and pseudo opinion score, as Parquet.

The data set is cut into parts of a few pristine photographs each. A part is a Parquet file that depends on its
photographs and the settings alone, and that appears under its name only when it is complete. So a build that was
killed goes on where it was, several machines can each build some of the parts, and the files are the same, byte for
byte, as those of one machine (with the same versions of the libraries).
"""

import hashlib
import io
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from PIL import Image

from ...crops_metaqap import crop_layout, prepare_crops, shrink
from ...decoding_metaqap import read_rgb
from ...errors import DataError
from ..atomic import write_atomically
from ..distortions import DISTORTION_NAMES, DISTORTIONS, applicable_distortions
from ..distortions.base import LEVELS
from ..image_files import is_image_file
from ..silencing import silence_decoders
from .loading import SETTINGS_FILE, features
from .pseudo_mos import METRICS, full_reference_scores, fuse

#: Images that the metrics see at once; it bounds the memory and is fixed, because sums depend on it in the last digit.
_BATCH_SIZE = 5


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What the files of a data set depend on, apart from the photographs.

    Attributes:
        per_image: Distorted images for each photograph, 1 to 125. One photograph gets each distortion once before it
            gets any a second time, and never the same level of it twice.
        seed: Seed of all draws.
        metrics: The full-reference metrics, from `METRICS`.
        shortest_edge: A longer shortest edge is shrunk to this many pixels first, as the image processor does.
        crop_size: Side of the random square crop that is distorted instead of the whole image; None for the whole.
        images_per_part: Photographs in one Parquet file.
    """

    per_image: int
    seed: int = 0
    metrics: tuple[str, ...] = tuple(METRICS)
    shortest_edge: int = 512
    crop_size: int | None = None
    images_per_part: int = 8

    def __post_init__(self) -> None:
        most = len(DISTORTIONS) * len(LEVELS)
        if not 1 <= self.per_image <= most:
            raise DataError(f"Each photograph can give 1 to {most} distorted images, not {self.per_image}.")
        if self.seed < 0:
            raise DataError(f"The seed must not be negative, got {self.seed}.")
        if self.images_per_part < 1:
            raise DataError(f"A part needs at least one photograph, got {self.images_per_part}.")
        needed = self.min_side
        for what, side in (("shortest edge", self.shortest_edge), ("crop size", self.crop_size)):
            if side is not None and side < needed:
                raise DataError(f"The metrics need images of at least {needed} pixels, but the {what} is {side}.")
        if self.crop_size is not None and self.crop_size > self.shortest_edge:
            raise DataError(
                f"The crop size {self.crop_size} is larger than the shortest edge {self.shortest_edge} to cut it from."
            )

    @property
    def min_side(self) -> int:
        """Shortest side in pixels that the distortions and metrics accept."""
        return max(32, *(METRICS[name].min_side for name in self.metrics))


@dataclass(frozen=True)
class PartResult:
    """One part that now exists.

    Attributes:
        name: Its file name.
        photographs: The photographs that belong to it.
        rows: The distorted images in it.
        skipped: For each photograph that could not be used, its name and the reason.
        built: False if the part was there before.
    """

    name: str
    photographs: int
    rows: int
    skipped: tuple[tuple[str, str], ...]
    built: bool


def find_photographs(directory: Path, names: Sequence[str] | None = None) -> list[str]:
    """The photographs of a directory and its sub-directories as sorted relative paths with forward slashes.

    Args:
        directory: Where the photographs lie.
        names: Only these, relative to the directory.

    Raises:
        DataError: No such directory, no image in it, or one of the names is not there.
    """
    if not directory.is_dir():
        raise DataError(f"There is no directory {directory}.")
    if names is not None:
        for name in names:
            if not (directory / name).is_file():
                raise DataError(f"{directory} has no file {name}.")
        found = {Path(name).as_posix() for name in names}
    else:
        found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if is_image_file(path)}
    if not found:
        raise DataError(f"There are no images to distort in {directory}.")
    return sorted(found)


def parse_shard(shard: str) -> tuple[int, int]:
    """Read "2/4", the second of four shares, as (2, 4)."""
    index, separator, count = shard.partition("/")
    if not (separator and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise DataError(f'A shard is written i/n with i from 1 to n, such as 2/4; got "{shard}".')
    return int(index), int(count)


def draw_distortions(names: Sequence[str], count: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Draw `count` different pairs of a distortion and a level, as evenly over the distortions as can be."""
    order = [names[i] for i in rng.permutation(len(names))]
    levels = {name: rng.permutation(LEVELS) for name in order}
    pairs = [(name, int(levels[name][turn])) for turn in range(len(LEVELS)) for name in order]
    return pairs[:count]


def build(
    directory: Path,
    photographs: Sequence[str],
    output: Path,
    settings: BuildSettings,
    *,
    workers: int = 1,
    shard: tuple[int, int] = (1, 1),
) -> Iterator[PartResult]:
    """Build the parts of one shard that are not there yet, and yield each part as soon as it exists.

    Args:
        directory: Where the photographs lie.
        photographs: Their relative paths, from `find_photographs`. Every shard needs all of them.
        output: Directory for the parts; it is made if need be.
        settings: What to build.
        workers: Processes to build with.
        shard: `(i, n)`: build every n-th part, from the i-th.

    Raises:
        DataError: At once, if the output directory holds a data set of other photographs or other settings.
    """
    if workers < 1:
        raise DataError(f"At least one worker is needed, got {workers}.")
    _claim(output, directory, photographs, settings)
    return _build_missing(parts_of_shard(photographs, settings, shard), directory, output, settings, workers)


def parts_of_shard(
    photographs: Sequence[str], settings: BuildSettings, shard: tuple[int, int] = (1, 1)
) -> dict[str, tuple[str, ...]]:
    """The parts of one shard: the file name of each, and its photographs."""
    size = settings.images_per_part
    total = -(-len(photographs) // size)
    return {
        f"part-{number:05d}-of-{total:05d}.parquet": tuple(photographs[number * size : (number + 1) * size])
        for number in range(shard[0] - 1, total, shard[1])
    }


def _build_missing(
    parts: Mapping[str, tuple[str, ...]], directory: Path, output: Path, settings: BuildSettings, workers: int
) -> Iterator[PartResult]:
    jobs = []
    for name, members in parts.items():
        path = output / name
        if path.exists() or _empty(path).exists():
            rows = pyarrow.parquet.read_metadata(path).num_rows if path.exists() else 0
            yield PartResult(name, len(members), rows, (), built=False)
        else:
            jobs.append((directory, members, path, settings))
    if workers == 1 or len(jobs) <= 1:
        yield from (build_part(*job) for job in jobs)
        return
    # A fresh interpreter for each worker: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_begin_worker) as pool:
        futures = [pool.submit(build_part, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def build_part(directory: Path, photographs: Sequence[str], path: Path, settings: BuildSettings) -> PartResult:
    """Build one part, on one thread, and put it in place at once when it is complete."""
    rows: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in photographs:
            try:
                photograph = _read(directory / name, name, settings)
            except ValueError as error:
                skipped.append((name, str(error)))
            else:
                rows.extend(_distort(photograph, name, settings))
    finally:
        torch.set_num_threads(threads)
    if rows:
        buffer = io.BytesIO()
        table = pyarrow.Table.from_pylist(rows, schema=features(settings.metrics).arrow_schema)
        pyarrow.parquet.write_table(table, buffer, row_group_size=100)
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(_empty(path), "".join(f"{name}: {reason}\n" for name, reason in skipped).encode())
    return PartResult(path.name, len(photographs), len(rows), tuple(skipped), built=True)


def _distort(photograph: NDArray[np.uint8], name: str, settings: BuildSettings) -> Iterator[dict[str, Any]]:
    """The rows of one photograph."""
    applicable = applicable_distortions(photograph)
    drawn = draw_distortions(applicable, settings.per_image, _rng(settings.seed, name, "draw"))
    # The seed leaves the level out: the levels of one distortion differ in strength alone.
    images = [DISTORTIONS[entry](photograph, level, _rng(settings.seed, name, entry)) for entry, level in drawn]
    reference = _to_tensor([photograph])
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        scores = full_reference_scores(
            _to_tensor(batch), reference.expand(len(batch), -1, -1, -1), metrics=settings.metrics
        )
        fused = fuse(scores)
        for i, image in enumerate(batch):
            entry, level = drawn[start + i]
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            yield {
                "image": {"bytes": buffer.getvalue(), "path": f"{Path(name).stem}_{entry}_{level}.png"},
                "distortion": DISTORTION_NAMES.index(entry),
                "level": level,
                "pseudo_mos": float(fused[i]),
                "reference_id": name,
                "metrics": {metric: float(values[i]) for metric, values in scores.items()},
            }


def _read(path: Path, name: str, settings: BuildSettings) -> NDArray[np.uint8]:
    """A photograph as it is to be distorted: RGB, shrunk and cropped as the settings say."""
    image = read_rgb(path)
    side = settings.crop_size or settings.min_side
    layout = crop_layout(image.height, image.width, shortest_edge=settings.shortest_edge, crop_size=side)
    height, width = layout.resized
    if min(height, width) < side:
        raise ValueError(f"{width} x {height} pixels are too few, at least {side} are needed on each side")
    if settings.crop_size is None:
        return np.asarray(shrink(image, layout))
    top, left = _rng(settings.seed, name, "crop").integers((height - side, width - side), endpoint=True)
    [crop] = prepare_crops(image, layout, corners=[(top, left)])
    return crop.transpose(1, 2, 0)


def _rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the names and not on the order of the work."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def _to_tensor(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def _claim(output: Path, directory: Path, photographs: Sequence[str], settings: BuildSettings) -> None:
    """Write the settings to a new output directory, or check that they are those of the data set begun there."""
    listing = "".join(f"{name}\0{(directory / name).stat().st_size}\n" for name in photographs)
    wanted = asdict(settings) | {
        "metrics": list(settings.metrics),
        "photographs": len(photographs),
        "photographs_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / SETTINGS_FILE
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for key, value in wanted.items():
            if found.get(key) != value:
                what = "other photographs" if key.startswith("photographs") else f"{key} = {found.get(key)}"
                raise DataError(
                    f"{output} holds a data set that was begun with {what}: go on with the same, "
                    "or choose another output directory."
                )
        return
    if any(output.glob("part-*.parquet")):
        raise DataError(f"{output} holds Parquet files of another data set; choose another output directory.")
    write_atomically(path, (json.dumps(wanted, indent=2) + "\n").encode())


def _empty(path: Path) -> Path:
    """What stands for a part whose photographs could all not be used; `datasets` cannot read a table of no rows."""
    return path.with_suffix(".empty")


def _begin_worker() -> None:
    silence_decoders()
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker when the process that started it ends; a killed parent cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


__all__ = [
    "BuildSettings",
    "PartResult",
    "build",
    "build_part",
    "draw_distortions",
    "find_photographs",
    "parse_shard",
    "parts_of_shard",
]
