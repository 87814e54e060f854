"""What the training scripts share: recipes, training images, the learner's parts, the folder of a run."""

from .images import (
    EndlessSampler,
    EpochSampler,
    TrainingCrops,
    WholeImages,
    collate_crops,
    load_rated,
    random_crop,
    whole_images,
)
from .learner import (
    fit_distortion_head,
    fit_kernel_head,
    fit_ridge_head,
    freeze_batch_norm,
    freeze_stages,
    make_optimizer,
    move_toward_imagenet,
    new_base_learner,
    parameter_groups,
    pooled_features,
)
from .provenance import joined, origins, parts_of, refuse_seen, training_summary, was_fine_tuned
from .recipe import STAGES, Recipe, RecipeError
from .run_folder import RunFolder
from .step import training_step

__all__ = [
    "STAGES",
    "EndlessSampler",
    "EpochSampler",
    "Recipe",
    "RecipeError",
    "RunFolder",
    "TrainingCrops",
    "WholeImages",
    "collate_crops",
    "fit_distortion_head",
    "fit_kernel_head",
    "fit_ridge_head",
    "freeze_batch_norm",
    "freeze_stages",
    "joined",
    "load_rated",
    "make_optimizer",
    "move_toward_imagenet",
    "new_base_learner",
    "origins",
    "parameter_groups",
    "parts_of",
    "pooled_features",
    "random_crop",
    "refuse_seen",
    "training_step",
    "training_summary",
    "was_fine_tuned",
    "whole_images",
]
