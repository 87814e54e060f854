"""What the training scripts share: recipes, training crops, the head's starting point, checkpoints of a run."""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from .backbones import load_imagenet_weights
from .configuration_metaqap import MetaQAPConfig
from .image_processing_metaqap import MetaQAPImageProcessor, crop_layout, to_rgb
from .losses_metaqap import SURROGATES
from .modeling_metaqap import MetaQAPBaseLearner, MetaQAPModel

STAGES = ("pretrain", "finetune")


class RecipeError(ValueError):
    """A recipe or run folder that cannot be used; the message says what to change."""


@dataclass(kw_only=True)
class Recipe:
    """Every setting of one training run. Read from YAML by `Recipe.load`; unknown keys are refused.

    Attributes:
        backbone: name of a timm CNN.
        stage: "pretrain" learns pseudo opinion scores and distortions of synthetic images, "finetune" learns human
            opinion scores.
        dataset: name of a data set of `iqa_datasets`, for fine-tuning.
        train_split, validation_split: names of its splits; the test split is refused.
        epochs: passes over the training split; 0 only fits the head.
        batch_size: images in one optimiser step, over all processes.
        synthetic_batch_size: distorted images that each step of fine-tuning adds, over all processes, so that the
            distortion head stays fit; 0 trains a learner without one. Pretraining has nothing but distorted images.
        crop_size: side of the native-resolution training crops in pixels.
        learning_rate: peak rate of the backbone's weights (AdamW).
        head_learning_rate: peak rate of the quality head's weights.
        distortion_learning_rate: peak rate of the distortion head's weights.
        weight_decay: of AdamW, on matrices and convolutions only.
        warmup_fraction: part of all steps in which the rates rise linearly; then they fall as a cosine to 0.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: of the moving average of the weights that is validated and saved; 0 for none.
        freeze_stages: number of first backbone stages whose weights stay as they are.
        refit_head: at the end fit the quality head anew, by ridge regression on whole training images.
        loss_mse_weight, loss_srocc_weight, loss_surrogate: of the quality-aware loss.
        distortion_loss_weight: of the cross-entropy over the distortions, added to the quality-aware loss.
        stages: indices of the backbone's stages to pool, null for all.
        seed: of everything random.
    """

    backbone: str
    stage: str = "finetune"
    dataset: str = "biq2021"
    train_split: str = "train"
    validation_split: str = "validation"
    epochs: int = 4
    batch_size: int = 16
    synthetic_batch_size: int = 0
    crop_size: int = 256
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-5
    distortion_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    ema_decay: float = 0.995
    freeze_stages: int = 0
    refit_head: bool = False
    loss_mse_weight: float = 0.5
    loss_srocc_weight: float = 0.5
    loss_surrogate: str = "softmax"
    distortion_loss_weight: float = 0.1
    stages: list[int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise RecipeError(f"`stage` must be one of {', '.join(STAGES)}, got {self.stage!r}.")
        if self.loss_surrogate not in SURROGATES:
            raise RecipeError(f"`loss_surrogate` must be one of {', '.join(SURROGATES)}, got {self.loss_surrogate!r}.")
        if self.epochs < 0 or (self.epochs == 0 and not self.refit_head):
            raise RecipeError(f"`epochs` must be at least 1, or 0 together with `refit_head`, got {self.epochs}.")
        for name in ("batch_size", "crop_size"):
            if getattr(self, name) < 1:
                raise RecipeError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "head_learning_rate", "distortion_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        weights = ("weight_decay", "loss_mse_weight", "loss_srocc_weight", "distortion_loss_weight")
        for name in (*weights, "synthetic_batch_size", "freeze_stages"):
            if not getattr(self, name) >= 0:
                raise RecipeError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.stage == "pretrain" and self.synthetic_batch_size:
            raise RecipeError("`synthetic_batch_size` is for fine-tuning; every image of pretraining is synthetic.")
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"`ema_decay` must lie in [0, 1), got {self.ema_decay}.")
        if not 0 <= self.warmup_fraction <= 1:
            raise RecipeError(f"`warmup_fraction` must lie in [0, 1], got {self.warmup_fraction}.")

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> "Recipe":
        """Read a YAML file; `overrides` that are not None replace its values.

        Raises:
            RecipeError: for a file that is missing, is not a mapping, or has unknown or impossible settings.
        """
        try:
            values = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"The recipe {path} is not YAML: {str(error).splitlines()[0]}.") from error
        if not isinstance(values, dict):
            raise RecipeError(f"The recipe {path} must be a mapping of settings to values.")
        values |= {name: value for name, value in overrides.items() if value is not None}
        known = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise RecipeError(f"The recipe {path} has an unknown setting {unknown[0]!r}; known are {sorted(known)}.")
        if "backbone" not in values:
            raise RecipeError(f"The recipe {path} names no `backbone`.")
        for name, value in values.items():
            # YAML reads 1e-4 (without a dot) as text.
            if known[name] is float:
                try:
                    values[name] = float(value)
                except (TypeError, ValueError) as error:
                    raise RecipeError(f"`{name}` in {path} must be a number, got {value!r}.") from error
            elif known[name] is int and (isinstance(value, bool) or not isinstance(value, int)):
                raise RecipeError(f"`{name}` in {path} must be a whole number, got {value!r}.")
        return cls(**values)

    def save(self, path: Path) -> None:
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False))

    @property
    def learns_distortions(self) -> bool:
        """Whether the learner has a distortion head; without distorted images none could be trained."""
        return self.stage == "pretrain" or self.synthetic_batch_size > 0

    def model_config(self) -> MetaQAPConfig:
        """Configuration of the base learner that this recipe trains."""
        return MetaQAPConfig(
            base_learners=[{"backbone": self.backbone, "stages": self.stages}],
            distortion_labels=None if self.learns_distortions else [],
            loss_mse_weight=self.loss_mse_weight,
            loss_srocc_weight=self.loss_srocc_weight,
            loss_surrogate=self.loss_surrogate,
        )


