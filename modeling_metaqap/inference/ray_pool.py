"""Scoring with Ray: on the cores of this machine, its GPUs, or those of a cluster.

Ray Data takes the list of units (not the photographs, which would go through its store of objects), and its pool of
actors holds one scorer each. A worker writes its shards itself, so no records come back, and one that is started again
in place of a worker that died finds what is done.
"""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.cores import usable_cores
from ..errors import MetaQAPError, sentence
from ..installing import missing_package
from .choices import Dtype, Engine
from .shards import ShardTask, Tally, begin_try, end_tries

if TYPE_CHECKING:
    from .fastest import Choice
    from .onnx_cache import PackedEngine
    from .scorer import Scorer
    from .sharing import ScoringOptions

# How often a unit is begun whose worker dies. From the second time on photographs are decoded in other processes, so
# that one that makes its decoder crash is an error of this photograph.
_TRIES = 4

# Units that a worker has at hand: the one it scores and the next.
_UNITS_AT_HAND = 2

# Of what Ray keeps to hand out, such as a list of units; it spills to disk beyond.
_STORE_BYTES = 256 << 20


@dataclass(frozen=True)
class PreparedEngine:
    """What the workers take to score with, found and made once.

    Attributes:
        weights: SHA-256 of the checkpoint's weights; None if it has none of its own.
        scale: that scores are reported on.
        name, dtype: of the engine, see `CropEngine`.
        choice: what `fast` has taken, see `Scorer`.
        packed: the file of ONNX Runtime, for machines that have none; None for PyTorch.
    """

    weights: str | None
    scale: tuple[float, float]
    name: str
    dtype: str
    choice: "Choice | None"
    packed: "PackedEngine | None"


def check_ray() -> None:
    """Tells early that there is no Ray.

    Raises:
        MetaQAPError: that says how to install it.
    """
    if find_spec("ray") is None:
        raise MetaQAPError(missing_package("ray"))


