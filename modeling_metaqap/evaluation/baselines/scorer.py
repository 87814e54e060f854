"""Methods of others to compare with: each scores images as [`Scorer`] does and is measured by the same evaluator.

All of them rate *distortion*: a lower score is a better image. `quality` is therefore the negative score, so that a
useful baseline has positive correlations. It is not on the scale of opinions, so there is no RMSE of it.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...decoding_metaqap import read_rgb
from ...errors import MetaQAPError
from ...inference.records import ScoreRecord
from ...installing import missing_package
from .piqe import piqe

RateDistortion = Callable[[npt.NDArray[np.uint8]], float]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One method.

    Args:
        title: As the field writes it.
        source: The paper.
        load: Gives the function from (H, W, 3) RGB pixels to a distortion score, lower is better, and the SHA-256 of
            its parameters, `None` for a method without any.
        packages: Distributions that a score depends on, beyond what everything needs.
    """

    title: str
    source: str
    load: Callable[[], tuple[RateDistortion, str | None]]
    packages: tuple[str, ...] = ()


def _load_piqe() -> tuple[RateDistortion, None]:
    return piqe, None


def _load_brisque() -> tuple[RateDistortion, str]:
    try:
        from brisque.brisque import BRISQUE
        from brisque.models import MODEL_PATH
    except ImportError as error:
        raise MetaQAPError(f"BRISQUE cannot be used. {missing_package('brisque')}") from error

    class Brisque(BRISQUE):
        def scale_features(self, features: Iterable[Any]) -> Any:
            # brisque 0.2.0 makes arrays of one element of some, which NumPy 2.4 no longer takes for numbers.
            return super().scale_features([np.asarray(feature).item() for feature in features])

    files = (Path(MODEL_PATH) / name for name in ("svm.txt", "normalize.pickle"))
    return Brisque().score, hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


#: By the name that `scripts/evaluate.py` takes. NIQE is left out: no maintained and permissively licensed package
#: brings its parameters along.
BASELINES: dict[str, Baseline] = {
    "brisque": Baseline(
        title="BRISQUE",
        source='Mittal, Moorthy and Bovik, "No-reference image quality assessment in the spatial domain", IEEE '
        "Transactions on Image Processing 21(12), 2012; code and parameters of the package brisque",
        load=_load_brisque,
        packages=("brisque", "libsvm-official", "opencv-python-headless", "scikit-image", "scipy"),
    ),
    "piqe": Baseline(
        title="PIQE",
        source='Venkatanath et al., "Blind image quality evaluation using perception based features", NCC 2015',
        load=_load_piqe,
        packages=("scipy",),
    ),
}


class BaselineScorer:
    """Scores images with a method of `BASELINES`; the counterpart of [`Scorer`].

    Args:
        name: A key of `BASELINES`.

    Raises:
        MetaQAPError: There is no such method, or its package is not installed.
    """

    def __init__(self, name: str):
        if name not in BASELINES:
            raise MetaQAPError(f"There is no baseline {name!r}; choose from {', '.join(BASELINES)}.")
        self.baseline = BASELINES[name]
        self._rate_distortion, self.parameters_sha256 = self.baseline.load()

    def score(self, images: Iterable[str | Path | IO[bytes] | Image.Image]) -> Iterator[ScoreRecord]:
        """Yields one record for each image, in their order; an image without a score gets one with `error`."""
        for image in images:
            record = ScoreRecord(path=str(image) if isinstance(image, (str, Path)) else "")
            try:
                pixels = np.asarray(read_rgb(image))
                record.height, record.width = pixels.shape[:2]
                with warnings.catch_warnings():
                    # Of divisions by the variation of a flat image, which is told below.
                    warnings.simplefilter("ignore", RuntimeWarning)
                    distortion = float(self._rate_distortion(pixels))
            except ValueError as error:
                record.error = str(error)
            else:
                if math.isfinite(distortion):
                    record.quality = -distortion
                else:
                    record.error = f"{self.baseline.title} is not defined for it, as it hardly varies"
            yield record

    def software_versions(self) -> dict[str, str]:
        return {name: version(name) for name in self.baseline.packages}


__all__ = ["BASELINES", "Baseline", "BaselineScorer"]
