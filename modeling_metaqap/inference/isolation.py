"""Decodes images in processes that may die: of a crash in a decoder, an endless loop, or gigabytes of memory.

A file that kills its process gets an error like any other that cannot be read, the process is replaced, and the run
goes on.
"""

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from ..decoding_metaqap import Photograph, UnreadableImage
from ..errors import MetaQAPError
from .decoding import Seen

#: Seconds of computing that one image may take to be decoded, and bytes of addresses that its process may have. The
#: largest images that Pillow opens, 179 megapixels, need up to 36 s (JPEG 2000) and 2.8 GB (lossless WebP).
SECONDS = 60.0
MEMORY = 3 << 30

# A worker that waits (for a slow disk, say) does not compute; after this many times the limit it is given up.
_PATIENCE = 4


class _WorkerDied(Exception):
    """The process ended before it answered."""


class _TooSlow(Exception):
    """The process did not answer in time."""


class _Worker:
    def __init__(self, memory: int):
        root = Path(__file__).parents[2]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modeling_metaqap.inference.decoding_worker", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what C libraries print of damaged files
            env=environment,
            # Ctrl-C in a terminal is for the program, which then ends its workers.
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._buffer = bytearray()

    def wait_until_ready(self) -> None:
        """Raise `MetaQAPError` if the process does not come up."""
        try:
            line = self._line(time.monotonic() + 120)
        except (_WorkerDied, _TooSlow):
            line = ""
        if line != "ready":
            self.kill()
            raise MetaQAPError("The process that decodes images does not start; leave out --isolate.")

    def ask(self, request: dict[str, Any], content: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        try:
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.write(content)
            self._input.flush()
        except OSError as error:
            raise _WorkerDied from error
        deadline = time.monotonic() + seconds
        answer = json.loads(self._line(deadline))
        width, height = answer.get("size", (0, 0))
        return answer, self._take(3 * width * height, deadline)

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._buffer:
            self._receive(deadline)
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return line.decode()

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._receive(deadline)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _receive(self, deadline: float) -> None:
        if not self._selector.select(max(0.0, deadline - time.monotonic())):
            raise _TooSlow
        data = os.read(self._output.fileno(), 1 << 20)
        if not data:
            raise _WorkerDied
        self._buffer += data

    def kill(self) -> int:
        """End the process, if it has not ended, and return its exit status."""
        self.process.kill()
        status = self.process.wait()
        self._selector.close()
        with suppress(BrokenPipeError):  # of a request that the process did not live to read
            self._input.close()
        self._output.close()
        return status


def _kill_all(workers: "set[_Worker]") -> None:
    for worker in list(workers):
        worker.process.kill()
    for worker in list(workers):
        worker.kill()


class IsolatedDecoder:
    """Decodes image files in other processes; as many of them as there are threads that call `read` at once.

    Args:
        seconds: of computing that an image may take.
        memory: bytes that a process may have.
    """

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY):
        self.seconds, self.memory = seconds, memory
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: set[_Worker] = set()
        weakref.finalize(self, _kill_all, self._all)

    def read(self, source: str | Path | bytes, seen: Seen) -> Photograph:
        """As `read_as_seen` does.

        Args:
            source: path of the image file, or its bytes.
            seen: what the model sees of it.

        Raises:
            UnreadableImage: also for an image whose decoding ended the process.
            MetaQAPError: if no process can be started.
        """
        worker = self._worker()
        request = {"seen": asdict(seen), "seconds": self.seconds, "pillow_pixels": Image.MAX_IMAGE_PIXELS}
        content = source if isinstance(source, bytes) else b""
        request |= {"bytes": len(content)} if isinstance(source, bytes) else {"path": os.fspath(source)}
        try:
            answer, pixels = worker.ask(request, content, _PATIENCE * self.seconds)
        except BaseException as error:
            self._all.discard(worker)
            reason = self._reason(worker, error)
            if reason is None:
                raise
            raise UnreadableImage(reason) from error
        self._idle.put(worker)
        if "error" in answer:
            raise UnreadableImage(answer["error"])
        image = Image.frombytes("RGB", tuple(answer["size"]), pixels)
        return Photograph(image, answer["width"], answer["height"], answer["is_first_frame"])

    def _worker(self) -> _Worker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self.memory)
            self._all.add(worker)
            worker.wait_until_ready()
            return worker

    def _reason(self, worker: _Worker, error: BaseException) -> str | None:
        """End a worker that failed, and say why it did; None for what is no failure of the worker, such as Ctrl-C."""
        try:
            ended = worker.process.wait(timeout=1) if isinstance(error, _WorkerDied) else None
        except subprocess.TimeoutExpired:
            ended = None
        worker.kill()
        if isinstance(error, _TooSlow) or (ended is not None and ended == -getattr(signal, "SIGXCPU", 0)):
            return f"it takes longer to decode than the limit of {self.seconds:g} s; save it again as JPEG or PNG"
        if isinstance(error, _WorkerDied):
            if ended == -getattr(signal, "SIGKILL", 9):
                return "its decoder was ended by the system, mostly for want of memory"
            return "its decoder crashed; save it again as JPEG or PNG"
        return None


__all__ = ["MEMORY", "SECONDS", "IsolatedDecoder"]
