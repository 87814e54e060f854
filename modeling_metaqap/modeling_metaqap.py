"""MetaQAP: no-reference image quality from an ensemble of CNN base learners and a linear meta-learner."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput
from transformers.utils.import_utils import is_tracing

from .configuration_metaqap import MetaQAPConfig
from .crops_metaqap import merge_crops
from .interval_metaqap import familiarity, prediction_interval
from .losses_metaqap import quality_aware_loss

# Pixels of the input for each cell of the quality map, along each side.
_QUALITY_MAP_STRIDE = 8


@dataclass
class MetaQAPOutput(ModelOutput):
    """
    Output of [`MetaQAPModel`] for B images, K base learners and D distortions.

    Args:
        loss (`torch.FloatTensor` of shape `()`, returned when `labels` are given):
            Quality-aware loss.
        logits (`torch.FloatTensor` of shape `(B, 1)`):
            Quality, higher is better. [0, 1] is the training range; values are not clipped to it.
        base_scores (`torch.FloatTensor` of shape `(B, K)`):
            Each base learner's own score, on the same scale.
        distances (`torch.FloatTensor` of shape `(B, K)`):
            How far the image is from each base learner's training images: minus the logarithm of the sum of the
            Gaussians around them, or of a learner without a kernel head the logarithm of its features' mean square.
            Without gradient.
        interval (`torch.FloatTensor` of shape `(B, 2)`, `None` while the model is not calibrated):
            Lower and upper end of the calibrated prediction interval, which is to hold the opinion score of
            `config.interval_coverage` of the images. Its middle is `logits`; its width is that of every image or, with
            `config.interval_scale`, depends on the image. Gradients go through its middle only.
        familiarity (`torch.FloatTensor` of shape `(B, 1)`, `None` without `config.familiar_distances`):
            How like the training images it is, in [0, 1]: the share of the images that the model was calibrated on
            which were farther from them.
        distortion_logits (`torch.FloatTensor` of shape `(B, D)`, `None` without a distortion head):
            Which synthetic distortion the image resembles, in the order of `config.distortion_labels`: the mean over
            the learners that have a distortion head.
        quality_map (`torch.FloatTensor` of shape `(B, h, w)`, or `(B, N, h, w)` for N crops, on request):
            Local quality. Its mean over the map, weighted with `crop_weights` over the crops, is `logits`.
        hidden_states (`tuple[torch.FloatTensor]`, on request):
            Activations `(B * N, C, h, w)` of each pooled stage, one scale after the other of one base learner after
            the other.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    base_scores: Tensor | None = None
    distances: Tensor | None = None
    interval: Tensor | None = None
    familiarity: Tensor | None = None
    distortion_logits: Tensor | None = None
    quality_map: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def _create_backbone(backbone: str, stages: list[int] | None) -> nn.Module:
    if not timm.is_model(backbone):
        raise ValueError(
            f"timm {timm.__version__} has no model {backbone!r}. Choose one of `timm.list_models()` or upgrade timm "
            "with `pip install -U timm`."
        )
    try:
        model = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=stages)
    except IndexError as error:
        if stages is None:
            raise
        raise ValueError(f"The backbone {backbone!r} has no stages {stages}.") from error
    if getattr(model, "output_fmt", "NCHW") != "NCHW":
        raise ValueError(f"The backbone {backbone!r} is not a CNN with (batch, channels, height, width) activations.")
    return model


def _checked_crop_weights(crop_weights: Tensor) -> Tensor:
    """Weights of crops as float32; an image of weights that mean nothing is refused or gets NaN, see `forward`."""
    crop_weights = crop_weights.float()
    crop_weights = crop_weights.where(crop_weights >= 0, torch.nan)
    if crop_weights.device.type == "cpu" and not is_tracing(crop_weights):
        totals = crop_weights.sum(dim=1)
        if not ((totals > 0) & totals.isfinite()).all():
            raise ValueError(
                "`crop_weights` must be finite and not negative, and at least one crop of each image needs a weight "
                "above 0."
            )
    return crop_weights


