"""The demo in a process of its own, as users run it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """Where a running demo listens, and its process."""

    url: str
    pid: int


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(arguments: list[str], *, log: Path, patience: float = 300, **environment: str) -> Iterator[Server]:
    """Start `python ARGUMENTS` with a free port in GRADIO_SERVER_PORT, wait until it answers, and end it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"} | environment
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *arguments], env=variables, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + patience
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The demo did not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False
