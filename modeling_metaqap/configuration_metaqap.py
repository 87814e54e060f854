"""Configuration of MetaQAP models.

A checkpoint may come from a stranger, so each value is checked: it can neither name a place to read weights from nor
describe a model of any size.
"""

import math
import re
import sys
from copy import deepcopy
from typing import Any

from transformers import PreTrainedConfig

#: The 25 distortions of KADID-10k (Lin, Hosu and Saupe, QoMEX 2019) in the data set's own order. The position in
#: this list is the class index of the distortion head.
KADID_DISTORTIONS = [
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "color_diffusion",
    "color_shift",
    "color_quantization",
    "color_saturation_1",
    "color_saturation_2",
    "jpeg2000_compression",
    "jpeg_compression",
    "white_noise",
    "white_noise_color_component",
    "impulse_noise",
    "multiplicative_noise",
    "denoise",
    "brighten",
    "darken",
    "mean_shift",
    "jitter",
    "non_eccentricity_patch",
    "pixelate",
    "quantization",
    "color_block",
    "high_sharpen",
    "contrast_change",
]

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]

# More of these is no ensemble that somebody trained but an attempt to take all memory or time.
_MOST_LEARNERS = 64
_MOST_LABELS = 1_000
_MOST_COMPONENTS = 10_000
_MOST_CENTERS = 1_000_000
_MOST_RESIDUAL_HEADS = 64
_MOST_DISTANCES = 1_000
_MOST_SCALES = 8
_LARGEST_SCALE = 64

_DTYPES = ("float32", "bfloat16", "float16", "float64")

# A name in timm's registry. With "hf-hub:" or "local-dir:" before it, timm would read a model from elsewhere.
_BACKBONE_NAME = re.compile(r"[A-Za-z0-9_.]{1,100}")

_BASE_LEARNER_KEYS = {
    "backbone",
    "name",
    "image_mean",
    "image_std",
    "stages",
    "scales",
    "kernel_head",
    "residual_heads",
    "distortion_head",
    "lineage",
}


_SCALE_KEYS = {"intercept", "distance", "spread", "quality", "quality_squared", "lowest", "highest"}


