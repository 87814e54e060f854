"""Scoring with the workers of a real Ray on this machine."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest
from repository import ROOT

from modeling_metaqap.cli.app import main
from modeling_metaqap.data.image_places import find_places
from modeling_metaqap.data.image_units import split_into_units
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference import ray_pool
from modeling_metaqap.inference.shards import begin_shards, count_rows, open_tasks
from modeling_metaqap.inference.sharing import ScoringOptions

COUNT = 150  # ten units

needs_ray = pytest.mark.skipif(ray_pool.find_spec("ray") is None, reason="needs the ray extra")


def test_without_ray_a_sentence_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr("sys.argv", ["metaqap", "score", str(tmp_path), "-o", str(tmp_path / "x"), "--engine", "ray"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert "This needs ray, which is not installed; install it with `pip install" in error
    assert len(error.splitlines()) == 1 and not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    kill_scoring = pytest.importorskip("kill_scoring")
    folder = tmp_path_factory.mktemp("data")
    kill_scoring.write_checkpoint(folder / "checkpoint")
    kill_scoring.write_images(folder / "images", COUNT)
    return folder


@pytest.fixture(scope="module")
def pool():
    """Two workers, for all tests that need no Ray of their own."""
    with ray_pool.ray_pool(workers=2, device="cpu") as pool:
        yield pool


@pytest.fixture
def metaqap(monkeypatch, data):
    def run(*arguments):
        words = ["metaqap", "score", data / "images", "--checkpoint", data / "checkpoint", *arguments]
        monkeypatch.setattr("sys.argv", [*map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code

    return run


def rows_in(folder):
    return pytest.importorskip("pyarrow.parquet").read_table(folder).to_pylist()


def check_rows(rows, data, tmp_path, metaqap):
    """Every photograph once, with the record that one process gives it."""
    assert metaqap("-o", tmp_path / "one.csv", "--overwrite") == 1
    with (tmp_path / "one.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    assert [row["error"] or "" for row in rows] == [row["error"] for row in expected]
    assert sum(row["error"] is not None for row in rows) == 2
    for row, other in zip(rows, expected, strict=True):
        for name in ("quality", "quality_low", "quality_high"):
            assert other[name] == "" or row[name] == pytest.approx(float(other[name]), abs=1e-5)


@needs_ray
@pytest.mark.slow
def test_two_workers_give_the_records_of_one_process(data, pool, metaqap, tmp_path, capsys):
    scores = tmp_path / "scores"
    assert metaqap("-o", scores, "--engine", "ray", "--workers", 2) == 1  # two images are broken
    error = capsys.readouterr().err
    assert f"Wrote {COUNT} rows to {scores}" in error and f"2 of {COUNT} images could not be read" in error
    check_rows(rows_in(scores), data, tmp_path, metaqap)
    assert len(list(scores.iterdir())) > 5 and not list(scores.glob(".*"))
    # What is done is not done again.
    (sorted(scores.iterdir())[3]).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in scores.iterdir()}
    assert metaqap("-o", scores, "--engine", "ray", "--resume") == 1
    after = {path.name: path.stat().st_mtime_ns for path in scores.iterdir()}
    assert len(after) == len(before) + 1 and after | before == after
    check_rows(rows_in(scores), data, tmp_path, metaqap)


@dataclass(frozen=True, kw_only=True)
class Deadly(ScoringOptions):
    """Kills the worker that scores a photograph of this name without decoding it elsewhere, or in any case."""

    place: str
    always: bool = False

    def _records(self, scorer, task, skip):
        if self.place in task.unit.places and (self.always or scorer._decoder is None):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._records(scorer, task, skip)


@pytest.fixture
def deadly(data, pool):
    """Options whose code is sent to the workers."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    place = find_places([str(data / "images")])[40]
    yield Deadly(checkpoint=str(data / "checkpoint"), num_images=COUNT, place=place)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def score(pool, data, folder, options):
    begin_shards(folder, run={}, resume=False)
    tasks = open_tasks(folder, split_into_units(find_places([str(data / "images")])))
    engine = pool.prepare(options)
    return list(pool.score(tasks, options, engine, folder))


