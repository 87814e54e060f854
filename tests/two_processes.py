"""Two processes that know of each other, as `accelerate launch` would start them, each with its own exit status."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

from repository import ROOT


def run_two_processes(program: Path, *arguments: object, timeout: float = 300) -> list[CompletedProcess[str]]:
    """Run a program twice at the same time, as process 0 and 1 of one run on the CPU.

    Raises:
        subprocess.TimeoutExpired: if one of them waits for the other for ever.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


__all__ = ["run_two_processes"]