class MetaQAPConfig(PreTrainedConfig):
    r"""
    Configuration of a [`MetaQAPModel`]: an ensemble of CNN base learners and a linear meta-learner.

    Args:
        base_learners (`list[dict]`, *optional*):
            One entry for each base learner, at most 64, or just the name of its backbone. Keys: `backbone` (any CNN of
            timm's registry that supports `features_only`), `name` (shown to people, defaults to the backbone's),
            `image_mean` and `image_std` (three floats each for RGB in [0, 1], default ImageNet's), `stages` (list of
            indices of the backbone's stages to pool, default all), `scales` (list of whole numbers, at most 8: the
            backbone sees the crop so many times smaller along each side, once for each of them; default `[1]`, the
            crop as it is), `kernel_head` (`{"num_components": P, "num_centers": M}` for a sum of M Gaussians on P
            principal components beside the linear quality head, default none), `residual_heads` (list of such sizes,
            at most 64, one for each time that the learner was adapted to further ratings), `distortion_head` (whether
            this learner names distortions, default true), `lineage` (list of what its weights were made of, one entry
            for each stage, written by the code that trains).
            Defaults to one `tf_efficientnet_lite0`.
        distortion_labels (`list[str]`, *optional*):
            Names of the distortion heads' classes, in order. Defaults to the 25 distortions of KADID-10k. An empty
            list makes a model without distortion heads.
        interval_radius (`float`, *optional*):
            Half the width of the calibrated prediction interval, in units of quality; with `interval_scale` half its
            mean width. `None` while the model is not calibrated; `MetaQAPOutput.interval` is `None` then.
        interval_scale (`dict[str, float]`, *optional*):
            How much wider than the mean the interval of an image is: `exp(intercept + distance * d + spread * s +
            quality * q + quality_squared * q * q)`, but not below `lowest` or above `highest`, where d is the mean of
            `MetaQAPOutput.distances`, s the logarithm of the standard deviation of the `base_scores` and q the
            quality. `None` for an interval that is equally wide for all images.
        familiar_distances (`list[float]`, *optional*):
            Mean distances of the images that the model was calibrated on, at equally spaced shares of them, in
            ascending order: the first one is the nearest, the last one the farthest. `MetaQAPOutput.familiarity` is
            read off them, and is `None` without them.
        interval_coverage (`float`, *optional*, defaults to 0.9):
            Share of new images whose opinion score the interval is calibrated to hold, between 0 and 1.
        mos_range (`list[float]`, *optional*):
            Lowest and highest rating that the raters could give, which quality 0 and 1 stand for. The model gives
            quality; by this range programs report it on the raters' scale when asked to. `None` where it is not known,
            or lower ratings were better ones.
        learner_subsets (`list[dict]`, *optional*):
            Which learners to take where fewer than all are wanted: for each number of them one entry with `learners`
            (positions in `base_learners`), `weights` and `intercept` of their meta-learner, and their own
            `interval_radius` and, where they have them, `interval_scale` and `familiar_distances`.
        loss_mse_weight (`float`, *optional*, defaults to 0.5):
            `lambda_mse` of the quality-aware loss.
        loss_srocc_weight (`float`, *optional*, defaults to 0.5):
            `lambda_srocc` of the quality-aware loss.
        loss_surrogate (`str`, *optional*, defaults to `"softmax"`):
            The differentiable stand-in for SROCC, `"softmax"` or `"soft_rank"`.
        lineage (`list[dict]`, *optional*):
            How the learners were fused and on which images, written by the code that does it. By this and the
            learners' own `lineage`, programs that measure tell which images the model has seen.

    Example:

    ```python
    >>> from modeling_metaqap import MetaQAPConfig, MetaQAPModel

    >>> config = MetaQAPConfig(base_learners=["tf_efficientnet_lite0", "mobilenetv2_100"])
    >>> model = MetaQAPModel(config)
    ```
    """

    model_type = "metaqap"
    # `Trainer` hands everything but the loss to `compute_metrics` unless it is told not to.
    keys_to_ignore_at_inference = [
        "base_scores",
        "distances",
        "interval",
        "familiarity",
        "distortion_logits",
        "quality_map",
        "hidden_states",
    ]

    base_learners: list[Any] | None = None
    distortion_labels: list[str] | None = None
    interval_radius: float | None = None
    interval_scale: dict[str, float] | None = None
    interval_coverage: float = 0.9
    familiar_distances: list[float] | None = None
    mos_range: list[float] | None = None
    learner_subsets: list[dict[str, Any]] | None = None
    loss_mse_weight: float = 0.5
    loss_srocc_weight: float = 0.5
    loss_surrogate: str = "softmax"
    lineage: list[dict[str, Any]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.base_learners is None:
            self.base_learners = ["tf_efficientnet_lite0"]
        if not isinstance(self.base_learners, (list, tuple)) or not self.base_learners:
            raise ValueError(
                f"`base_learners` must be a list of at least one base learner, got {self.base_learners!r}."
            )
        if len(self.base_learners) > _MOST_LEARNERS:
            raise ValueError(
                f"There may be {_MOST_LEARNERS} base learners at most; `base_learners` has {len(self.base_learners)}."
            )
        self.base_learners = [_complete_base_learner(learner) for learner in self.base_learners]
        _check_lineage(self.lineage)
        _check_subsets(self.learner_subsets, len(self.base_learners))
        if self.distortion_labels is None:
            self.distortion_labels = list(KADID_DISTORTIONS)
        _check_labels(self.distortion_labels)
        if self.distortion_labels and not any(learner["distortion_head"] for learner in self.base_learners):
            raise ValueError("There are `distortion_labels`, but no base learner has a `distortion_head`.")
        if self.loss_surrogate not in ("softmax", "soft_rank"):
            raise ValueError(f"`loss_surrogate` must be 'softmax' or 'soft_rank', not {self.loss_surrogate!r}.")
        for name in ("interval_radius", "loss_mse_weight", "loss_srocc_weight"):
            value = getattr(self, name)
            if (value is not None or name != "interval_radius") and not (_is_number(value) and value >= 0):
                raise ValueError(f"`{name}` must be a number and not be negative, got {value!r}.")
        if not (_is_number(self.interval_coverage) and 0 < self.interval_coverage < 1):
            raise ValueError(f"`interval_coverage` must be a number between 0 and 1, got {self.interval_coverage!r}.")
        _check_width("", self.interval_scale, self.familiar_distances)
        if self.mos_range is not None and not _is_range(self.mos_range):
            raise ValueError(
                "`mos_range` must be the lowest and the highest rating, two finite numbers, or None; got "
                f"{self.mos_range!r}."
            )
        for dtype in (self.dtype, kwargs.get("torch_dtype")):
            # transformers looks up whatever text stands here in torch.
            if isinstance(dtype, str) and dtype not in _DTYPES:
                raise ValueError(f"`dtype` must be one of {', '.join(_DTYPES)}, got {dtype!r}.")
        # One output, "quality": what the stock image-classification pipeline and `Trainer` look at.
        self.id2label = {0: "quality"}
        self.label2id = {"quality": 0}
        self.problem_type = "regression"
        if (num_labels := kwargs.pop("num_labels", None)) is not None:
            self.num_labels = num_labels
        # A class can register itself under one auto class only; the other entries survive saving from here.
        kwargs["auto_map"] = {
            "AutoConfig": "configuration_metaqap.MetaQAPConfig",
            "AutoModel": "modeling_metaqap.MetaQAPModel",
            "AutoModelForImageClassification": "modeling_metaqap.MetaQAPModel",
            "AutoImageProcessor": "image_processing_metaqap.MetaQAPImageProcessor",
        } | (kwargs.get("auto_map") or {})
        # Saved for processes without this package. With it, the pipeline is registered like transformers' own, and the
        # entry would only make `pipeline` insist on the saved code.
        if not type(self).__module__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @property
    def num_labels(self) -> int:
        """1: the model gives one number, quality."""
        return 1

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if num_labels != 1:
            raise ValueError(
                f"MetaQAP gives one number, quality, so `num_labels` is 1, not {num_labels!r}. The names of "
                "distortions are `distortion_labels`."
            )

    @property
    def num_base_learners(self) -> int:
        """K, the number of base learners."""
        return len(self.base_learners)  # type: ignore[arg-type]


def _complete_base_learner(learner: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(learner, str):
        learner = {"backbone": learner}
    if not isinstance(learner, dict) or not isinstance(learner.get("backbone"), str):
        raise ValueError(f"A base learner needs a `backbone`, the name of a timm model; got {learner!r}.")
    if not _BACKBONE_NAME.fullmatch(learner["backbone"]):
        raise ValueError(
            f"The backbone {learner['backbone']!r} is no name in timm's registry, such as 'resnet18'; models from "
            "elsewhere are not read."
        )
    if unknown := set(learner) - _BASE_LEARNER_KEYS:
        raise ValueError(
            f"Unknown base learner option {sorted(unknown)}; the options are {sorted(_BASE_LEARNER_KEYS)}."
        )
    defaults = {
        "name": learner["backbone"],
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "stages": None,
        "scales": [1],
        "kernel_head": None,
        "residual_heads": [],
        "distortion_head": True,
        "lineage": [],
    }
    # A copy: neither the caller's lists nor the constants above are shared with this configuration.
    learner = deepcopy(defaults | learner)
    if not _is_text(learner["name"]):
        raise ValueError(f"The `name` of a base learner must be text, got {learner['name']!r}.")
    if type(learner["distortion_head"]) is not bool:
        raise ValueError(f"`distortion_head` must be true or false, got {learner['distortion_head']!r}.")
    statistics = (learner["image_mean"], learner["image_std"])
    if (
        not all(isinstance(values, (list, tuple)) and len(values) == 3 for values in statistics)
        or not all(_is_number(value) for values in statistics for value in values)
        or min(learner["image_std"]) <= 0
    ):
        raise ValueError(
            "`image_mean` and `image_std` need three numbers each, the latter above 0; got "
            f"{learner['image_mean']} and {learner['image_std']}."
        )
    stages = learner["stages"]
    if stages is not None and (
        not isinstance(stages, (list, tuple))
        or not all(type(stage) is int and 0 <= stage < 100 for stage in stages)
        or not 0 < len(set(stages)) == len(stages)
    ):
        raise ValueError(
            f"`stages` must list different stages of the backbone, at least one, or be None; got {stages}."
        )
    if not _are_scales(learner["scales"]):
        raise ValueError(
            f"`scales` must list different whole numbers from 1 to {_LARGEST_SCALE}, {_MOST_SCALES} at most; got "
            f"{learner['scales']}."
        )
    kernel_head, residual_heads = learner["kernel_head"], learner["residual_heads"]
    if kernel_head is not None and not _are_head_sizes(kernel_head):
        raise ValueError(
            f"`kernel_head` must be None or have `num_components` (1 to {_MOST_COMPONENTS:,}) and `num_centers` (1 to "
            f"{_MOST_CENTERS:,}); got {kernel_head!r}."
        )
    if (
        not isinstance(residual_heads, list)
        or len(residual_heads) > _MOST_RESIDUAL_HEADS
        or not all(map(_are_head_sizes, residual_heads))
    ):
        raise ValueError(
            f"`residual_heads` must be a list of {_MOST_RESIDUAL_HEADS} at most, and each of them needs "
            f"`num_components` and `num_centers` as a `kernel_head` does; got {residual_heads!r}."
        )
    _check_lineage(learner["lineage"])
    return learner


def _are_scales(scales: Any) -> bool:
    """Whether these can be the `scales` of a base learner."""
    return (
        isinstance(scales, (list, tuple))
        and all(type(scale) is int and 1 <= scale <= _LARGEST_SCALE for scale in scales)
        and 0 < len(set(scales)) == len(scales) <= _MOST_SCALES
    )


def _are_head_sizes(sizes: Any) -> bool:
    return (
        isinstance(sizes, dict)
        and set(sizes) == {"num_components", "num_centers"}
        and all(type(size) is int and size > 0 for size in sizes.values())
        and sizes["num_components"] <= _MOST_COMPONENTS
        and sizes["num_centers"] <= _MOST_CENTERS
    )


def _check_subsets(subsets: Any, num_base_learners: int) -> None:
    if subsets is None:
        return
    if not isinstance(subsets, list) or len(subsets) > _MOST_LEARNERS:
        raise ValueError(f"`learner_subsets` must be a list of {_MOST_LEARNERS} at most, got {subsets!r}.")
    for subset in subsets:
        if not _is_subset(subset, num_base_learners):
            raise ValueError(
                "Each of the `learner_subsets` needs `learners` (different positions in `base_learners`), as many "
                f"`weights`, `intercept` and `interval_radius`; got {subset!r}."
            )
        _check_width(" of `learner_subsets`", subset.get("interval_scale"), subset.get("familiar_distances"))


def _is_subset(subset: Any, num_base_learners: int) -> bool:
    needed, optional = (
        {"learners", "weights", "intercept", "interval_radius"},
        {"interval_scale", "familiar_distances"},
    )
    if not isinstance(subset, dict) or not needed <= set(subset) <= needed | optional:
        return False
    learners, weights, radius = subset["learners"], subset["weights"], subset["interval_radius"]
    return (
        isinstance(learners, list)
        and isinstance(weights, list)
        and all(type(index) is int and 0 <= index < num_base_learners for index in learners)
        and 0 < len(set(learners)) == len(learners) == len(weights)
        and all(map(_is_number, [*weights, subset["intercept"]]))
        and (radius is None or (_is_number(radius) and radius >= 0))
    )


def _check_width(of: str, scale: Any, distances: Any) -> None:
    """Refuse numbers by which intervals would have no width, or familiarity no order."""
    if scale is not None and not (
        isinstance(scale, dict)
        and set(scale) == _SCALE_KEYS
        and all(map(_is_number, scale.values()))
        and 0 < scale["lowest"] <= scale["highest"]
    ):
        raise ValueError(
            f"`interval_scale`{of} must be None or have the numbers {sorted(_SCALE_KEYS)}, with 0 < lowest <= "
            f"highest; got {scale!r}."
        )
    if distances is not None and not (
        isinstance(distances, (list, tuple))
        and 2 <= len(distances) <= _MOST_DISTANCES
        and all(map(_is_number, distances))
        and list(distances) == sorted(distances)
    ):
        raise ValueError(
            f"`familiar_distances`{of} must be None or 2 to {_MOST_DISTANCES} numbers in ascending order; got "
            f"{distances!r}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_range(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_is_number, value)):
        return False
    return value[0] < value[1] and math.isfinite(float(value[1]) - float(value[0]))


def _is_text(value: Any) -> bool:
    # What cannot be printed could steer the terminal that it is shown on.
    return isinstance(value, str) and value.isprintable() and len(value) <= 1_000


def _check_labels(labels: Any) -> None:
    if (
        not isinstance(labels, (list, tuple))
        or not all(_is_text(label) for label in labels)
        or not len(set(labels)) == len(labels) <= _MOST_LABELS
    ):
        raise ValueError(f"`distortion_labels` must list different names, {_MOST_LABELS:,} at most; got {labels!r}.")


def _check_lineage(lineage: Any) -> None:
    if lineage is not None and not (isinstance(lineage, list) and all(isinstance(stage, dict) for stage in lineage)):
        raise ValueError(f"`lineage` must be a list with one dictionary for each stage, got {lineage!r}.")
    for stage in lineage or []:
        distorted = stage.get("distorted")
        entries = [*stage.values(), *(distorted.values() if isinstance(distorted, dict) else ())]
        if any(isinstance(value, str) and not value.isprintable() for value in entries):
            raise ValueError("`lineage` has text in it that cannot be printed.")


__all__ = ["MetaQAPConfig"]
