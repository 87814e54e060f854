"""What Ray's workers do, in this process: a stand-in hands the units out, so that no Ray is started."""

import csv
import json
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import kill_scoring
import pytest

from modeling_metaqap.cli.app import main
from modeling_metaqap.data.image_places import find_places
from modeling_metaqap.data.image_units import split_into_units
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference import ray_pool
from modeling_metaqap.inference.onnx_cache import PackedEngine
from modeling_metaqap.inference.ray_pool import RayPool
from modeling_metaqap.inference.shards import begin_shards, begin_try, open_tasks
from modeling_metaqap.inference.sharing import ScoringOptions

parquet = pytest.importorskip("pyarrow.parquet")

COUNT = 52  # four units, the last of them small; the 51st image is broken


class TaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class StandIn:
    """As much of Ray as a pool uses."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=ConnectionError)

    def __init__(self, **resources):
        self.resources, self.actors = resources, []
        context = SimpleNamespace(get_current=lambda: SimpleNamespace())
        self.data = SimpleNamespace(
            DataContext=context, from_items=self.from_items, ActorPoolStrategy=lambda **options: options
        )

    def cluster_resources(self):
        return self.resources

    def remote(self, **_):
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, arguments))

    def put(self, value):
        return value

    def get(self, value):
        if not isinstance(value, tuple):
            return value
        function, arguments = value
        try:
            return function(*arguments)
        except MetaQAPError as error:
            raise TaskError(error) from error

    def from_items(self, items, **_):
        def map_batches(actor, *, fn_constructor_kwargs, compute, **options):
            self.actors.append((compute["size"], options))
            worker = actor(**fn_constructor_kwargs)
            batches = ({"task": [item["task"]]} for item in items)
            rows = ({name: column[0] for name, column in row.items()} for batch in batches for row in worker(batch))
            return SimpleNamespace(iter_rows=lambda: rows)

        return SimpleNamespace(map_batches=map_batches)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    kill_scoring.write_checkpoint(folder / "checkpoint")
    kill_scoring.write_images(folder / "images", COUNT)
    return folder


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """The stand-in, in place of Ray in this process; folder and threads of the process stay as they are."""
    ray = StandIn(CPU=2.0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("modeling_metaqap.memory.keep_freed_memory", lambda: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    return ray


@pytest.fixture
def options(data):
    return ScoringOptions(checkpoint=str(data / "checkpoint"), num_images=COUNT)


def score(pool, data, folder, options, engine=None):
    begin_shards(folder, run={}, resume=False)
    tasks = open_tasks(folder, split_into_units(find_places([str(data / "images")])))
    return list(pool.score(tasks, options, engine or pool.prepare(options), folder)), tasks


def test_the_command_writes_the_rows_of_one_process(data, stand_in, tmp_path, monkeypatch, capsys):
    @contextmanager
    def pool(**options):
        yield RayPool(stand_in, workers=options["workers"], device=options["device"])

    monkeypatch.setattr(ray_pool, "ray_pool", pool)
    monkeypatch.setattr(ray_pool, "find_spec", lambda _: True)

    def call(*words):
        command = ["metaqap", "score", data / "images", "--checkpoint", data / "checkpoint", *words]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, capsys.readouterr().err

    status, error = call("-o", tmp_path / "scores", "--engine", "ray")
    assert status == 1 and f"Wrote {COUNT} rows to {tmp_path / 'scores'}" in error
    assert f"1 of {COUNT} images could not be read." in error
    assert call("-o", tmp_path / "one.csv")[0] == 1
    with (tmp_path / "one.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    rows = parquet.read_table(tmp_path / "scores").to_pylist()
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    assert [row["quality"] for row in rows] == pytest.approx(
        [float(row["quality"]) if row["quality"] else None for row in expected], abs=1e-5
    )
    assert json.loads((tmp_path / "scores.run.json").read_text())["engine"] == "torch"
    # All is done: nothing is handed out again.
    before = len(stand_in.actors)
    assert call("-o", tmp_path / "scores", "--engine", "ray", "--resume")[0] == 1
    assert len(stand_in.actors) == before == 1


@pytest.mark.parametrize(
    ("there", "device", "wanted", "workers", "resources"),
    [
        ({"CPU": 8.0}, None, None, 8, {"num_cpus": 1, "num_gpus": 0}),
        ({"CPU": 8.0, "GPU": 2.0}, None, None, 2, {"num_cpus": 4, "num_gpus": 1}),
        ({"CPU": 8.0, "GPU": 2.0}, "cpu", None, 8, {"num_cpus": 1, "num_gpus": 0}),
        ({"CPU": 1.0, "GPU": 4.0}, None, 3, 3, {"num_cpus": 1, "num_gpus": 1}),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_else_for_each_core(there, device, wanted, workers, resources):
    pool = RayPool(StandIn(**there), workers=wanted, device=device)
    assert (pool.workers, pool.resources) == (workers, resources)


def test_a_mistake_is_told_as_the_sentence_of_one_process(data, stand_in, options, tmp_path):
    pool = RayPool(stand_in, workers=2, device="cpu")
    with pytest.raises(MetaQAPError, match="learners"):
        pool.prepare(ScoringOptions(checkpoint=options.checkpoint, learners=3))
    engine = pool.prepare(options)
    other = ray_pool.replace(engine, weights="of others")
    with pytest.raises(MetaQAPError, match=r"has other weights than where the run began \(on .*\)\.$"):
        score(pool, data, tmp_path / "scores", options, other)
    tasks = open_tasks(tmp_path / "scores", split_into_units(find_places([str(data / "images")])))
    with pytest.raises(MetaQAPError, match="There is no folder .*; it must be on storage that all machines share"):
        list(pool.score(tasks, options, engine, tmp_path / "elsewhere"))


def test_a_unit_that_killed_its_worker_is_isolated_and_given_up_in_the_end(
    data, stand_in, options, tmp_path, monkeypatch
):
    pool = RayPool(stand_in, workers=1, device="cpu")
    made = []
    monkeypatch.setattr(ScoringOptions, "make_scorer", _noting(made, ScoringOptions.make_scorer))
    folder = tmp_path / "scores"
    begin_shards(folder, run={}, resume=False)
    first, second, *_ = open_tasks(folder, split_into_units(find_places([str(data / "images")])))
    engine = pool.prepare(options)
    begin_try(folder, first)  # by a worker that died
    made.clear()
    [tally] = pool.score([first], options, engine, folder)
    assert tally.rows == len(first.unit.places) and [one.isolate for one in made] == [False, True]
    for _ in range(ray_pool._TRIES):
        begin_try(folder, second)
    with pytest.raises(MetaQAPError, match="A worker has died 4 times over .*continue with --resume"):
        list(pool.score([second], options, engine, folder))


def _noting(made, make_scorer):
    return lambda options: made.append(options) or make_scorer(options)


def test_where_ray_itself_fails_what_was_scored_stays(data, stand_in, options, tmp_path, monkeypatch):
    pool = RayPool(stand_in, workers=1, device="cpu")
    engine = pool.prepare(options)

    def break_down(*_, **__):
        raise ConnectionError("The cluster is gone")

    monkeypatch.setattr(ray_pool._Worker, "__call__", break_down)
    with pytest.raises(MetaQAPError, match="what was scored stays, continue with --resume: The cluster is gone"):
        score(pool, data, tmp_path / "scores", options, engine)


def test_workers_take_the_file_of_onnx_runtime_that_they_are_sent(stand_in, options, tmp_path, monkeypatch):
    monkeypatch.setenv("METAQAP_CACHE", str(tmp_path / "cache"))
    made = []
    monkeypatch.setattr(ScoringOptions, "make_scorer", lambda options: made.append(options))
    packed = PackedEngine("0123", {"config.json": b"{}"})
    engine = ray_pool.PreparedEngine(None, (1.0, 5.0), "onnx", "float32", None, packed)
    worker = ray_pool._Worker(options=options, engine=engine, folder=tmp_path, start=os.getcwd(), threads=1)
    worker._make_scorer(ray_pool.replace(options, learners=1, fast=True))
    [taken] = made
    assert (tmp_path / "cache" / "engines" / "0123" / "config.json").is_file() and "0123" in taken.checkpoint
    assert (taken.engine, taken.scale, taken.learners, taken.fast) == ("onnx", (1.0, 5.0), None, False)
