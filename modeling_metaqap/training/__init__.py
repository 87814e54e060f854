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
from .provenance import data_sets_of, refuse_seen, trained_on, was_fine_tuned
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
    "data_sets_of",
    "fit_distortion_head",
    "fit_kernel_head",
    "fit_ridge_head",
    "freeze_batch_norm",
    "freeze_stages",
    "load_rated",
    "make_optimizer",
    "move_toward_imagenet",
    "new_base_learner",
    "parameter_groups",
    "pooled_features",
    "random_crop",
    "refuse_seen",
    "trained_on",
    "training_step",
    "was_fine_tuned",
    "whole_images",
]
