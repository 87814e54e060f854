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


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """While in this block, refuse whoever else wants to write this output.

    The lock is one of the kernel, on an empty file beside the output: it ends with the process that holds it, however
    that ends. Windows has no locks of this kind, nor have some file systems; nobody is refused there.

    Raises:
        MetaQAPError: if another process is writing it.
        OSError: if the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = output.with_name(f".{output.name}.lock")
    descriptor = _locked(path, output)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before anybody else can have the lock
        os.close(descriptor)


def _locked(path: Path, output: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


__all__ = ["only_writer"]
