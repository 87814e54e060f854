"""Two processes of one run, of which one dies or stands still."""

import os
import signal
import subprocess
import time

import pytest
from two_processes import start_two_processes, waited_for

pytest.importorskip("accelerate")

PROGRAM = """
import os, signal, sys, time
import torch
from modeling_metaqap.data.accelerate_state import failing_together, process_state
from modeling_metaqap.data import heartbeat
from modeling_metaqap.errors import exit_with_sentence

heartbeat.BEAT = 0.2
what, rank = sys.argv[1], int(sys.argv[2])
with exit_with_sentence("train"):
    state = process_state()
    with heartbeat.watching_the_others("train"):
        state.wait_for_everyone()
        if state.process_index == rank:
            print("ready", flush=True)
            if what == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if what == "works":
                time.sleep(5)  # much longer than the others wait for a sign of life
        torch.distributed.all_reduce(torch.zeros(1))
        torch.distributed.all_reduce(torch.zeros(1))
    print("over", flush=True)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["dies", "stops"])
def test_when_one_process_dies_or_stands_still_the_other_ends_with_a_sentence(what, rank, program):
    processes = start_two_processes(program, what, rank)
    try:
        start = time.monotonic()
        _, told = processes[1 - rank].communicate(timeout=100)
        assert time.monotonic() - start < 60
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - rank].returncode == 2
    [sentence] = [line for line in told.splitlines() if line.startswith("train: ")]
    assert "of the run has died or stands still; start the run again" in sentence
    assert "Traceback" not in told


def test_a_process_that_works_for_long_is_left_in_peace(program):
    processes = start_two_processes(program, "works", 1)
    outputs = waited_for(processes, timeout=100)
    assert [(output.returncode, "over" in output.stdout) for output in outputs] == [(0, True)] * 2, outputs


@pytest.mark.slow
def test_the_run_may_be_paused_as_a_whole(program):
    processes = start_two_processes(program, "works", 1)
    try:
        assert processes[1].stdout.readline() == "ready\n"
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        time.sleep(5)
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
        outputs = waited_for(processes, timeout=100)
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        raise
    assert [output.returncode for output in outputs] == [0, 0], outputs