@needs_ray
@pytest.mark.slow
def test_a_photograph_that_kills_its_worker_is_decoded_elsewhere_the_next_time(data, pool, deadly, metaqap, tmp_path):
    score(pool, data, tmp_path / "scores", deadly)
    check_rows(rows_in(tmp_path / "scores"), data, tmp_path, metaqap)


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_the_run_with_a_sentence(data, pool, deadly, tmp_path):
    with pytest.raises(MetaQAPError, match="A worker has died 4 times over .*continue with --resume"):
        score(pool, data, tmp_path / "scores", replace(deadly, always=True))
    assert 0 < count_rows(tmp_path / "scores").rows <= COUNT - 16


@needs_ray
@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(data, pool, metaqap, tmp_path):
    import psutil

    killed = []

    def kill_one():
        while not killed:
            if len(list((tmp_path / "scores").glob("*.parquet"))) >= 2:
                [worker, *_] = workers()
                worker.kill()
                killed.append(worker.pid)
            time.sleep(0.01)

    def workers():
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "MapWorker" in "".join(child.cmdline()[:1])]

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert metaqap("-o", tmp_path / "scores", "--engine", "ray") == 1
    assert killed
    check_rows(rows_in(tmp_path / "scores"), data, tmp_path, metaqap)


@needs_ray
@pytest.mark.slow
def test_a_killed_run_is_continued_and_its_ray_ends_with_it(data, pool, metaqap, tmp_path):
    import psutil

    scores = tmp_path / "scores"
    command = [sys.executable, "-m", "modeling_metaqap", "score", data / "images", "--checkpoint", data / "checkpoint"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.Popen(
        [*map(str, command), "-o", str(scores), "--engine", "ray", "--workers", "2"],
        env=own | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while driver.poll() is None and len(list(scores.glob("*.parquet"))) < 2:
        time.sleep(0.01)
    children = psutil.Process(driver.pid).children(recursive=True)
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for child in children
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    driver.kill()
    _, said = driver.communicate()
    ended, left = psutil.wait_procs(children, timeout=20)
    names = {process.name() for process in left}
    for process in left:  # two that score nothing take a minute to see that they are alone
        process.kill()
    assert all(name.startswith(("ray::Dashboard", "ray::RuntimeEnv")) for name in names) and len(ended) > 5
    # Its servers were for this machine alone, and it said nothing.
    assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}
    assert said == ""
    rows = count_rows(scores).rows
    assert 0 < rows < COUNT
    # What was really taken: for so few photographs no ONNX file is made.
    assert json.loads((tmp_path / "scores.run.json").read_text())["engine"] == "torch"
    kept = {path.name: path.stat().st_mtime_ns for path in scores.glob("*.parquet")}
    assert metaqap("-o", scores, "--engine", "ray", "--resume") == 1
    check_rows(rows_in(scores), data, tmp_path, metaqap)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in scores.iterdir()}.items()


@needs_ray
@pytest.mark.slow
def test_a_mistake_is_the_sentence_that_one_process_says(data, pool, metaqap, tmp_path, capsys):
    assert metaqap("-o", tmp_path / "x", "--engine", "ray", "--learners", 3) == 2
    assert "learners" in capsys.readouterr().err
    assert metaqap("-o", tmp_path / "x", "--engine", "ray", "--device", "cuda:7") == 2
    assert "Ray gives each worker a GPU of its own; leave out the device cuda:7" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_nothing_heavy_is_imported_to_hand_out_the_work():
    code = "import modeling_metaqap.inference.ray_pool, modeling_metaqap.inference.sharing, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "ray", "transformers"} & set(run.stdout.split())
