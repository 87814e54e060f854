"""What Hugging Face Inference Endpoints call: photographs in, scores out.

This file lies beside the weights and needs torch, timm and transformers only. An endpoint makes one `EndpointHandler`
with the folder of the repository, and calls it with each request.
"""

import base64
import binascii
import io
import threading
from importlib import import_module
from typing import Any

import torch
from PIL import Image
from transformers import pipeline

#: An image of more pixels is not decoded.
MAX_PIXELS = 120_000_000

#: What a request may set.
PARAMETERS = ("batch_size",)


class EndpointHandler:
    """Scores photographs.

    Args:
        path: folder with the checkpoint and its code.
    """

    def __init__(self, path: str = ""):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipeline: Any = pipeline(  # type: ignore[call-overload]
            "image-quality-assessment", model=path, trust_remote_code=True, device=device, dtype=torch.float32
        )
        # The code beside the weights reads files more carefully than Pillow alone.
        package = type(self.pipeline).__module__.rpartition(".")[0]
        self._decoding = import_module(f"{package}.decoding_metaqap")
        self._one_at_a_time = threading.Lock()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Score what a request holds.

        Args:
            data: `inputs` is a photograph or a list of them: the bytes of a file, base64 text of them (also as a data
                URL) or a Pillow image. Paths and web addresses are not read. `parameters` may have a `batch_size`.

        Returns:
            For each photograph what the pipeline gives: `path` (empty), `quality`, `quality_low`, `quality_high`,
            `interval_coverage`, `familiarity`, `distortion`, `distortion_probability`, `width`, `height`, `error`,
            `warning`, `base_scores` and `distortion_probabilities`. `pipeline_metaqap.py` says what they mean.

        Raises:
            ValueError: with one sentence, which the endpoint answers with the status 400.
        """
        if not isinstance(data, dict) or data.get("inputs") is None:
            raise ValueError('The request needs "inputs": a photograph in base64, or a list of them.')
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict) or (unknown := sorted(set(parameters) - set(PARAMETERS))):
            named = f", not {', '.join(map(repr, unknown))}" if isinstance(parameters, dict) else ""
            raise ValueError(f'"parameters" may have {" and ".join(PARAMETERS)} only{named}.')
        batch_size = parameters.get("batch_size", 1)
        if not isinstance(batch_size, int) or not 1 <= batch_size <= 64:
            raise ValueError(f'"batch_size" must be a whole number from 1 to 64, not {batch_size!r}.')
        inputs = data["inputs"]
        several = isinstance(inputs, list)
        if several and not inputs:
            raise ValueError('"inputs" is an empty list; send at least one photograph.')
        photographs = [
            self._read(one, f"Photograph {number}" if several else "The photograph")
            for number, one in enumerate(inputs if several else [inputs], start=1)
        ]
        with self._one_at_a_time:
            assessments: list[dict[str, Any]] = self.pipeline(photographs, batch_size=batch_size)
        return assessments if several else assessments[0]

    def _read(self, source: Any, name: str) -> Any:
        if isinstance(source, str):
            text = source.partition(",")[2] if source.startswith("data:image/") else source
            try:
                source = base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise ValueError(
                    f"{name} is text that is not base64; send the file's bytes in base64. Paths and web addresses are "
                    "not read."
                ) from None
        if isinstance(source, (bytes, bytearray)):
            source = io.BytesIO(source)
        elif not isinstance(source, Image.Image):
            raise ValueError(f"{name} is {type(source).__name__}; send base64 text, bytes or an image.")
        try:
            image = source if isinstance(source, Image.Image) else self._decoding.open_image(source)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(self._decoding.too_many_pixels(MAX_PIXELS))
            if image is source:
                return self._decoding.read_image(image)
            return self._decoding.read_opened(image, shortest_edge=self.pipeline.image_processor.seen_edge)
        except ValueError as error:
            raise ValueError(f"{name} cannot be scored: {error}.") from error


__all__ = ["MAX_PIXELS", "PARAMETERS", "EndpointHandler"]
