"""A process that decodes images for another one, and may die of it: `python -m` with this module's name.

Requests are lines of JSON on standard input, some with the bytes of an image file behind them. Answers are a line of
JSON on standard output and, for an image that could be read, its RGB bytes. Nothing here imports PyTorch, so it starts
fast and is small. See `isolation`, the other side.
"""

import io
import json
import math
import os
import sys
import warnings
from typing import IO

from PIL import Image

from ..decoding_metaqap import UnreadableImage
from .decoding import Seen, read_as_seen

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None  # type: ignore[assignment]


def limit_memory(byte_count: int) -> None:
    """Let this process have so many bytes of addresses; decoders that ask for more get a MemoryError."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (byte_count, hard))


def limit_seconds(seconds: float) -> None:
    """End this process with SIGXCPU when it has computed for so many seconds from now on."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds), hard))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    answers.write(b"ready\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        source = request["path"] if "path" in request else io.BytesIO(requests.read(request["bytes"]))
        limit_seconds(request["seconds"])
        Image.MAX_IMAGE_PIXELS = request["pillow_pixels"]  # as in the program that asks
        try:
            photograph = read_as_seen(source, Seen(**request["seen"]))
        except UnreadableImage as error:
            answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        else:
            pixels = photograph.pixels
            answer = {name: getattr(photograph, name) for name in ("width", "height", "is_first_frame")}
            answers.write(json.dumps(answer | {"size": pixels.size}).encode() + b"\n")
            answers.write(pixels.tobytes())
        answers.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # Whatever a library prints must not get among the answers.
    own_output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory(int(sys.argv[1]))
    try:
        serve(sys.stdin.buffer, own_output)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the other side has gone
