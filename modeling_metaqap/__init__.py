"""MetaQAP: no-reference image quality assessment with quality-aware pretraining and a meta-learner.

Public names are imported when they are first used, so `import modeling_metaqap` costs nothing. As soon as transformers
is imported too, MetaQAP is registered with its auto classes and pipelines, so that
`AutoModel.from_pretrained(DEFAULT_CHECKPOINT)` and `pipeline("image-quality-assessment")` need no remote code.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

#: Folder of the ensemble that ships with the package; `from_pretrained` takes it.
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "metaqap-lite"

if TYPE_CHECKING:
    from .configuration_metaqap import MetaQAPConfig as MetaQAPConfig
    from .data.distorted.pseudo_mos import pseudo_mos as pseudo_mos
    from .data.distortions import DISTORTION_NAMES as DISTORTION_NAMES
    from .data.distortions import distort as distort
    from .data.iqa_datasets import load_iqa_dataset as load_iqa_dataset
    from .data.iqa_datasets import load_training_split as load_training_split
    from .data.stored_images import images_in as images_in
    from .errors import DataError as DataError
    from .errors import MetaQAPError as MetaQAPError
    from .errors import TestSplitError as TestSplitError
    from .evaluation.metrics import evaluate_scores as evaluate_scores
    from .fusion.adapting import Adaptation as Adaptation
    from .fusion.adapting import adapt as adapt
    from .fusion.conformal import conformal_radius as conformal_radius
    from .fusion.stepwise import fit_stepwise as fit_stepwise
    from .fusion.suggesting import suggest as suggest
    from .image_processing_metaqap import MetaQAPImageProcessor as MetaQAPImageProcessor
    from .image_processing_metaqap import MetaQAPImageProcessorPil as MetaQAPImageProcessorPil
    from .inference.html_report import write_html_report as write_html_report
    from .inference.onnx_export import export_onnx as export_onnx
    from .inference.records import ScoreRecord as ScoreRecord
    from .inference.scorer import Scorer as Scorer
    from .inference.wording import looks_like as looks_like
    from .losses_metaqap import quality_aware_loss as quality_aware_loss
    from .modeling_metaqap import MetaQAPModel as MetaQAPModel
    from .modeling_metaqap import MetaQAPOutput as MetaQAPOutput
    from .modeling_metaqap import MetaQAPPreTrainedModel as MetaQAPPreTrainedModel
    from .pipeline_metaqap import ImageQualityAssessmentPipeline as ImageQualityAssessmentPipeline
    from .training.recipe import Recipe as Recipe

#: Where each public name is defined.
_PUBLIC = {
    "Adaptation": "fusion.adapting",
    "DISTORTION_NAMES": "data.distortions",
    "DataError": "errors",
    "ImageQualityAssessmentPipeline": "pipeline_metaqap",
    "MetaQAPConfig": "configuration_metaqap",
    "MetaQAPError": "errors",
    "MetaQAPImageProcessor": "image_processing_metaqap",
    "MetaQAPImageProcessorPil": "image_processing_metaqap",
    "MetaQAPModel": "modeling_metaqap",
    "MetaQAPOutput": "modeling_metaqap",
    "MetaQAPPreTrainedModel": "modeling_metaqap",
    "Recipe": "training.recipe",
    "ScoreRecord": "inference.records",
    "Scorer": "inference.scorer",
    "TestSplitError": "errors",
    "adapt": "fusion.adapting",
    "conformal_radius": "fusion.conformal",
    "distort": "data.distortions",
    "evaluate_scores": "evaluation.metrics",
    "export_onnx": "inference.onnx_export",
    "fit_stepwise": "fusion.stepwise",
    "images_in": "data.stored_images",
    "load_iqa_dataset": "data.iqa_datasets",
    "load_training_split": "data.iqa_datasets",
    "looks_like": "inference.wording",
    "pseudo_mos": "data.distorted.pseudo_mos",
    "quality_aware_loss": "losses_metaqap",
    "suggest": "fusion.suggesting",
    "write_html_report": "inference.html_report",
}

__all__ = ["DEFAULT_CHECKPOINT", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from .configuration_metaqap import MetaQAPConfig

    AutoConfig.register("metaqap", MetaQAPConfig, exist_ok=True)


def _register_image_processor() -> None:
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from .configuration_metaqap import MetaQAPConfig
    from .image_processing_metaqap import MetaQAPImageProcessor, MetaQAPImageProcessorPil

    backends: dict[str, type] = {"torchvision": MetaQAPImageProcessor, "pil": MetaQAPImageProcessorPil}
    AutoImageProcessor.register(MetaQAPConfig, image_processor_classes=backends, exist_ok=True)


def _register_model() -> None:
    from transformers.models.auto.modeling_auto import AutoModel, AutoModelForImageClassification

    from .configuration_metaqap import MetaQAPConfig
    from .modeling_metaqap import MetaQAPModel

    AutoModel.register(MetaQAPConfig, MetaQAPModel, exist_ok=True)
    AutoModelForImageClassification.register(MetaQAPConfig, MetaQAPModel, exist_ok=True)


def _register_no_video_processor() -> None:
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    from .configuration_metaqap import MetaQAPConfig

    # Stock pipelines also look for a video processor. Unless they learn here that there is none, they take the image
    # processor's entry for one and ask for leave to run the folder's code.
    AutoVideoProcessor.register(MetaQAPConfig, video_processor_classes={}, exist_ok=True)


def _register_pipeline() -> None:
    import_module(".pipeline_metaqap", __name__)  # its last line registers it


# What to do once one of these modules of transformers has been imported, and files of the model are not half imported.
_REGISTER = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.image_processing_auto": _register_image_processor,
    "transformers.models.auto.modeling_auto": _register_model,
    "transformers.models.auto.video_processing_auto": _register_no_video_processor,
    "transformers.pipelines": _register_pipeline,
}

# Files of the model: they need transformers first, which then must not ask for them.
_FILES = [f"{__name__}.{name}_metaqap" for name in ("configuration", "image_processing", "modeling")]

# Modules of `_REGISTER` that have been imported and wait for that.
_waiting: list[str] = []


def _register_all(*, but: str | None = None) -> None:
    """Do what waits, unless a file of the model other than this one is being imported."""
    files = (sys.modules.get(name) for name in _FILES if name != but)
    if any(getattr(module.__spec__, "_initializing", False) for module in files if module is not None):
        return
    while _waiting:
        _REGISTER[_waiting.pop(0)]()


class _RegisterAfterImport:
    """Does what `_REGISTER` says, so that `import modeling_metaqap` need not import transformers.

    A `MetaPathFinder` without the base class, whose module takes longer to import than all of this package.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTER and fullname not in _FILES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        exec_module = spec.loader.exec_module

        def exec_module_and_register(module: ModuleType) -> None:
            exec_module(module)
            if fullname in _REGISTER:
                _waiting.append(fullname)
            _register_all(but=fullname)

        spec.loader.exec_module = exec_module_and_register  # type: ignore[method-assign]
        return spec


_waiting += [_name for _name in _REGISTER if _name in sys.modules]
sys.meta_path.insert(0, _RegisterAfterImport())
_register_all()
