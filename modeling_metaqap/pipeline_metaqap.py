"""The `image-quality-assessment` pipeline."""

import os
from typing import Any

from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from .image_processing_metaqap import load_image
from .modeling_metaqap import IMAGE_OUTPUTS, assess_image


class ImageQualityAssessmentPipeline(ChunkPipeline):
    """Scores images: paths, URLs, PIL images or arrays, one or many.

    Each image is cut into crops and the crops of all images are batched together (`batch_size`), so images of any
    size mix in a batch and none is padded with empty crops.

    Returns for each image a `dict` with `quality` (higher is better, training range [0, 1]), `quality_low` and
    `quality_high` (the prediction interval, calibrated to hold the opinion score of `config.interval_coverage` of the
    images), `distortion` and `distortion_probability` (the most likely one) and `base_scores` (one for each base
    learner). What the model does not give is `None`.

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

    def _sanitize_parameters(self, timeout: float | None = None) -> tuple[dict, dict, dict]:
        return ({} if timeout is None else {"timeout": timeout}), {}, {}

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        if isinstance(image, (str, os.PathLike)):
            image = load_image(image, timeout=timeout)
        pixel_values = self.image_processor(image, return_tensors="pt")["pixel_values"]
        if len(pixel_values) != 1:
            raise ValueError(f"One input holds {len(pixel_values)} images; pass several images as a flat list.")
        crops = pixel_values[0]
        for index, crop in enumerate(crops):
            yield {"is_last": index == len(crops) - 1, "pixel_values": crop.unsqueeze(0)}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(pixel_values=model_inputs["pixel_values"], return_dict=True)
        tensors = {name: outputs[name] for name in IMAGE_OUTPUTS if outputs.get(name) is not None}
        return {"is_last": model_inputs["is_last"], **tensors}

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> dict[str, Any]:
        assessment = assess_image(model_outputs, self.model.config.distortion_labels)
        del assessment["distortion_probabilities"]  # the most likely one is enough here
        return assessment


# Registered here, not where the package starts: `save_pretrained` copies the code of registered pipelines only, also
# of one that was itself loaded from a saved folder.
PIPELINE_REGISTRY.register_pipeline(
    "image-quality-assessment", pipeline_class=ImageQualityAssessmentPipeline, pt_model=AutoModel, type="image"
)


__all__ = ["ImageQualityAssessmentPipeline"]
