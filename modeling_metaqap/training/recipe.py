"""Recipes: every setting of one training run."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ..data.atomic import write_atomically
from ..errors import MetaQAPError
from .rated_set import SET_SETTINGS, RatedSet, read_sets
from .recipe_files import find
from .setting_values import checked_settings

STAGES = ("pretrain", "finetune")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "halving")
SURROGATES = ("softmax", "soft_rank")


@dataclass(kw_only=True)
class Recipe:
    """Every setting of one training run. Read from YAML by `Recipe.load`; unknown keys are refused.

    Attributes:
        backbone: name of a timm CNN.
        stage: "pretrain" learns pseudo opinion scores and distortions of synthetic images, "finetune" learns human
            opinion scores.
        dataset: name of a data set of `iqa_datasets`, for fine-tuning; "folder" is a folder of your own photographs
            and a CSV file with their ratings, which the five settings after `images` describe.
        datasets: several data sets to learn from at once, a list with the settings of each: `dataset` and any of the
            next nine settings, what its `name` in the log is, and what its `weight` in the batches is relative to the
            others (without weights each photograph is drawn equally often). Each set keeps a scale of its own, and the
            scores are on that of the first one; null for the one set that `dataset` names.
        images: pattern of the ids of the images to take, such as "ss01*"; null for all of them.
        csv: that file, relative to the working directory or else to the folder; null for the folder's only one.
        image_column, mos_column: its columns with the photographs' names and with the ratings; null for the usual
            names.
        mos_range: lowest and highest rating that a rater could give, such as [1, 5]; null for 0 to 1, if all ratings
            lie there.
        lower_is_better: lower ratings are better ones, as with DMOS.
        train_split, validation_split: names of its splits; the test split is refused.
        hold_out: cuts the images of both splits anew, by `iqa_datasets.hold_out`: "fold 2 of 5" or a pattern of image
            ids such as "ss01*" are validated on and all others trained on; null leaves the splits as they are.
        epochs: passes over the training split; 0 only fits the head.
        patience: stop after so many epochs without a better SROCC on the validation split; null goes on to the end.
        batch_size: images in one optimiser step, over all processes.
        synthetic_batch_size: distorted images that each step of fine-tuning adds, over all processes, so that the
            distortion head stays fit; 0 trains a learner without one. Pretraining has nothing but distorted images.
        crop_size: side of the native-resolution training crops in pixels.
        min_scale: each photograph is shrunk by a random factor from here to 1 before a crop is taken, in (0, 1]; at
            least `crop_size` / 512, or the smallest ones are padded. Distorted images are not shrunk.
        drop_path: how often the last residual block of the backbone is left out, in [0, 1), at random for each image
            (stochastic depth, Huang et al., ECCV 2016); the rate rises from 0 at the first block.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        schedule: of the rates after warm-up: "cosine" falls to 0 at the end, "halving" halves them every
            `halving_epochs`.
        halving_epochs: see `schedule`.
        learning_rate: peak rate of the backbone's weights.
        head_learning_rate: peak rate of the quality head's weights.
        distortion_learning_rate: peak rate of the distortion head's weights.
        line_learning_rate: with several sets, peak rate of the lines that bring the scores to the scale of each.
        weight_decay: on the backbone's matrices and convolutions only.
        warmup_fraction: part of all steps in which the rates rise linearly.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: of the moving average of the weights that is validated and saved; 0 for none.
        freeze_stages: number of first backbone stages whose weights stay as they are.
        refit_head: at the end fit the quality head anew, by ridge regression on whole training images.
        imagenet_share: moves the backbone's weights this part of the way back to ImageNet's before the heads are
            refitted, in [0, 1]: 0 leaves what training made of them, 1 undoes it.
        ridge_penalty: of the ridge regressions that start and refit the head, for each image; null chooses it by
            generalised cross-validation.
        distorted_weight: of distorted images with their pseudo opinion scores in the ridge regression that refits the
            head, all of them together, in units of all photographs; 0 leaves them out.
        refit_distortion_head: at the end fit the distortion head anew, by multinomial logistic regression on whole
            distorted images; so a learner names distortions without having been trained on them.
        kernel_components: at the end add a kernel head on so many principal components; 0 adds none.
        kernel_centers, kernel_gamma, kernel_penalty: of that head, see `fit_kernel_head`.
        teacher_weight: with a teacher (`--teacher`), what its scores weigh beside those of people, in [0, 1].
        loss_mse_weight, loss_srocc_weight, loss_surrogate: of the quality-aware loss.
        distortion_loss_weight: of the cross-entropy over the distortions, added to the quality-aware loss.
        stages: indices of the backbone's stages to pool, null for all.
        scales: the backbone sees each crop so many times smaller, once for each of these whole numbers; `[1, 2]` adds
            the crop at half its size. Null for the crop as it is, or with `init` for what that learner sees.
        seed: of everything random.
    """

    backbone: str
    stage: str = "finetune"
    dataset: str = "biq2021"
    datasets: list[dict[str, Any]] | None = None
    images: str | None = None
    csv: str | None = None
    image_column: str | None = None
    mos_column: str | None = None
    mos_range: list[float] | None = None
    lower_is_better: bool = False
    train_split: str = "train"
    validation_split: str = "validation"
    hold_out: str | None = None
    epochs: int = 4
    patience: int | None = None
    batch_size: int = 16
    synthetic_batch_size: int = 0
    crop_size: int = 256
    min_scale: float = 1.0
    drop_path: float = 0.0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    halving_epochs: int = 20
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-5
    distortion_learning_rate: float = 1e-3
    line_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    ema_decay: float = 0.995
    freeze_stages: int = 0
    refit_head: bool = False
    imagenet_share: float = 0.0
    ridge_penalty: float | None = None
    distorted_weight: float = 0.0
    refit_distortion_head: bool = False
    kernel_components: int = 0
    kernel_centers: int = 10_000
    kernel_gamma: float = 4.0
    kernel_penalty: float = 0.1
    teacher_weight: float = 0.5
    loss_mse_weight: float = 0.5
    loss_srocc_weight: float = 0.5
    loss_surrogate: str = "softmax"
    distortion_loss_weight: float = 0.1
    stages: list[int] | None = None
    scales: list[int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise MetaQAPError(f"`stage` must be one of {', '.join(STAGES)}, got {self.stage!r}.")
        if self.datasets is not None:
            if self.stage == "pretrain":
                raise MetaQAPError("`datasets` is for fine-tuning; pretraining knows no opinion scores.")
            defaults = {field.name: field.default for field in fields(self)}
            if own := [name for name in SET_SETTINGS if getattr(self, name) != defaults[name]]:
                raise MetaQAPError(_belongs_to_a_set(own[0]))
            self.datasets = [one.given for one in read_sets(self.datasets)]
        if self.stage == "finetune":
            _ = self.sets
        choices = {"loss_surrogate": SURROGATES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise MetaQAPError(f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if self.epochs < 0 or (self.epochs == 0 and not self.refit_head):
            raise MetaQAPError(f"`epochs` must be at least 1, or 0 together with `refit_head`, got {self.epochs}.")
        if self.patience is not None and (type(self.patience) is not int or self.patience < 1):
            raise MetaQAPError(f"`patience` must be a number of epochs from 1, or null, got {self.patience!r}.")
        for name in ("imagenet_share", "kernel_components", "distorted_weight", "refit_distortion_head"):
            if getattr(self, name) and not self.refit_head:
                raise MetaQAPError(f"`{name}` needs `refit_head`: it is for the heads that are fitted at the end.")
        if self.imagenet_share and self.trains_distortions and not self.refit_distortion_head:
            raise MetaQAPError(
                "With `imagenet_share` the distortion head must be fitted anew: set `refit_distortion_head` too."
            )
        if self.ridge_penalty is not None and not self.ridge_penalty > 0:
            raise MetaQAPError(f"`ridge_penalty` must be above 0, or null, got {self.ridge_penalty!r}.")
        for name in ("batch_size", "crop_size", "kernel_centers", "halving_epochs"):
            if getattr(self, name) < 1:
                raise MetaQAPError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in (
            "learning_rate",
            "head_learning_rate",
            "distortion_learning_rate",
            "line_learning_rate",
            "max_grad_norm",
            "kernel_gamma",
            "kernel_penalty",
        ):
            if not getattr(self, name) > 0:
                raise MetaQAPError(f"`{name}` must be above 0, got {getattr(self, name)}.")
        weights = ("weight_decay", "loss_mse_weight", "loss_srocc_weight", "distortion_loss_weight")
        counts = ("synthetic_batch_size", "freeze_stages", "kernel_components", "seed")
        for name in (*weights, *counts, "distorted_weight"):
            if not getattr(self, name) >= 0:
                raise MetaQAPError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name, listed in (("stages", "numbers of stages"), ("scales", "whole numbers")):
            values = getattr(self, name)
            if values is not None and not (
                isinstance(values, list)
                and values
                and all(type(value) is int for value in values)
                and len(set(values)) == len(values)
            ):
                raise MetaQAPError(f"`{name}` must be a list of different {listed}, or null, got {values!r}.")
        for name in ("synthetic_batch_size", "distorted_weight"):
            if self.stage == "pretrain" and getattr(self, name):
                raise MetaQAPError(f"`{name}` is for fine-tuning; every image of pretraining is synthetic.")
        for name in ("ema_decay", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise MetaQAPError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 < self.min_scale <= 1:
            raise MetaQAPError(f"`min_scale` must lie in (0, 1], got {self.min_scale}.")
        for name in ("warmup_fraction", "imagenet_share", "teacher_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise MetaQAPError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}.")

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> "Recipe":
        """Read a YAML file, or the recipe that ships under this name.

        Args:
            path: of the file, or a name such as "metaqap-lite/mobilenetv2-1".
            overrides: values that replace those of the file; None leaves one as it is.

        Raises:
            MetaQAPError: for a file that is missing, is not a mapping, or has unknown or impossible settings.
        """
        try:
            values = yaml.safe_load(find(path).read_bytes())
        except OSError as error:
            raise MetaQAPError(
                f"The recipe {path} cannot be read: {error.strerror}; `metaqap recipes` lists those that ship."
            ) from error
        # Also raised are ValueError, for dates and bytes that cannot be, and RecursionError, for too many brackets.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise MetaQAPError(f"The recipe {path} is not YAML: {str(error).splitlines()[0]}.") from error
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise MetaQAPError(f"The recipe {path} must be a mapping of settings to values.")
        return cls.from_values(values | {name: value for name, value in overrides.items() if value is not None}, path)

    @classmethod
    def from_values(cls, values: dict[str, Any], path: str | Path) -> "Recipe":
        """A recipe of settings as YAML reads them.

        Args:
            values: settings.
            path: where they come from, for messages.

        Raises:
            MetaQAPError: for unknown or impossible settings.
        """
        values = checked_settings(values, cls, owner=f"The recipe {path}", where=f"in {path}")
        if "backbone" not in values:
            raise MetaQAPError(f"The recipe {path} names no `backbone`.")
        if values.get("datasets") is not None:
            if own := [name for name in SET_SETTINGS if name in values]:
                raise MetaQAPError(_belongs_to_a_set(own[0]))
            read_sets(values["datasets"], where=f"in {path}")
        return cls(**values)

    def save(self, path: Path) -> None:
        values = asdict(self)
        if self.datasets is not None:
            values = {name: value for name, value in values.items() if name not in SET_SETTINGS}
        write_atomically(path, yaml.safe_dump(values, sort_keys=False).encode())

    @property
    def sets(self) -> tuple[RatedSet, ...]:
        """The data sets with opinion scores; the scores of the learner are on the scale of the first one."""
        if self.datasets is not None:
            return read_sets(self.datasets)
        return (RatedSet(**{name: getattr(self, name) for name in SET_SETTINGS}),)

    @property
    def needs_distorted(self) -> bool:
        """Whether there must be distorted images to learn from."""
        return self.learns_distortions or self.distorted_weight > 0

    @property
    def learns_distortions(self) -> bool:
        """Whether the learner has a distortion head; without distorted images none could be trained."""
        return self.trains_distortions or self.refit_distortion_head

    @property
    def trains_distortions(self) -> bool:
        """Whether gradient steps train the distortion head."""
        return self.stage == "pretrain" or self.synthetic_batch_size > 0


def _belongs_to_a_set(name: str) -> str:
    return f"`{name}` is a setting of one set; with `datasets` it belongs into an entry of that list."


__all__ = ["STAGES", "Recipe"]
