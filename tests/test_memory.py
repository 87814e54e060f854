"""Freed memory is kept for the next pass."""

import os
import platform
import subprocess
import sys

import pytest

from modeling_metaqap import memory

# Page faults of allocating, filling and freeing the same 40 MB again and again, in a thread as the scorer does.
COUNT_FAULTS = """
import ctypes, resource, sys, threading
from modeling_metaqap.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def allocate(times):
    for _ in range(times):
        block = libc.malloc(ctypes.c_size_t(40_000_000))
        ctypes.memset(block, 1, 40_000_000)
        libc.free(block)

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=allocate, args=(times,))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_the_same_memory_is_used_again_without_asking_the_system():
    # Without what the environment of this test may tell glibc already.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def count(how):
        command = [sys.executable, "-c", COUNT_FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    kept = count("keep")
    assert kept < 1000
    assert count("give back") > 10 * kept + 10_000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("must not be asked"))
    assert not memory.keep_freed_memory()