def _of_images(values: Tensor, crop_weights: Tensor) -> Tensor:
    """What crops get `(M, ...)` -> `(B, N, ...)`, zeros for crops that were left out for their weight of 0."""
    if len(values) == crop_weights.numel():
        return values.unflatten(0, crop_weights.shape)
    spread = values.new_zeros(*crop_weights.shape, *values.shape[1:])
    spread[crop_weights > 0] = values
    return spread


class MetaQAPKernelHead(nn.Module):
    """What the heads before it leave over, as a sum of Gaussians on the principal components of the features.

    Each Gaussian vanishes away from its centre, the features of one training photograph, so a photograph that
    resembles none of them gets the other heads' score alone.

    All its tensors are buffers: they are fitted in closed form (kernel ridge regression), never by gradient descent.
    """

    components: Tensor
    centers: Tensor
    coefficients: Tensor
    gamma: Tensor

    def __init__(self, num_features: int, *, num_components: int, num_centers: int):
        super().__init__()
        self.register_buffer("components", torch.zeros(num_features, num_components))
        self.register_buffer("centers", torch.zeros(num_centers, num_components))
        self.register_buffer("coefficients", torch.zeros(num_centers))
        self.register_buffer("gamma", torch.ones(()))

    def _exponents(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised features `(B, F)` -> principal components `(B, P)`, logarithms of the Gaussians `(B, M)`."""
        # Autocast would multiply matrices in half precision, and near centres the distances would be noise.
        with torch.autocast(device_type=features.device.type, enabled=False):
            points = features @ self.components.float()
            centers = self.centers.float()
            squares = points.square().sum(dim=1, keepdim=True) + centers.square().sum(dim=1)
            distances = (squares - 2 * points @ centers.T).clamp_min(0)
        return points, -self.gamma.float() * distances

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features `(B, F)` -> what to add to the other heads' score, `(B,)`."""
        return self.score_and_distance(features)[0]

    def score_and_distance(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised features `(B, F)` -> what to add to the other heads' score, and the distance, `(B,)` each.

        The distance is minus the logarithm of the sum of the Gaussians: little where many centres are near, and the
        distance to the nearest one where all are far.
        """
        exponents = self._exponents(features)[1]
        # As a logarithm, since far away every Gaussian is 0.
        return (self.coefficients.float() * exponents.exp()).sum(dim=1), -exponents.detach().logsumexp(dim=1)

    def gradient(self, features: Tensor) -> Tensor:
        """Derivative of `forward` with respect to the features, `(B, F)`."""
        points, exponents = self._exponents(features)
        gaussians = self.coefficients.float() * exponents.exp()
        with torch.autocast(device_type=features.device.type, enabled=False):
            pull = gaussians @ self.centers.float() - gaussians.sum(dim=1, keepdim=True) * points
            return 2 * self.gamma.float() * pull @ self.components.float().T


class MetaQAPBaseLearner(GradientCheckpointingLayer):
    """One base learner: timm CNN -> averages of every stage's activations and of their squares -> heads.

    The CNN may see the crop at several scales. What it makes of each is averaged for itself, and the heads have all of
    the averages.

    The quality head is linear, with an optional `MetaQAPKernelHead` beside it, and a further one for each time that
    the learner was adapted to somebody's own ratings; the distortion head is linear. The features of a crop are
    averages over space only, and what an image gets is the weighted mean over its crops. So a score is the mean of a
    local quality map, see `local_quality`, and crops can be computed one by one.
    """

    backbone: nn.Module
    image_mean: Tensor
    image_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    quality_head: nn.Linear
    kernel_head: MetaQAPKernelHead | None
    residual_heads: nn.ModuleList
    distortion_head: nn.Linear | None

    def __init__(self, config: MetaQAPConfig, index: int):
        super().__init__()
        learner: dict[str, Any] = config.base_learners[index]  # type: ignore[index]
        self.backbone = _create_backbone(learner["backbone"], learner["stages"])
        for tensor in (*self.backbone.parameters(), *self.backbone.buffers()):
            if not tensor.is_meta:  # timm has given it a value, see `MetaQAPModel.initialize_weights`
                tensor._is_hf_initialized = True  # type: ignore[attr-defined]
        self.stage_channels: list[int] = self.backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        self.scales: list[int] = learner["scales"]
        num_features = 2 * sum(self.stage_channels) * len(self.scales)
        self._normalization = (learner["image_mean"], learner["image_std"])
        self.register_buffer("image_mean", torch.tensor(learner["image_mean"]).view(3, 1, 1))
        self.register_buffer("image_std", torch.tensor(learner["image_std"]).view(3, 1, 1))
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_std", torch.ones(num_features))
        self.quality_head = nn.Linear(num_features, 1)
        self.kernel_head = (
            MetaQAPKernelHead(num_features, **learner["kernel_head"]) if learner["kernel_head"] else None
        )
        self.residual_heads = nn.ModuleList(
            MetaQAPKernelHead(num_features, **sizes) for sizes in learner["residual_heads"]
        )
        self.distortion_head = (
            nn.Linear(num_features, len(config.distortion_labels))
            if config.distortion_labels and learner["distortion_head"]
            else None
        )

    def stage_activations(self, pixel_values: Tensor) -> list[Tensor]:
        """`(M, 3, H, W)` RGB in [0, 1] -> one `(M, C, h, w)` for each pooled stage, one scale after the other.

        Source: several scales of one picture, as in Ke et al., "MUSIQ: multi-scale image quality transformer", ICCV
        2021; here each has pooled features of its own.
        """
        normalized = (pixel_values - self.image_mean) / self.image_std
        activations = []
        for scale in self.scales:
            # At the right and lower border the average is of the pixels that are there, so no picture is too small.
            smaller = (
                normalized if scale == 1 else F.avg_pool2d(normalized, scale, ceil_mode=True, count_include_pad=False)
            )
            # Mean and standard deviation stay in float32 when the backbone is cast to half precision.
            activations += self.backbone(smaller.to(next(self.backbone.parameters()).dtype))
        return activations

    @staticmethod
    def pool(activations: Sequence[Tensor]) -> Tensor:
        """Activations of all stages and scales -> `(M, F)` means, then mean squares, one by one, in float32."""
        features = []
        for activation in activations:
            # In half precision the squares overflow and the sums over 256 x 256 places lose most of their digits.
            activation = activation.float()
            features += [activation.mean(dim=(2, 3)), activation.square().mean(dim=(2, 3))]
        return torch.cat(features, dim=1)

    def standardize(self, features: Tensor) -> Tensor:
        """Pooled features `(B, F)` -> zero mean and unit variance over the training images."""
        return (features - self.feature_mean.float()) / self.feature_std.float()

    def score(self, features: Tensor) -> Tensor:
        """Standardised features `(B, F)` -> quality `(B,)`."""
        return self.score_and_distance(features)[0]

    def score_and_distance(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised features `(B, F)` -> quality and distance to the training images, `(B,)` each.

        The distance takes no notice of adaptations: the photographs that these were made on could not tell any more
        how far others like them are.
        """
        # Written out, because autocast would run `F.linear` in half precision and images of like quality would tie.
        scores = (features * self.quality_head.weight.float()).sum(dim=1) + self.quality_head.bias.float()
        if self.kernel_head is None:
            distances = features.detach().square().mean(dim=1).log()
        else:
            addition, distances = self.kernel_head.score_and_distance(features)
            scores = scores + addition
        for head in self.residual_heads:
            scores = scores + head(features)
        return scores, distances

    def kernel_heads(self) -> list[MetaQAPKernelHead]:
        """All heads that are sums of Gaussians: the learner's own one and those of later adaptations."""
        own = [] if self.kernel_head is None else [self.kernel_head]
        return [*own, *self.residual_heads]

    def forward(self, pixel_values: Tensor, crop_weights: Tensor) -> tuple[Tensor | None, ...]:
        """
        Args:
            pixel_values: `(M, 3, H, W)`, RGB in [0, 1], of B * N crops, or of those whose weight is above 0.
            crop_weights: `(B, N)`.

        Returns:
            Scores `(B,)`, distances `(B,)`, distortion logits `(B, D)` or None, standardised features `(M, F)` of the
            crops, and the activations of each pooled stage. One flat tuple: reentrant checkpointing loses the
            gradients of tensors in a list.
        """
        activations = self.stage_activations(pixel_values)
        features = self.standardize(self.pool(activations))
        scores, distances = (
            merge_crops(_of_images(values, crop_weights), crop_weights) for values in self.score_and_distance(features)
        )
        distortion_logits = None
        if self.distortion_head is not None:
            means = merge_crops(_of_images(features, crop_weights), crop_weights)
            distortion_logits = F.linear(means, self.distortion_head.weight.float(), self.distortion_head.bias.float())
        return scores, distances.detach(), distortion_logits, features, *activations

    def local_quality(self, activations: Sequence[Tensor], features: Tensor, grid: tuple[int, int]) -> Tensor:
        """What each place contributes to the score.

        The score is linearised around the crop's own features, which are the averages of the places' features. So the
        average of the map is the score, whatever the head; with a linear head alone the map is the score before
        averaging over space.

        Args:
            activations: of the pooled stages at all scales, `(M, C, h, w)` each.
            features: standardised, of the M crops.
            grid: height and width of the map; the activations have different sizes and are brought to this one.

        Returns:
            `(M, *grid)`; the mean of each map is the score of that crop.
        """
        slope = self.quality_head.weight.float().expand(len(features), -1)
        for head in self.kernel_heads():
            slope = slope + head.gradient(features)
        offset = self.score(features) - (slope * features).sum(dim=1)
        slope = slope / self.feature_std.float()
        offset = offset - (slope * self.feature_mean.float()).sum(dim=1)
        total = offset.view(-1, 1, 1).expand(-1, *grid)
        start = 0
        for activation in activations:
            channels = activation.shape[1]
            linear, square = slope[:, start : start + 2 * channels].unflatten(1, (2, channels, 1, 1)).unbind(1)
            start += 2 * channels
            activation = activation.float()
            stage_map = (linear * activation + square * activation.square()).sum(dim=1)
            resized = F.interpolate(
                stage_map.unsqueeze(1), size=grid, mode="bilinear", align_corners=False, antialias=True
            ).squeeze(1)
            # Resampling moves the mean a little at the borders; the mean is the score and has to stay.
            drift = stage_map.mean(dim=(1, 2), keepdim=True) - resized.mean(dim=(1, 2), keepdim=True)
            total = total + resized + drift
        return total


class MetaQAPMetaLearner(nn.Module):
    """Linear fusion of K base scores, `weight @ scores + intercept`.

    Weight and intercept are buffers: they are fitted by (stepwise) least squares, never by gradient descent. With one
    base learner they stay at the identity.
    """

    weight: Tensor
    intercept: Tensor

    def __init__(self, num_base_learners: int):
        super().__init__()
        self.register_buffer("weight", torch.full((num_base_learners,), 1 / num_base_learners))
        self.register_buffer("intercept", torch.zeros(()))

    def forward(self, base_scores: Tensor) -> Tensor:
        """`(B, K)` -> `(B, 1)`."""
        return (base_scores * self.weight.float()).sum(dim=1, keepdim=True) + self.intercept.float()


class MetaQAPPreTrainedModel(PreTrainedModel):
    """Initialisation, saving and loading of MetaQAP models."""

    config: MetaQAPConfig
    # Whether a loss of this model was computed to train it.
    _was_trained = False
    base_model_prefix = "metaqap"
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["MetaQAPBaseLearner"]
    # Small tensors that a score depends on directly; rounding them to half precision would shift every score.
    _keep_in_fp32_modules_strict = [
        "feature_mean",
        "feature_std",
        "image_mean",
        "image_std",
        "quality_head",
        "kernel_head",
        "residual_heads",
        "distortion_head",
        "meta_learner",
    ]

    @classmethod
    def from_pretrained(cls, *args: Any, use_safetensors: bool | None = True, **kwargs: Any) -> Any:
        """As of any transformers model, but pickled weights, which can hold code, are not read unless asked for."""
        return super().from_pretrained(*args, use_safetensors=use_safetensors, **kwargs)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As of any transformers model; with the image processor beside it, the folder also serves the pipeline.

        The code of the pipeline is saved with that of the model, and the configuration names it for processes that do
        not have this package. What was measured of weights that were trained since (by `Trainer`, say) holds no longer
        and is left out: the interval and the learners to choose from. The lineage says that they were trained.
        """
        # Not at the top: pipelines take long to import. Saving copies whatever this file imports, here too.
        from .pipeline_metaqap import CUSTOM_PIPELINES

        if self._was_trained:
            self._note_training()
        kept = vars(self.config).get("custom_pipelines")
        self.config.custom_pipelines = deepcopy(CUSTOM_PIPELINES)
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            if kept is None:
                del self.config.custom_pipelines
            else:
                self.config.custom_pipelines = kept

    def _note_training(self) -> None:
        self.config.interval_radius = self.config.interval_scale = self.config.familiar_distances = None
        self.config.mos_range = None
        self.config.learner_subsets = None
        trained = {"kind": "finetune"}  # on images that are not known here
        for learner in self.config.base_learners:  # type: ignore[union-attr]
            if learner["lineage"][-1:] != [trained]:
                learner["lineage"] = [*learner["lineage"], dict(trained)]
        self._was_trained = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # timm has initialised the backbones already, and pretrained weights may be in them: only our own parts here.
        if isinstance(module, MetaQAPBaseLearner):
            mean, std = module._normalization
            init.copy_(module.image_mean, torch.tensor(mean).view(3, 1, 1))
            init.copy_(module.image_std, torch.tensor(std).view(3, 1, 1))
            init.zeros_(module.feature_mean)
            init.ones_(module.feature_std)
            init.normal_(module.quality_head.weight, std=0.01)
            init.constant_(module.quality_head.bias, 0.5)  # the middle of the quality range
            if module.distortion_head is not None:
                init.normal_(module.distortion_head.weight, std=0.01)
                init.zeros_(module.distortion_head.bias)
        elif isinstance(module, MetaQAPKernelHead):
            # Adds nothing until it is fitted.
            for buffer in (module.components, module.centers, module.coefficients):
                init.zeros_(buffer)
            init.ones_(module.gamma)
        elif isinstance(module, MetaQAPMetaLearner):
            init.constant_(module.weight, 1 / module.weight.numel())
            init.zeros_(module.intercept)
        elif hasattr(module, "init_non_persistent_buffers"):
            # No checkpoint holds these buffers of timm's layers (the blur filters of BlurPool2d for one), and the
            # loader leaves them without values.
            module.init_non_persistent_buffers()  # type: ignore[operator]

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """None: images have no token embeddings. Libraries ask every transformers model, FSDP among them."""
        return None


class MetaQAPModel(MetaQAPPreTrainedModel):
    """K >= 1 base learners fused by a linear meta-learner; K = 1 is a base learner by itself.

    Example:

    ```python
    >>> from PIL import Image
    >>> from transformers import AutoImageProcessor, AutoModel

    >>> model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
    >>> image_processor = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    >>> inputs = image_processor(Image.open("photo.jpg"), return_tensors="pt")
    >>> quality = model(**inputs).logits.item()
    ```
    """

    def __init__(self, config: MetaQAPConfig):
        super().__init__(config)
        self.base_learners = nn.ModuleList(
            MetaQAPBaseLearner(config, index) for index in range(config.num_base_learners)
        )
        self.meta_learner = MetaQAPMetaLearner(config.num_base_learners)
        # Not every configuration has each of the heads.
        present = {part for name in self.state_dict() for part in name.split(".")}
        self._keep_in_fp32_modules_strict = [name for name in self._keep_in_fp32_modules_strict if name in present]
        self.post_init()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Give values to all that has none yet; what a checkpoint lacks of a backbone gets timm's initial values."""
        for index, learner in enumerate(self.config.base_learners):  # type: ignore[arg-type]
            tensors = self.base_learners[index].backbone.state_dict(keep_vars=True)  # type: ignore[union-attr]
            missing = [name for name, tensor in tensors.items() if not getattr(tensor, "_is_hf_initialized", False)]
            if missing:
                fresh = _create_backbone(learner["backbone"], learner["stages"]).state_dict()
                for name in missing:
                    tensors[name].copy_(fresh[name])
        super().initialize_weights()

    @classmethod
    def from_base_models(
        cls,
        models: Sequence["MetaQAPModel"],
        *,
        weights: Sequence[float] | None = None,
        intercept: float = 0.0,
    ) -> "MetaQAPModel":
        """Merge trained base learners into one ensemble.

        Args:
            models: K models with one base learner each. Those that name distortions have the same labels.
            weights: K weights of the meta-learner, default the plain mean. A learner with weight 0 is left out, and
                so are its settings: the loss is that of the first learner that is kept.
            intercept: of the meta-learner, in units of quality.

        Returns:
            A new model on the CPU in float32, in evaluation mode, not calibrated.

        Raises:
            ValueError: for no models, ensembles among them, different distortion labels or a wrong number of weights.
        """
        if not models:
            raise ValueError("`from_base_models` needs at least one model.")
        if weights is None:
            weights = [1 / len(models)] * len(models)
        if len(weights) != len(models):
            raise ValueError(f"Got {len(models)} models but {len(weights)} weights.")
        for model in models:
            if model.config.num_base_learners != 1:
                raise ValueError(
                    f"`from_base_models` merges single base learners; one model has {model.config.num_base_learners}."
                )
        kept = [(model, weight) for model, weight in zip(models, weights, strict=True) if weight != 0]
        if not kept:
            raise ValueError("All weights are 0; no base learner is left.")
        labels = [model.config.distortion_labels for model, _ in kept if model.config.distortion_labels]
        if any(other != labels[0] for other in labels):
            raise ValueError("The models have different `distortion_labels` and cannot share one output.")
        config = MetaQAPConfig.from_dict(kept[0][0].config.to_dict())
        config.distortion_labels = list(labels[0]) if labels else []
        config.base_learners = [
            deepcopy(model.config.base_learners[0])  # type: ignore[index]
            | {"distortion_head": model.base_learners[0].distortion_head is not None}
            for model, _ in kept
        ]
        config.interval_radius = config.interval_scale = config.familiar_distances = None
        config.mos_range = None
        config.learner_subsets = None
        config.lineage = None
        ensemble = cls(config)
        for base_learner, (model, _) in zip(ensemble.base_learners, kept, strict=True):
            base_learner.load_state_dict(model.base_learners[0].state_dict())
        ensemble.meta_learner.weight.copy_(torch.tensor([weight for _, weight in kept]))
        ensemble.meta_learner.intercept.fill_(intercept)
        return ensemble.eval()

    def base_models(self) -> list["MetaQAPModel"]:
        """The K base learners as models of their own, whose quality is their base score: undoes `from_base_models`.

        Returns:
            New models on the CPU in float32, in evaluation mode, not calibrated. Each keeps its own `lineage`.
        """
        models = []
        for learner, base_learner in zip(self.config.base_learners, self.base_learners, strict=True):  # type: ignore[arg-type]
            config = MetaQAPConfig.from_dict(self.config.to_dict())
            config.base_learners = [deepcopy(learner)]
            if not learner["distortion_head"]:
                config.distortion_labels = []
            config.interval_radius = config.interval_scale = config.familiar_distances = None
            config.mos_range = None
            config.learner_subsets = None
            config.lineage = None
            model = type(self)(config)
            model.base_learners[0].load_state_dict(base_learner.state_dict())
            models.append(model.eval())
        return models

    def forward(
        self,
        pixel_values: Tensor,
        crop_weights: Tensor | None = None,
        labels: Tensor | None = None,
        output_quality_map: bool = False,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MetaQAPOutput | tuple[Tensor, ...]:
        """
        Args:
            pixel_values: RGB in [0, 1], `(B, 3, H, W)` or crops `(B, N, 3, H, W)`. Or, with `crop_weights`,
                `(M, 3, H, W)`: the M crops of all images whose weight is above 0, one after the other. Each base
                learner normalises them with its own mean and standard deviation.
            crop_weights: `(B, N)`, >= 0, zero for crops that only pad the batch but not for all crops of an image;
                default equal weights.
            labels: `(B,)` or `(B, 1)`, quality in [0, 1], for the loss.
            output_quality_map: also return the local quality.
            output_hidden_states: also return the activations of the pooled stages.
            return_dict: return a [`MetaQAPOutput`] (default) or a plain tuple.

        Raises:
            ValueError: for `pixel_values` or `crop_weights` of another shape, pixels that are not floating point, and
                weights that mean nothing. The values of weights are looked at on the CPU only: on a GPU that would
                hold up the work, and in a traced or exported model it is not possible. There an image of such weights
                gets NaN.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if pixel_values.ndim not in (4, 5) or pixel_values.shape[-3] != 3:
            raise ValueError(
                "`pixel_values` must have shape (batch, 3, height, width) or (batch, crops, 3, height, width), got "
                f"{tuple(pixel_values.shape)}."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"`pixel_values` must be floating point in [0, 1], got {pixel_values.dtype}: divide bytes by 255, or "
                "use the image processor."
            )
        shape = pixel_values.shape[:2] if pixel_values.ndim == 5 else (len(pixel_values), 1)
        flat_crops = pixel_values.flatten(0, 1) if pixel_values.ndim == 5 else pixel_values
        has_crops = pixel_values.ndim == 5
        if crop_weights is None:
            crop_weights = torch.ones(shape, device=pixel_values.device)
        elif crop_weights.shape == shape:
            crop_weights = _checked_crop_weights(crop_weights)
        elif not has_crops and crop_weights.ndim == 2 and len(pixel_values) == (crop_weights > 0).sum():
            has_crops = True  # those of all images, one after the other
            crop_weights = _checked_crop_weights(crop_weights)
        else:
            raise ValueError(
                f"`crop_weights` must have shape {tuple(shape)}, one weight for each crop, got "
                f"{tuple(crop_weights.shape)}."
            )
        if self.training and any(learner.gradient_checkpointing for learner in self.base_learners):
            # Reentrant checkpointing gives gradients only where an input wants one. That of the pixels would have to
            # be computed through the whole backbone, its frozen stages too; that of these weights costs nothing.
            crop_weights.requires_grad_()

        scores, distances, distortion_logits, hidden_states = [], [], [], ()
        quality_map = None
        for index, base_learner in enumerate(self.base_learners):
            score, distance, learner_distortion_logits, features, *activations = base_learner(flat_crops, crop_weights)
            scores.append(score)
            distances.append(distance)
            if learner_distortion_logits is not None:
                distortion_logits.append(learner_distortion_logits)
            if output_hidden_states:
                hidden_states += tuple(activations)
            if output_quality_map:
                grid = tuple(-(-side // _QUALITY_MAP_STRIDE) for side in flat_crops.shape[2:])
                local_quality = base_learner.local_quality(activations, features, grid)  # type: ignore[operator]
                weighted = self.meta_learner.weight[index].float() * local_quality
                quality_map = weighted if quality_map is None else quality_map + weighted

        base_scores = torch.stack(scores, dim=1)
        quality = self.meta_learner(base_scores)
        if quality_map is not None:
            quality_map = quality_map + self.meta_learner.intercept.float()
            if has_crops:
                quality_map = _of_images(quality_map, crop_weights)

        all_distances = torch.stack(distances, dim=1)
        loss = None
        if labels is not None:
            loss = quality_aware_loss(
                quality,
                labels,
                lambda_mse=self.config.loss_mse_weight,
                lambda_srocc=self.config.loss_srocc_weight,
                surrogate=self.config.loss_surrogate,
            )
            if self.training and loss.requires_grad:
                self._was_trained = True

        output = MetaQAPOutput(
            loss=loss,
            logits=quality,
            base_scores=base_scores,
            distances=all_distances,
            interval=prediction_interval(self.config, quality, base_scores, all_distances),
            familiarity=familiarity(self.config, all_distances),
            distortion_logits=torch.stack(distortion_logits).mean(dim=0) if distortion_logits else None,
            quality_map=quality_map,
            hidden_states=hidden_states if output_hidden_states else None,
        )
        return output if return_dict else output.to_tuple()


# `save_pretrained` then copies this file and the ones it imports next to the weights.
MetaQAPConfig.register_for_auto_class()
MetaQAPModel.register_for_auto_class("AutoModel")


__all__ = [
    "MetaQAPBaseLearner",
    "MetaQAPKernelHead",
    "MetaQAPModel",
    "MetaQAPOutput",
    "MetaQAPPreTrainedModel",
]
