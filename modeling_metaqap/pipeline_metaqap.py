"""The `image-quality-assessment` pipeline."""

import os
from typing import Any

from PIL import Image
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from .assessment_metaqap import IMAGE_OUTPUTS, assess_image
from .decoding_metaqap import Photograph, read_image, warning_of
from .fetching_metaqap import Fetching, is_web_address
from .image_processing_metaqap import image_of, load_photograph

#: What a saved configuration says of the pipeline, for processes that do not have this package.
CUSTOM_PIPELINES = {
    "image-quality-assessment": {
        "impl": "pipeline_metaqap.ImageQualityAssessmentPipeline",
        "pt": ["AutoModel"],
        "type": "image",
    }
}


#: What is known of an image after scoring, in order.
FIELDS = (
    "path",
    "quality",
    "quality_low",
    "quality_high",
    "interval_coverage",
    "familiarity",
    "distortion",
    "distortion_probability",
    "width",
    "height",
    "error",
    "warning",
    "base_scores",
    "distortion_probabilities",
)


class ImageQualityAssessmentPipeline(ChunkPipeline):
    """Scores images: paths, PIL images or arrays, one or many, and web addresses when asked to.

    Each image is cut into crops and the crops of all images are batched together (`batch_size`), so images of any
    size mix in a batch and none is padded with empty crops.

    Returns for each image a `dict` with the fields of a `ScoreRecord`, which `metaqap score` and the demo give too:
    `path` (as given; empty for an image without one), `quality` (higher is better, training range [0, 1]),
    `quality_low` and `quality_high` (the prediction interval, calibrated to hold the opinion score of
    `interval_coverage` of the images), `familiarity` (how like the training photographs, in [0, 1]), `distortion` and
    `distortion_probability` (the most likely one), `width` and `height` (pixels, upright), `error` (for an image
    without a finite score; one that cannot be read raises `ValueError`), `warning` (why its score says little),
    `base_scores` and `distortion_probabilities` (in the order of `config.base_learners` and
    `config.distortion_labels`). What the model does not give is `None`.

    With `fetch=True` web addresses are fetched, each in `timeout` seconds (default 20) and up to `max_bytes` (default
    100 MB). Addresses of this machine and of private networks are refused unless `allow_private=True`.

    Example:

    ```python
    >>> from transformers import pipeline

    >>> assess = pipeline("image-quality-assessment", model=checkpoint, trust_remote_code=True)
    >>> assess(["sharp.jpg", "blurred.jpg"], batch_size=8)
    ```
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False
    # Left open, transformers looks for a video processor instead and asks for leave to run the folder's code.
    _load_video_processor = False

    def _sanitize_parameters(
        self,
        fetch: bool | None = None,
        timeout: float | None = None,
        max_bytes: int | None = None,
        allow_private: bool | None = None,
    ) -> tuple[dict, dict, dict]:
        if fetch is None:
            return {}, {}, {}
        limits = {"timeout": timeout, "max_bytes": max_bytes, "allow_private": allow_private}
        chosen: Any = {name: value for name, value in limits.items() if value is not None}
        return {"fetching": Fetching(**chosen) if fetch else None}, {}, {}

    def preprocess(self, image: Any, fetching: Fetching | None = None) -> Any:
        processor: Any = self.image_processor
        photograph = _read(image, fetching, shortest_edge=processor.seen_edge)
        crops = processor(photograph.pixels, return_tensors="pt")["pixel_values"][0]
        known = {
            "path": _path_of(image),
            "width": photograph.width,
            "height": photograph.height,
            "warning": warning_of(photograph),
        }
        for index, crop in enumerate(crops):
            yield {"is_last": index == len(crops) - 1, "pixel_values": crop.unsqueeze(0), "known": known}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(pixel_values=model_inputs["pixel_values"], return_dict=True)
        tensors = {name: outputs[name] for name in IMAGE_OUTPUTS if outputs.get(name) is not None}
        return {"is_last": model_inputs["is_last"], "known": model_inputs["known"], **tensors}

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> dict[str, Any]:
        values = model_outputs[0]["known"] | assess_image(model_outputs, self.model.config)  # type: ignore[arg-type]
        return {name: values.get(name) for name in FIELDS}


def _read(image: Any, fetching: Fetching | None, *, shortest_edge: int | None) -> Photograph:
    if isinstance(image, Photograph):
        return image
    if isinstance(image, (str, os.PathLike)):
        return load_photograph(image, fetching=fetching, shortest_edge=shortest_edge)
    dimensions = getattr(image, "ndim", None)
    if isinstance(image, (list, tuple)) or dimensions == 4:
        if len(image) != 1:
            raise ValueError(f"One input holds {len(image)} images; pass several images as a flat list.")
        return _read(image[0], fetching, shortest_edge=shortest_edge)
    if not isinstance(image, Image.Image) and dimensions not in (2, 3):
        raise TypeError(f"An input must be only a single or a list of images, arrays or paths, got {type(image)}.")
    return read_image(image_of(image))


def _path_of(image: Any) -> str:
    """What an image is called; text that is an image itself is no name of it."""
    if isinstance(image, os.PathLike) or (isinstance(image, str) and (os.path.exists(image) or is_web_address(image))):
        return os.fspath(image)
    return ""


# Registered here, not where the package starts: `save_pretrained` copies the code of registered pipelines only, also
# of one that was itself loaded from a saved folder.
PIPELINE_REGISTRY.register_pipeline(
    "image-quality-assessment", pipeline_class=ImageQualityAssessmentPipeline, pt_model=AutoModel, type="image"
)


__all__ = ["CUSTOM_PIPELINES", "ImageQualityAssessmentPipeline"]
