"""One process at a time writes an output."""

import os
import subprocess
import sys
from pathlib import Path

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


class WindowsLocks:
    """The module msvcrt, as its documents describe it: a region of an open file is locked until that is closed."""

    LK_NBLCK = 2

    def __init__(self, monkeypatch):
        self.owners = {}
        close, unlink = os.close, Path.unlink

        def close_and_unlock(descriptor):
            self.owners = {file: owner for file, owner in self.owners.items() if owner != descriptor}
            close(descriptor)

        def unlink_if_closed(path):
            if self._file(os.stat(path)) in self.owners:
                raise PermissionError(13, "The process cannot access the file", str(path))
            unlink(path)

        monkeypatch.setattr(os, "close", close_and_unlock)
        monkeypatch.setattr(Path, "unlink", unlink_if_closed)

    @staticmethod
    def _file(status):
        return status.st_dev, status.st_ino

    def locking(self, descriptor, mode, count):
        assert mode == self.LK_NBLCK and count == 1
        if self.owners.setdefault(self._file(os.fstat(descriptor)), descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")


def test_windows_has_its_own_locks(tmp_path, monkeypatch):
    import modeling_metaqap.data.locking as module

    windows = WindowsLocks(monkeypatch)
    monkeypatch.setattr(module, "fcntl", None)
    monkeypatch.setattr(module, "msvcrt", windows, raising=False)
    with only_writer(tmp_path / "a.csv"):
        with pytest.raises(MetaQAPError, match="Another process is writing"), only_writer(tmp_path / "a.csv"):
            pass
        assert len(windows.owners) == 1
    assert windows.owners == {} and list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "a.csv"):
        pass
