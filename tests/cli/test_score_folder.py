"""`metaqap score` into a folder of shards, and scripts/score_distributed.py."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from repository import SCRIPTS
from script_loader import load_script
from two_processes import run_two_processes
from typer.main import get_command

from modeling_metaqap import MetaQAPImageProcessor
from modeling_metaqap.cli.app import app, main
from modeling_metaqap.data.locking import only_writer
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint

pytest.importorskip("accelerate")
parquet = pytest.importorskip("pyarrow.parquet")
script = load_script("score_distributed")


@pytest.fixture(scope="module")
def data(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    save_checkpoint(make_model("test_resnet"), folder / "checkpoint")
    MetaQAPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder / "checkpoint")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"photos/{index:02}.png")
    (folder / "photos/17.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def call(data, monkeypatch, capsys):
    """Runs the command or the script in this process: (exit status, standard error)."""

    def run(*options, as_script=False, launched=False):
        words = [str(data / "photos"), "--checkpoint", str(data / "checkpoint"), *map(str, options)]
        monkeypatch.setattr("sys.argv", ["metaqap", "score", *words])
        if launched:
            monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        with pytest.raises(SystemExit) as exit_:
            script.main(words) if as_script else main()
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
        return exit_.value.code, capsys.readouterr().err

    return run


def rows(place):
    return parquet.read_table(place).to_pylist()


@pytest.mark.parametrize("as_script", [False, True])
def test_a_process_that_a_launcher_started_writes_the_rows_of_the_command(call, tmp_path, as_script):
    scores = tmp_path / "scores"
    status, error = call("-o", scores, as_script=as_script, launched=True)
    assert status == 1
    assert f"Wrote 40 rows to {scores}.\n1 of 40 images could not be read." in error
    assert call("-o", tmp_path / "scores.parquet")[0] == 1
    assert rows(scores) == rows(tmp_path / "scores.parquet")
    assert (tmp_path / "scores.run.json").read_text() == (tmp_path / "scores.parquet.run.json").read_text()


def test_a_folder_is_continued_or_replaced_on_request_only(call, tmp_path):
    scores = tmp_path / "scores"
    assert call("-o", scores, launched=True)[0] == 1
    assert len(list(scores.iterdir())) == 3
    lost = sorted(scores.iterdir())[1]
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in scores.iterdir()}
    status, error = call("-o", scores, launched=True)
    assert status == 2 and "continue them with --resume" in error
    assert call("-o", scores, "--resume", launched=True)[0] == 1
    assert lost.exists() and all(path.stat().st_mtime_ns == time for path, time in kept.items())
    status, error = call("-o", scores, "--resume", "--dtype", "bfloat16", launched=True)
    assert status == 2 and "it was made with the number format float32, and now it is bfloat16" in error
    assert len(rows(scores)) == 40
    with only_writer(scores):
        status, error = call("-o", scores, "--resume", launched=True)
        assert status == 2 and error.startswith(f"metaqap: Another process is writing {scores};")
    assert call("-o", scores, "--overwrite", "--dtype", "bfloat16", launched=True)[0] == 1
    assert '"bfloat16"' in (tmp_path / "scores.run.json").read_text()


@pytest.mark.parametrize(
    ("options", "launched", "message"),
    [
        (["--engine", "ray"], False, "Several processes write a folder of Parquet files; name it with --output."),
        (["--engine", "ray", "-o", "x", "--sort", "best"], False, "leave out --explain and --sort"),
        (["--engine", "ray", "-o", "x", "--explain", "y"], False, "leave out --explain and --sort"),
        (["--engine", "ray", "-o", "x"], True, "accelerate launch starts processes itself; leave out --engine ray"),
        (["-o", "x.csv"], True, "name a folder, not x.csv"),
        (["--workers", "2"], False, "--workers and --ray-address are for --engine ray."),
        (["--engine", "ray", "-o", "x", "--device", "cuda:1"], False, "leave out the device cuda:1"),
    ],
)
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra")
def test_a_mistake_is_one_sentence(call, tmp_path, monkeypatch, options, launched, message):
    monkeypatch.chdir(tmp_path)
    status, error = call(*options, launched=launched)
    assert status == 2 and message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_has_the_options_of_the_command_with_underscores(call, capsys):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    shown = capsys.readouterr().out
    options = {name for name in re.findall(r"--[a-z_-]+", shown.split("Options:")[1]) if "-" not in name[2:]}
    command = get_command(app).commands["score"]
    names = {name for one in command.params for name in one.opts if name.startswith("--")}
    assert {"--" + name[2:].replace("-", "_") for name in names} <= options
    assert "[default: ray]" in " ".join(shown.split())
    status, error = call("--workers", "2", "--engine", "torch", as_script=True)
    assert status == 2 and "score_distributed: --workers and --ray_address are for" in error


@pytest.mark.slow
def test_two_processes_share_the_photographs(call, data, tmp_path):
    scores = tmp_path / "scores"
    options = [data / "photos", "--checkpoint", data / "checkpoint", "-o", scores]
    first, second = run_two_processes(SCRIPTS / "score_distributed.py", *options)
    assert (first.returncode, second.returncode) == (1, 0), first.stderr + second.stderr
    assert "Wrote 40 rows" in first.stderr and "Wrote" not in second.stderr
    call("-o", tmp_path / "scores.parquet")
    assert rows(scores) == rows(tmp_path / "scores.parquet")
    results = run_two_processes(SCRIPTS / "score_distributed.py", *options)  # neither --resume nor --overwrite
    assert [result.returncode for result in results] == [2, 2]
    assert all("continue them with --resume" in result.stderr for result in results)