class TrainingCrops(Dataset):
    """Native-resolution random crops and flips of the images of an IQA data set, or of a distorted one.

    Item `(epoch, index)` depends on the seed, the epoch and the index alone: not on workers, processes or resumption.
    The image is shrunk first where the image processor would shrink it, so training sees the scoring resolution.
    """

    def __init__(self, dataset: datasets.Dataset, *, crop_size: int, seed: int):
        self.dataset = dataset
        self.crop_size = crop_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = item
        rng = np.random.default_rng([self.seed, epoch, index])
        row = self.dataset[index]
        return {"pixel_values": random_crop(to_rgb(row["image"]), self.crop_size, rng), **_labels(row)}


def _labels(row: dict[str, Any]) -> dict[str, Tensor]:
    labels = {"labels": torch.tensor(row["quality"], dtype=torch.float32)}
    return labels | {name: torch.tensor(row[name]) for name in ("distortion", "level") if name in row}


def random_crop(image: Image.Image, crop_size: int, rng: np.random.Generator) -> Tensor:
    """A random crop of the resized image, flipped half of the time: `(3, crop_size, crop_size)` uint8."""
    layout = crop_layout(image.height, image.width, crop_size=crop_size)
    height, width = layout.resized
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    if layout.padded != layout.resized:
        pads = [
            (before, padded - before - side)
            for before, padded, side in zip(layout.pad_before, layout.padded, layout.resized, strict=True)
        ]
        array = np.pad(array, (*pads, (0, 0)), mode="reflect")
    top = rng.integers(array.shape[0] - crop_size + 1)
    left = rng.integers(array.shape[1] - crop_size + 1)
    array = array[top : top + crop_size, left : left + crop_size]
    if rng.random() < 0.5:
        array = array[:, ::-1]
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


