"""An output is written by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import MetaQAPError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """While in this block, refuse whoever else wants to write this output.

    The lock is one of the kernel, on an empty file beside the output: it ends with the process that holds it, however
    that ends. Some file systems have no locks; nobody is refused there.

    Raises:
        MetaQAPError: if another process is writing it.
        OSError: if the folder cannot be written.
    """
    path = output.with_name(f".{output.name}.lock")
    descriptor = _locked(path, output)
    try:
        yield
    finally:
        if fcntl is not None:
            _take_away(path)  # before anybody else can have the lock
        os.close(descriptor)
        if fcntl is None:
            _take_away(path)  # Windows keeps a file that is open, ours or somebody else's


def _take_away(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _locked(path: Path, output: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise MetaQAPError(
                f"Another process is writing {output}; wait until it has ended, or write to another output."
            ) from None
        except OSError:
            return descriptor  # a file system without locks
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # whoever had it before has just taken it away


def _lock(descriptor: int) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: if it is locked.
        OSError: if it cannot be.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError as error:
        raise BlockingIOError(*error.args) from error


__all__ = ["only_writer"]
