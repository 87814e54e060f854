"""What a user can choose from when images are scored.

Imports nothing heavy, so that the command line can list the choices without loading PyTorch.
"""

from enum import StrEnum


class Engine(StrEnum):
    """What runs a checkpoint; `auto` is the fastest that is here and within 1e-4 of PyTorch in float32."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"
    onnx_int8 = "onnx-int8"


class Runner(StrEnum):
    """What `metaqap score` scores with: an engine in this process, or `ray`, which is `auto` in several."""

    auto = Engine.auto
    torch = Engine.torch
    onnx = Engine.onnx
    onnx_int8 = Engine.onnx_int8
    ray = "ray"


class Dtype(StrEnum):
    """Number format of the computation; `auto` is bfloat16 where that is faster."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Order(StrEnum):
    """Orders of the results."""

    input = "input"
    best = "best"
    worst = "worst"
    path = "path"


#: Where an exported file lies in a checkpoint folder.
ONNX_FILES = {Engine.onnx: "onnx/model.onnx", Engine.onnx_int8: "onnx/model_int8.onnx"}

#: Longer side of the thumbnails of a report in pixels.
THUMBNAIL = 256

__all__ = ["ONNX_FILES", "THUMBNAIL", "Dtype", "Engine", "Order", "Runner"]
