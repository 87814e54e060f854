"""Memory of a process that computes: what a network frees is kept for the next pass.

Imports nothing heavy.
"""

import ctypes
import platform

# The numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next allocation instead of giving it back to the operating system.

    A network frees and allocates tens of megabytes for each layer, and memory that comes from the system anew is
    cleared page by page, which costs as much time as the convolutions. The process holds what it used at most.

    For programs to call when they start; importing this package changes nothing.

    Returns:
        Whether it took effect: False with another C library, whose own ways are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {
        # All from one heap, which never shrinks. The heaps that other threads would get are given back when empty.
        _M_ARENA_MAX: 1,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: 64 << 20,
    }
    return all([libc.mallopt(name, value) == 1 for name, value in settings.items()])


__all__ = ["keep_freed_memory"]
