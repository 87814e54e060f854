"""Takes crops through a network on a CPU, each in a thread of its own.

That is faster than all threads together on each layer, where they wait for each other, and a crop is computed in the
same way whatever it shares a batch with.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import numpy.typing as npt
import torch

#: What an engine gives, see `CropEngine`.
Outputs = dict[str, torch.Tensor]


class CropByCrop:
    """Takes crops through a network one by one, each in a thread of its own as far as there are threads.

    There are as many as PyTorch computes with when the first crops come.
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def __call__(
        self,
        run: Callable[[npt.NDArray[np.uint8]], Outputs],
        crops: npt.NDArray[np.uint8],
        *,
        run_alone: Callable[[npt.NDArray[np.uint8]], Outputs] | None = None,
    ) -> Outputs:
        """Outputs of all crops.

        Args:
            run: computes one crop `(1, 3, H, W)` in one thread.
            crops: `(N, 3, H, W)`.
            run_alone: computes one crop in all threads; default `run`, which asks PyTorch.
        """
        count = torch.get_num_threads()
        single = np.split(crops, len(crops))
        if count == 1 or len(single) < count:
            rows = [(run if count == 1 else run_alone or run)(crop) for crop in single]
        else:
            if self._threads is None:
                self._threads = _single_threads(count)
            rows = list(self._threads.map(run, single))
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which PyTorch computes with one thread; elsewhere it keeps its number."""
    everywhere = torch.get_num_threads()
    all_started = Barrier(count)

    def start() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    threads = ThreadPoolExecutor(count, thread_name_prefix="metaqap")
    for future in [threads.submit(start) for _ in range(count)]:
        future.result()
    # What is set last is what threads of the program that start later will have.
    torch.set_num_threads(everywhere)
    return threads


__all__ = ["CropByCrop", "Outputs"]