@contextmanager
def ray_pool(
    *, address: str | None = None, workers: int | None = None, device: str | None = None
) -> "Iterator[RayPool]":
    """Workers of a Ray cluster, or of a Ray of this process alone, which ends with it.

    Args:
        address: of the cluster, such as `"auto"` on one of its machines; default what `RAY_ADDRESS` says, or this
            machine alone.
        workers: how many; default one for each GPU, or one for each core where there is none.
        device: `"cpu"` leaves GPUs alone.

    Raises:
        MetaQAPError: without Ray, or if the cluster cannot be reached.
    """
    check_ray()
    if device not in (None, "cpu"):
        raise MetaQAPError(f"Ray gives each worker a GPU of its own; leave out the device {device}, or say cpu.")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _import_ray(local=address == "local")
    if ray.is_initialized():
        yield RayPool(ray, workers=workers, device=device)
        return
    local = {
        "num_cpus": max(usable_cores(), workers or 1),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    try:
        with _no_words():
            ray.init(address, logging_level="error", log_to_driver=False, **(local if address == "local" else {}))
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MetaQAPError(f"Ray cannot be used at {address}: {sentence(error)}") from error
    try:
        yield RayPool(ray, workers=workers, device=device)
    finally:
        ray.shutdown()


@contextmanager
def _no_words() -> Iterator[None]:
    """Keep what Ray's C++ part says of itself off standard error; it says even that it is told to say nothing."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _import_ray(*, local: bool) -> Any:
    # What the user has set stays. Ray sends statistics of its use to its makers otherwise, and says much.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if local and "ray" not in sys.modules:  # it reads these once
        # Its servers listen to this machine alone (that is what the first one does, on every system), and take nobody
        # who does not know a word that is made anew.
        settings |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    return ray


class RayPool:
    """What `ray_pool` gives.

    Attributes:
        workers: how many score at the same time.
        resources: that each of them has.
    """

    def __init__(self, ray: Any, *, workers: int | None, device: str | None):
        self._ray = ray
        there = ray.cluster_resources()
        cores, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0)) if device != "cpu" else 0
        self.workers = workers or gpus or cores
        self.resources = {"num_cpus": max(1, cores // gpus), "num_gpus": 1} if gpus else {"num_cpus": 1, "num_gpus": 0}

    def prepare(self, options: "ScoringOptions") -> PreparedEngine:
        """Find the engine on a machine like those that score; a file of ONNX Runtime is made there if it pays.

        Raises:
            MetaQAPError: for a checkpoint or options that cannot be used.
        """
        prepare = self._ray.remote(**self.resources)(_prepare)
        try:
            return self._ray.get(prepare.remote(self._own(options), os.getcwd()))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def score(
        self, tasks: Sequence[ShardTask], options: "ScoringOptions", engine: PreparedEngine, folder: Path
    ) -> Iterator[Tally]:
        """Score tasks, in any order, into shards; yields what each has added.

        Args:
            tasks: see `open_tasks`.
            options: how to score.
            engine: what `prepare` gave.
            folder: of the shards, which all machines share.

        Raises:
            MetaQAPError: if a worker cannot score, or dies again and again over the same unit. What was scored stays.
        """
        ray = self._ray
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        units = ray.data.from_items(
            [{"task": task.to_json()} for task in tasks], override_num_blocks=min(len(tasks), 10_000)
        )
        scored = units.map_batches(
            _Worker,
            fn_constructor_kwargs={
                "options": self._own(options),
                "engine": ray.put(engine),
                "folder": folder.absolute(),
                "start": os.getcwd(),
                "threads": self.resources["num_cpus"],
            },
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=min(self.workers, len(tasks)), max_tasks_in_flight_per_actor=_UNITS_AT_HAND
            ),
            **self.resources,  # a worker that dies is replaced, and what it was at is given to another one
        )
        try:
            for row in scored.iter_rows():
                if row["error"]:
                    raise MetaQAPError(row["error"])
                yield Tally(row["rows"], row["failed"])
        except ray.exceptions.RayTaskError:
            raise  # a defect of ours
        except ray.exceptions.RayError as error:
            raise MetaQAPError(
                f"Ray has failed; what was scored stays, continue with --resume: {sentence(error)}"
            ) from error

    def _own(self, options: "ScoringOptions") -> "ScoringOptions":
        threads = self.resources["num_cpus"]
        return replace(options, device=None if self.resources["num_gpus"] else "cpu", num_workers=max(2, threads))


def _enter(start: str) -> None:
    """Make names of files mean what they mean where the run was started, if that folder is on this machine."""
    if os.path.isdir(start):
        os.chdir(start)


def _prepare(options: "ScoringOptions", start: str) -> PreparedEngine:
    from ..lineage import weights_sha256
    from .onnx_cache import PackedEngine, cached_onnx
    from .onnx_engine import OnnxEngine

    _enter(start)
    scorer = options.make_scorer()
    packed = None
    if isinstance(scorer.engine, OnnxEngine):
        folder = cached_onnx(options.checkpoint, scorer.engine.config, learners=options.learners, make=False)
        packed = None if folder is None else PackedEngine.of(folder)
    engine = scorer.engine
    weights = weights_sha256(options.checkpoint)
    return PreparedEngine(weights, scorer.scale, engine.name, engine.dtype, scorer.choice, packed)


class _Worker:
    """An actor of Ray: one scorer, made when the first unit comes."""

    def __init__(self, *, options: "ScoringOptions", engine: Any, folder: Path, start: str, threads: int):
        from ..memory import keep_freed_memory

        keep_freed_memory()
        self._options, self._engine, self._folder, self._threads = options, engine, folder, threads
        self._scorer: Scorer | None = None
        _enter(start)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for text in batch["task"]:
            tally, error = Tally(), ""
            try:
                tally = self._score(ShardTask.from_json(text))
            except (MetaQAPError, OSError) as mistake:
                # Told as data: an exception would come back in the words of Ray.
                error = f"{sentence(mistake).removesuffix('.')} (on {socket.gethostname()})."
            yield {"rows": [tally.rows], "failed": [tally.failed], "error": [error]}

    def _score(self, task: ShardTask) -> Tally:
        if self._scorer is None:
            self._scorer = self._make_scorer(self._options)
        scorer, tries = self._scorer, begin_try(self._folder, task)
        if tries > _TRIES:
            raise MetaQAPError(
                f"A worker has died {_TRIES} times over {task.unit.places[0]} and those after it, perhaps for want "
                "of memory; what was scored stays, continue with --resume"
            )
        if tries > 1:
            scorer = self._make_scorer(replace(self._options, isolate=True))
        tally = self._options.score_task(scorer, self._folder, task)
        end_tries(self._folder, task)
        return tally

    def _make_scorer(self, options: "ScoringOptions") -> "Scorer":
        import ray
        import torch

        from ..lineage import weights_sha256

        torch.set_num_threads(self._threads)
        if not self._folder.is_dir():
            raise MetaQAPError(f"There is no folder {self._folder}; it must be on storage that all machines share.")
        engine: PreparedEngine = ray.get(self._engine)
        options = replace(options, fast=False, scale=engine.scale)
        if engine.packed is not None:
            options = replace(
                options,
                checkpoint=str(engine.packed.unpack()),
                engine=Engine.onnx,
                dtype=Dtype.float32,
                learners=None,
            )
            return options.make_scorer()
        scorer = replace(options, engine=Engine.torch, dtype=engine.dtype).make_scorer()
        if weights_sha256(options.checkpoint) != engine.weights:
            raise MetaQAPError(f"The checkpoint {options.checkpoint} has other weights than where the run began.")
        return scorer


__all__ = ["PreparedEngine", "RayPool", "check_ray", "ray_pool"]
