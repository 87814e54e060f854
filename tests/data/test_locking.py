"""One process at a time writes an output."""

import subprocess
import sys

import pytest

from modeling_metaqap.data.locking import only_writer
from modeling_metaqap.errors import MetaQAPError

HOLD = """
import sys
from pathlib import Path
from modeling_metaqap.data.locking import only_writer
with only_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_the_process_that_holds_it_however_that_ends(tmp_path):
    output = tmp_path / "scores.csv"
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(MetaQAPError, match="Another process is writing"), only_writer(output):
            pass
        with only_writer(tmp_path / "others.csv"):
            pass
        other.kill()
        other.wait()
        assert [path.name for path in tmp_path.iterdir()] == [".scores.csv.lock"], "what SIGKILL leaves"
        with only_writer(output):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_was_taken_away_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """As by a process that ends between opening the file and locking it."""
    import modeling_metaqap.data.locking as module

    output, flock, calls = tmp_path / "scores.csv", module.fcntl.flock, []

    def late(descriptor, kind):
        calls.append(kind)
        if len(calls) == 1:
            (tmp_path / ".scores.csv.lock").unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with only_writer(output):
        assert len(calls) == 2 and (tmp_path / ".scores.csv.lock").exists()


def test_without_locks_of_the_file_system_nobody_is_refused(tmp_path, monkeypatch):
    import modeling_metaqap.data.locking as module

    def unsupported(descriptor, kind):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    with only_writer(tmp_path / "a"), only_writer(tmp_path / "a"):
        pass