class EpochSampler(Sampler[tuple[int, int]]):
    """`(epoch, index)` pairs of one epoch in an order that only the seed and the epoch decide."""

    def __init__(self, length: int, *, seed: int):
        self.length = length
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch; `skip` leaves out its first items, to go on in the middle of it."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return self.length - self.skip

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order[self.skip :]])


class EndlessSampler(Sampler[tuple[int, int]]):
    """The `(epoch, index)` pairs of one epoch after the other without an end, from the item number `start`."""

    def __init__(self, length: int, *, seed: int):
        self.epochs = EpochSampler(length, seed=seed)
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, skip = divmod(self.start, self.epochs.length)
        while True:
            self.epochs.set_epoch(epoch, skip=skip)
            yield from self.epochs
            epoch, skip = epoch + 1, 0


class WholeImages(Dataset):
    """Whole images through the image processor, exactly as they are scored in use."""

    def __init__(self, dataset: datasets.Dataset, image_processor: MetaQAPImageProcessor):
        self.dataset = dataset
        self.image_processor = image_processor

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.dataset[index]
        inputs = self.image_processor(row["image"], return_tensors="pt")
        return {name: inputs[name][0] for name in ("pixel_values", "crop_weights")} | _labels(row)


def collate_crops(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack images with different numbers of crops, the missing ones as zeros with weight zero."""
    most = max(len(item["crop_weights"]) for item in items)
    batch = {}
    for name in items[0]:
        tensors = [item[name] for item in items]
        if name in ("pixel_values", "crop_weights"):
            tensors = [torch.cat([t, t.new_zeros(most - len(t), *t.shape[1:])]) for t in tensors]
        batch[name] = torch.stack(tensors)
    return batch


def new_base_learner(recipe: Recipe, *, init: str | Path | None = None) -> MetaQAPModel:
    """A base learner with ImageNet weights in its backbone and untrained heads, or the trained one in `init`.

    Raises:
        RecipeError: for a backbone that timm or its weights do not offer, or an `init` that is not such a learner.
    """
    torch.manual_seed(recipe.seed)
    try:
        model = MetaQAPModel(recipe.model_config())
        learner = base_learners_of(model)[0]
        if init is None:
            load_imagenet_weights(learner.backbone, recipe.backbone)
        else:
            _load_learner(learner, model.config, init)
    except (OSError, ValueError) as error:
        raise RecipeError(str(error)) from error
    freeze_stages(model, recipe.freeze_stages)
    return cast(nn.Module, model).to(memory_format=torch.channels_last)  # type: ignore[return-value]


def _load_learner(learner: MetaQAPBaseLearner, config: MetaQAPConfig, init: str | Path) -> None:
    """Take over the weights of a trained learner; a distortion head that the new one does not have is dropped."""
    try:
        trained = MetaQAPModel.from_pretrained(init)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{init} holds no trained base learner: {str(error).splitlines()[0]}") from error
    if trained.config.base_learners != config.base_learners:
        raise RecipeError(f"{init} does not hold the base learner that the recipe describes.")
    if config.distortion_labels and trained.config.distortion_labels != config.distortion_labels:
        raise RecipeError(
            f"{init} has no head for the {len(config.distortion_labels)} distortions; pretrain it first."
        )
    weights = base_learners_of(trained)[0].state_dict()
    learner.load_state_dict({name: weights[name] for name in learner.state_dict()})


def base_learners_of(model: MetaQAPModel) -> list[MetaQAPBaseLearner]:
    return cast(list[MetaQAPBaseLearner], list(model.base_learners))


def freeze_stages(model: MetaQAPModel, count: int) -> None:
    """Stop gradients in the weights of the first `count` pooled stages of each base learner."""
    for learner in base_learners_of(model):
        names = cast(Any, learner.backbone).feature_info.module_name()
        if not 0 <= count <= len(names):
            raise RecipeError(f"`freeze_stages` must lie between 0 and {len(names)}, got {count}.")
        if count == 0:
            continue
        # Modules are listed in the order of the data's way, so everything before the stage lies before it in the list.
        modules = list(learner.backbone.named_modules())
        # Some of timm's feature extractors turn the module "stages.0" into "stages_0".
        last = names[count - 1], names[count - 1].replace(".", "_")
        end = max(i for i, (name, _) in enumerate(modules) if f"{name}.".startswith(tuple(f"{key}." for key in last)))
        for _, module in modules[: end + 1]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def freeze_batch_norm(model: nn.Module) -> None:
    """Keep BatchNorm at its ImageNet statistics; call after each `model.train()`.

    Small batches of crops estimate them worse, and with them a score would depend on the other images in its batch
    and on the number of processes.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@torch.no_grad()
def pooled_features(
    model: MetaQAPModel,
    loader: Iterable[dict[str, Tensor]],
    *,
    device: torch.device,
    gather: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda tensors: tensors,
) -> tuple[Tensor, Tensor]:
    """Features of all images of a loader before standardisation, and the labels.

    Args:
        model: one base learner, on `device`.
        loader: over the images; gives `labels` `(B,)` and `pixel_values`, `(B, 3, H, W)` uint8 or `(B, N, 3, H, W)`
            in [0, 1] with `crop_weights` `(B, N)`.
        device: where to compute.
        gather: brings the parts of a batch of all processes together.

    Returns:
        Features `(n, F)` and labels `(n,)` in float64 on the CPU.
    """
    learner = base_learners_of(model)[0].eval()
    features, targets = [], []
    for batch in loader:
        pixels = batch["pixel_values"].to(device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        weights = batch.get("crop_weights", torch.ones(len(pixels), 1)).to(device)
        crops = pixels.reshape(-1, *pixels.shape[-3:]).contiguous(memory_format=torch.channels_last)
        pooled = learner.pool(learner.stage_activations(crops)).unflatten(0, weights.shape)
        pooled = (pooled * weights.unsqueeze(-1)).sum(dim=1)
        pooled, labels = gather((pooled, batch["labels"].to(device)))
        features.append(pooled.cpu())
        targets.append(labels.cpu())
    return torch.cat(features).double(), torch.cat(targets).double()


@torch.no_grad()
def fit_ridge_head(model: MetaQAPModel, features: Tensor, targets: Tensor) -> dict[str, float]:
    """Set the feature standardisation and the quality head by ridge regression on the backbone's pooled features.

    Before fine-tuning it gives a head that makes sense, so that the first gradients do not destroy the backbone. After
    it, on whole images, it replaces a head that has seen crops only and that gradient steps have made noisy. The
    distortion head is rewritten for the new standardisation; what it says does not change.

    Args:
        model: one base learner.
        features: `(n, F)`, from `pooled_features`.
        targets: `(n,)`, quality.

    Returns:
        The ridge penalty chosen by generalised cross-validation (Golub, Heath and Wahba, 1979) and the training RMSE.
    """
    learner = base_learners_of(model)[0]
    x, y = features, targets
    mean, std = x.mean(dim=0), x.std(dim=0)
    # A dead channel has no spread; standardising it by 1 leaves it at zero.
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    u, singular_values, vt = torch.linalg.svd((x - mean) / std, full_matrices=False)
    projected = u.T @ (y - y.mean())
    best = (math.inf, 0.0)
    for penalty in np.logspace(-1, 5, 13).tolist():
        shrink = singular_values.square() / (singular_values.square() + penalty)
        residual = y - y.mean() - u @ (shrink * projected)
        gcv = residual.square().mean().item() / (1 - shrink.sum().item() / len(y)) ** 2
        best = min(best, (gcv, penalty))
    penalty = best[1]
    weight = vt.T @ (singular_values / (singular_values.square() + penalty) * projected)
    if learner.distortion_head is not None:
        head = learner.distortion_head
        old_mean, old_std, old = (
            tensor.cpu().double() for tensor in (learner.feature_mean, learner.feature_std, head.weight)
        )
        head.bias.add_((old @ ((mean - old_mean) / old_std)).to(head.bias))
        head.weight.copy_(old * (std / old_std))
    learner.feature_mean.copy_(mean)
    learner.feature_std.copy_(std)
    learner.quality_head.weight.copy_(weight.unsqueeze(0))
    learner.quality_head.bias.fill_(y.mean().item())
    fitted = (x - mean) / std @ weight + y.mean()
    return {"ridge_penalty": penalty, "train_rmse": (fitted - y).square().mean().sqrt().item()}


def parameter_groups(model: MetaQAPModel, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW groups: each head and the backbone have their own rates; heads, biases and norms are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.learning_rate if ".backbone." in name else recipe.head_learning_rate
        rate = recipe.distortion_learning_rate if ".distortion_head." in name else rate
        decay = recipe.weight_decay if parameter.ndim > 1 and ".backbone." in name else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


class RunFolder:
    """The files of one training run: recipe, metrics, resumable states and the best and last model."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.metrics_file = self.path / "metrics.jsonl"
        self.states = self.path / "states"

    def start(self, recipe: Recipe, *, resume: bool) -> None:
        """Create the folder, or check that a resumed run continues the same recipe.

        A run that is to be resumed but never began is begun, so that one command can be repeated until it is done.

        Raises:
            RecipeError: if the folder holds another run or, on resumption, another recipe.
        """
        recipe_file = self.path / "recipe.yaml"
        if resume and recipe_file.exists():
            if Recipe.load(recipe_file) != recipe:
                raise RecipeError(f"{self.path} was started with another recipe; resume with {recipe_file}.")
            return
        if recipe_file.exists():
            raise RecipeError(
                f"{self.path} already holds a run; continue it with --resume_from_checkpoint latest or choose another "
                "--output_dir."
            )
        self.states.mkdir(parents=True, exist_ok=True)
        recipe.save(recipe_file)

    def log(self, **values: Any) -> None:
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop logged rows of steps that a resumed run will do again."""
        if not self.metrics_file.exists():
            return
        rows = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # cut off by a kill
                continue
            if row.get("step", 0) <= step:
                rows.append(line)
        self.metrics_file.write_text("".join(f"{row}\n" for row in rows))

    def state_to_resume(self, wanted: str | None) -> Path | None:
        """The state that `wanted` means: a path, "latest" for the newest one if there is any, None for none.

        Raises:
            RecipeError: if the path holds no state.
        """
        if wanted is None or wanted == "latest":
            return self.latest_state() if wanted else None
        if not Path(wanted).is_dir():
            raise RecipeError(f"There is no state to resume from in {wanted}.")
        return Path(wanted)

    def latest_state(self) -> Path | None:
        # A state under construction ends in .tmp, see `commit_state`.
        states = [path for path in self.states.glob("step_*") if path.suffix != ".tmp"]
        return max(states, key=lambda path: int(path.name.removeprefix("step_")), default=None)

    def pending_state(self, step: int) -> Path:
        """Where to write the state of `step` before `commit_state` makes it valid."""
        path = self.states / f"step_{step}.tmp"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def commit_state(self, pending: Path, *, keep: int = 2) -> None:
        """Make a completely written state valid in one atomic step and remove all but the newest `keep`."""
        final = pending.with_suffix("")
        shutil.rmtree(final, ignore_errors=True)
        pending.rename(final)
        states = sorted(
            (path for path in self.states.glob("step_*") if path.suffix != ".tmp"),
            key=lambda path: int(path.name.removeprefix("step_")),
        )
        for old in states[:-keep]:
            shutil.rmtree(old)


__all__ = [
    "EndlessSampler",
    "EpochSampler",
    "Recipe",
    "RecipeError",
    "RunFolder",
    "TrainingCrops",
    "WholeImages",
    "collate_crops",
    "fit_ridge_head",
    "freeze_batch_norm",
    "freeze_stages",
    "new_base_learner",
    "parameter_groups",
    "pooled_features",
    "random_crop",
]
