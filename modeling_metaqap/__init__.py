"""MetaQAP: no-reference image quality assessment with quality-aware pretraining and a meta-learner.

Importing the package registers its classes with transformers' auto classes and pipelines.
"""

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from .configuration_metaqap import MetaQAPConfig
from .image_processing_metaqap import MetaQAPImageProcessor
from .losses_metaqap import quality_aware_loss
from .modeling_metaqap import MetaQAPModel, MetaQAPOutput, MetaQAPPreTrainedModel
from .pipeline_metaqap import ImageQualityAssessmentPipeline
from .version import __version__

#: Folder of the ensemble that ships with the package; `from_pretrained` takes it.
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "metaqap-lite"

AutoConfig.register("metaqap", MetaQAPConfig, exist_ok=True)
AutoModel.register(MetaQAPConfig, MetaQAPModel, exist_ok=True)
AutoModelForImageClassification.register(MetaQAPConfig, MetaQAPModel, exist_ok=True)
AutoImageProcessor.register(MetaQAPConfig, MetaQAPImageProcessor, exist_ok=True)

__all__ = [
    "DEFAULT_CHECKPOINT",
    "ImageQualityAssessmentPipeline",
    "MetaQAPConfig",
    "MetaQAPImageProcessor",
    "MetaQAPModel",
    "MetaQAPOutput",
    "MetaQAPPreTrainedModel",
    "__version__",
    "quality_aware_loss",
]
