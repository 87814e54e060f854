"""Two processes that know of each other, as `accelerate launch` would start them, each with its own exit status."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

from repository import ROOT


def free_port() -> int:
    """A free port of this test process's own.

    It is below the ports that the system gives to connections, so that nothing takes it before process 0 listens.
    Test processes that run at the same time search in different places.
    """
    first = 20_000 + os.getpid() % 1_000 * 10
    for port in range(first, first + 10):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"No port from {first} to {first + 9} is free.")


def start_two_processes(program: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """Start a program twice at the same time, as process 0 and 1 of one run on the CPU."""
    port = free_port()
    processes = []
    for rank in range(2):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        command = [sys.executable, str(program), *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
            )
        )
    return processes


def waited_for(processes: Sequence[subprocess.Popen[str]], *, timeout: float) -> list[CompletedProcess[str]]:
    """What processes gave when they ended.

    Raises:
        subprocess.TimeoutExpired: if one of them waits for the other for ever.
    """
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def run_two_processes(program: Path, *arguments: object, timeout: float = 300) -> list[CompletedProcess[str]]:
    """Run a program as two processes until they end; see `start_two_processes` and `waited_for`."""
    return waited_for(start_two_processes(program, *arguments), timeout=timeout)


__all__ = ["free_port", "run_two_processes", "start_two_processes", "waited_for"]
