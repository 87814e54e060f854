"""One training run, from its data to its summary."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.utils import logging as transformers_logging

from ..checkpoint_reading import read_config, read_model
from ..data.accelerate_state import failing_together, main_process_first, without_accelerator
from ..data.atomic import replace_files
from ..data.heartbeat import watching_the_others
from ..data.seen import refuse_seen
from ..errors import MetaQAPError
from ..image_processing_metaqap import MetaQAPImageProcessor
from ..installing import missing_package
from ..lineage import learner_stages, weights_sha256
from ..modeling_metaqap import MetaQAPModel
from .bad_images import leave_out_bad_images
from .batches import Batches
from .curves import plot_curves
from .frozen_features import frozen_features
from .heads import fit_distortion_head, fit_kernel_head, fit_ridge_head, pooled_features
from .images import whole_images
from .journal import Journal, Steps
from .learner import add_drop_path, freeze_batch_norm, move_toward_imagenet, new_base_learner
from .recipe import Recipe
from .run_folder import RunFolder
from .set_lines import SetLines
from .settings import RunSettings
from .shared_scale import shared_targets, start_lines
from .splits import Splits, load_splits
from .stages import add_stages, gradient_stages, heads_stages
from .state import TrainingState, begin_state, writing
from .step import training_step
from .teacher import Teacher
from .validation import Validation


@dataclass(frozen=True)
class Run:
    """What the steps of a run share; none of it changes."""

    recipe: Recipe
    settings: RunSettings
    accelerator: Accelerator
    folder: RunFolder
    journal: Journal
    splits: Splits
    batches: Batches
    validation: Validation
    teacher: Teacher | None


def train(recipe: Recipe, settings: RunSettings, *, splits: Splits | None = None) -> dict[str, Any] | None:
    """Train one base learner. Every process that `accelerate launch` has started calls this.

    Args:
        recipe: what is learned, and how.
        settings: how that is computed, and where the files are.
        splits: the images; default those that recipe and settings name.

    Returns:
        On the main process a summary: `output_dir`, `best_validation_srocc` if there were epochs, and
        `refitted_validation_srocc` if the heads were fitted at the end. None on the others. An SROCC is None where
        all scores are the same.

    Raises:
        MetaQAPError: for a mistake of the user, or if training diverges.
        OSError: if a file cannot be read or written.
    """
    accelerator = start_accelerator(recipe, settings)
    with watching_the_others("train"), sentences_of_workers():
        return train_with(accelerator, recipe, settings, splits)


def train_with(
    accelerator: Accelerator, recipe: Recipe, settings: RunSettings, splits: Splits | None = None
) -> dict[str, Any] | None:
    """`train`, after the processes have found each other."""
    folder = RunFolder(settings.output_dir)
    journal = Journal(accelerator, folder)
    with failing_together():
        saved_state = folder.state_to_resume(settings.resume_from_checkpoint, say=journal.say)

    if splits is None:
        splits = main_process_first(lambda: load_splits(recipe, settings))
    if settings.max_bad_images:
        splits = leave_out_bad_images(splits, most=settings.max_bad_images, say=journal.say)
    batches = Batches(splits, recipe, accelerator, num_workers=settings.num_workers)
    validation = Validation(splits, batches)
    with failing_together():
        teacher = start_teacher(recipe, settings, accelerator)
    run = Run(recipe, settings, accelerator, folder, journal, splits, batches, validation, teacher)

    model = start_learner(run)
    with failing_together():
        if accelerator.is_main_process:
            resume = settings.resume_from_checkpoint is not None
            folder.start(recipe, resume=resume, init=settings.init, teacher=settings.teacher)
            if saved_state is None:
                folder.forget_after(-1)
    journal.start_tracking(recipe)
    lines = None
    if len(splits.sets) > 1:
        names = [one.name for one in recipe.sets]
        lines = SetLines(names, learning_rate=recipe.line_learning_rate, device=accelerator.device)
    if saved_state is None and recipe.epochs > 0:
        start_head(run, model, lines)

    state = begin_state(model, recipe, accelerator, steps_per_epoch=batches.steps_per_epoch, lines=lines)
    if saved_state is not None:
        state.load(accelerator, saved_state)
        with failing_together():
            if accelerator.is_main_process:
                folder.forget_after(state.position.step)
        journal.say(f"Resumed at step {state.position.step} of {recipe.epochs * batches.steps_per_epoch}.")

    train_epochs(run, state)
    summary = {"output_dir": str(folder.path)} | best_figures(state)
    if recipe.refit_head:
        summary |= refit_heads(run, state)

    with failing_together():
        if accelerator.is_main_process:
            plot_curves(folder.rows(), folder.path / "curves.png")
    accelerator.end_training()
    return summary if accelerator.is_main_process else None


def refuse_mistakes(recipe: Recipe, settings: RunSettings) -> None:
    """Raise what `train` would raise before it computes, for one process to find before several are started.

    Raises:
        MetaQAPError: for a mistake of the user.
        OSError: if a file cannot be read.
    """
    refuse_tracker(settings)
    folder = RunFolder(settings.output_dir)
    resume = settings.resume_from_checkpoint is not None
    folder.refuse_another(recipe, resume=resume, init=settings.init, teacher=settings.teacher)
    folder.state_to_resume(settings.resume_from_checkpoint)
    for checkpoint in (settings.init, settings.teacher):
        if checkpoint is not None:
            read_config(checkpoint)
    load_splits(recipe, settings)


@contextmanager
def sentences_of_workers() -> Iterator[None]:
    """Take out of a sentence the traceback that torch adds where another process read the image."""
    try:
        yield
    except MetaQAPError as error:
        if not str(error).startswith("Caught "):
            raise
        raise type(error)(str(error).strip().splitlines()[-1].partition("Error: ")[2]) from None


def start_accelerator(recipe: Recipe, settings: RunSettings) -> Accelerator:
    """The processes of a run and their device, with everything random seeded."""
    refuse_tracker(settings)
    transformers_logging.disable_progress_bar()
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=settings.cpu or without_accelerator(),
        log_with=settings.with_tracking,
        project_dir=settings.output_dir,
    )
    set_seed(recipe.seed)
    # All training crops have one size, so it pays to try a GPU's algorithms for it.
    torch.backends.cudnn.benchmark = True
    return accelerator


def start_teacher(recipe: Recipe, settings: RunSettings, accelerator: Accelerator) -> Teacher | None:
    """The checkpoint to learn from beside people, if the command line names one."""
    if settings.teacher is None:
        return None
    if recipe.stage == "pretrain":
        raise MetaQAPError("`teacher` is for fine-tuning; pretraining learns pseudo opinion scores.")
    return Teacher(settings.teacher, weight=recipe.teacher_weight, accelerator=accelerator)


def refuse_tracker(settings: RunSettings) -> None:
    """Refuse a tracker that is not installed."""
    tracker = settings.with_tracking
    if tracker and find_spec(tracker) is None:
        raise MetaQAPError(f"`with_tracking` {tracker} cannot be used. {missing_package(tracker)}")


def start_learner(run: Run) -> MetaQAPModel:
    """The base learner that the run begins with, on the device: a trained one or an ImageNet backbone."""
    with failing_together():
        model = new_base_learner(run.recipe, init=run.settings.init)
        refuse_seen_validation(run, model)
        if run.recipe.epochs:
            if run.recipe.drop_path:
                if run.settings.gradient_accumulation_steps > 1:
                    raise MetaQAPError(
                        "`drop_path` cannot be used with `gradient_accumulation_steps`: chunks are computed twice, "
                        "with other blocks left out the second time."
                    )
                add_drop_path(model, run.recipe.drop_path)
            # Everything that the run saves carries it.
            taught_by = None
            if run.teacher is not None:
                taught_by = run.teacher.sha256
                add_stages(model, run.teacher.stages)
            stages = gradient_stages(run.recipe, run.splits, started_from=digest_of_init(run), taught_by=taught_by)
            add_stages(model, stages)
    return model.to(run.accelerator.device)


def digest_of_init(run: Run) -> str | None:
    """SHA-256 of the weights that the run starts from, None for ImageNet weights."""
    return None if run.settings.init is None else weights_sha256(run.settings.init)


def refuse_seen_validation(run: Run, model: MetaQAPModel) -> None:
    """Refuse a learner to start from, or a teacher, that learned from the images that the run is validated on."""
    if run.recipe.stage == "pretrain":
        return
    origins = {run.settings.init: learner_stages(model.config)[0]}
    if run.teacher is not None:
        origins[run.settings.teacher] = run.teacher.stages
    for weights, stages in origins.items():
        if weights is not None:
            for one in run.splits.sets:
                assert one.source is not None and one.where is not None
                refuse_seen(stages, one.validation, weights=weights, dataset=one.source.dataset, **one.where)


def start_head(run: Run, model: MetaQAPModel, lines: SetLines | None) -> None:
    """Start the quality head from ridge regression, so that the first gradients make sense to the backbone.

    With several sets their lines begin here, too.
    """
    loaders = run.batches.one_crop_each()
    with run.journal.doing("Starting the head from ridge regression ..."):
        features, qualities, sets = of_all_sets([features_of(run, model, loader, "labels") for loader in loaders])
    if lines is not None:
        start_lines(model, features, qualities, sets, lines, penalty=run.recipe.ridge_penalty)
    qualities, weights = shared_targets(qualities, sets, lines, parts=run.batches.parts)
    fitted = fit_ridge_head(model, features, qualities, penalty=run.recipe.ridge_penalty, weights=weights)
    run.journal.log(step=0, processes=run.accelerator.num_processes, **fitted, **figures_of(lines))


def figures_of(lines: SetLines | None) -> dict[str, float]:
    """What the log says of the lines of several sets."""
    return {} if lines is None else lines.figures()


def of_all_sets(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """Features and quality of the images of each set as those of all, and the number of each one's set."""
    sets = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part[0]) for part in parts]))
    features, qualities = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return features, qualities, sets


def features_of(run: Run, model: MetaQAPModel, loader: DataLoader, *targets: str) -> tuple[Tensor, ...]:
    """Features of all images of a loader, and the targets of that name, on each process."""
    with run.accelerator.autocast():
        return pooled_features(
            model, loader, device=run.accelerator.device, gather=run.accelerator.gather_for_metrics, targets=targets
        )


def whole_features(run: Run, model: MetaQAPModel, dataset: datasets.Dataset, *targets: str) -> tuple[Tensor, ...]:
    """`features_of` whole images; those of a learner that the run has not trained are kept on disk."""
    if run.recipe.epochs:
        return features_of(run, model, run.batches.whole(dataset), *targets)
    seen = whole_images(dataset, distorted_crop_size=run.recipe.crop_size).seen
    features = frozen_features(
        model,
        dataset,
        lambda part: features_of(run, model, run.batches.whole(part))[0],
        accelerator=run.accelerator,
        seen=f"{seen} {run.accelerator.mixed_precision}",
        cache_dir=run.settings.cache_dir,
    )
    columns = {"labels": "quality", "distortion": "distortion"}
    values = [torch.tensor(dataset[columns[target]][:]) for target in targets]
    # As a batch has them.
    return features, *(value.float().double() if value.is_floating_point() else value for value in values)


def train_epochs(run: Run, state: TrainingState) -> None:
    """Train, validate and save, epoch by epoch, from where the state stands."""
    position = state.position
    total = run.recipe.epochs * run.batches.steps_per_epoch
    with run.journal.steps(position, total=total) as steps:
        while position.epoch < run.recipe.epochs and not position.is_over(run.recipe.patience):
            train_epoch(run, state, steps)
            finish_epoch(run, state)


def train_epoch(run: Run, state: TrainingState, steps: Steps) -> None:
    """The steps of one epoch; after a resumption, the ones that are left of it."""
    settings, position = run.settings, state.position
    freeze_batch_norm(state.model.train())
    steps.start_row()
    for batch in run.batches.of_epoch(position.epoch, first_step=position.step_in_epoch):
        if run.teacher is not None:
            batch = run.teacher.label(batch, lines=state.lines)
        loss = training_step(run.accelerator, state, run.recipe, batch, chunks=settings.gradient_accumulation_steps)
        if not math.isfinite(loss):
            raise MetaQAPError(
                f"The loss or its gradient is not finite at step {position.step}: training diverged. Start again with "
                "a lower `learning_rate`, in another `output_dir`."
            )
        position.next_step()
        steps.add(loss, position)
        if position.step % settings.logging_steps == 0:
            row = steps.row(batch_size=run.recipe.batch_size)
            rate = state.scheduler.get_last_lr()[0]
            run.journal.log(step=position.step, epoch=position.epoch, learning_rate=rate, **row)
        if settings.checkpointing_steps and position.step % settings.checkpointing_steps == 0:
            state.save(run.accelerator, run.folder)


def finish_epoch(run: Run, state: TrainingState) -> None:
    """Validate the average of the weights, and save it for use and the state to resume from."""
    average = state.average.model  # whole on each process, even where the model is sharded
    # While gradient steps do not train the distortion head, it recognises nothing.
    figures = run.validation.figures(average, distortions=run.recipe.trains_distortions)
    is_best = state.position.next_epoch(figures["validation_srocc"])
    run.journal.log(step=state.position.step, epoch=state.position.epoch, **figures, **figures_of(state.lines))
    run.journal.say(f"epoch {state.position.epoch}: {as_text(figures)}")
    for name in ["last", "best"] if is_best else ["last"]:
        save_model(run, average, name)
    state.save(run.accelerator, run.folder)


def refit_heads(run: Run, state: TrainingState) -> dict[str, float | None]:
    """Fit the heads of the best model anew on whole images, and save that as `refitted`.

    Returns:
        `refitted_validation_srocc`.
    """
    recipe = run.recipe
    with failing_together():
        model = state.average.model
        started_from = digest_of_init(run)
        if recipe.epochs:
            best = run.folder.path / "best"
            model, started_from = read_model(best).to(run.accelerator.device), weights_sha256(best)
        if recipe.imagenet_share:
            move_toward_imagenet(model, recipe.imagenet_share)
    with run.journal.doing("Seeing the training images whole ..."):
        features, qualities, sets = of_all_sets(
            [whole_features(run, model, one.training, "labels") for one in run.splits.sets]
        )
    if state.lines is not None and not recipe.epochs:
        start_lines(model, features, qualities, sets, state.lines, penalty=recipe.ridge_penalty)
    qualities, weights = shared_targets(qualities, sets, state.lines, parts=run.batches.parts)
    distorted = None
    if recipe.distorted_weight or recipe.refit_distortion_head:
        with run.journal.doing("Seeing the distorted images whole ..."):
            distorted_features, scores, distortions = whole_features(
                run, model, run.splits.distorted, "labels", "distortion"
            )
        distorted = distorted_features, scores
    fitted = fit_ridge_head(
        model,
        features,
        qualities,
        penalty=recipe.ridge_penalty,
        weights=weights,
        distorted=distorted,
        distorted_weight=recipe.distorted_weight,
    )
    if recipe.kernel_components:
        fitted |= fit_kernel_head(
            model,
            features,
            qualities,
            num_components=recipe.kernel_components,
            num_centers=recipe.kernel_centers,
            gamma=recipe.kernel_gamma,
            penalty=recipe.kernel_penalty,
            seed=recipe.seed,
            weights=weights,
        )
    if recipe.refit_distortion_head:
        fitted |= fit_distortion_head(model, distorted_features, distortions)
    figures = run.validation.figures(model, distortions=True)
    run.journal.log(step=state.position.step, refit_head=True, **fitted, **figures, **figures_of(state.lines))
    run.journal.say(f"refitted head: {as_text(figures)}")
    add_stages(model, heads_stages(recipe, run.splits, started_from=started_from))
    save_model(run, model, "refitted")
    return {"refitted_validation_srocc": number_or_none(figures["validation_srocc"])}


def best_figures(state: TrainingState) -> dict[str, float | None]:
    """`best_validation_srocc`; nothing if no epoch was trained."""
    return {"best_validation_srocc": state.position.best_srocc} if state.position.best_epoch else {}


def save_model(run: Run, model: MetaQAPModel, name: str) -> None:
    """Save a model with its image processor in a folder of the run."""
    path = run.folder.path / name
    with failing_together(), writing(path):
        if run.accelerator.is_main_process:
            # Beside it first: a full disk or a kill leaves the model of the last time.
            pending = path.with_suffix(".tmp")
            shutil.rmtree(pending, ignore_errors=True)
            model.save_pretrained(pending)
            MetaQAPImageProcessor().save_pretrained(pending)
            path.mkdir(exist_ok=True)
            replace_files(pending, path)
            pending.rmdir()


def as_text(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


def number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


__all__ = ["refuse_mistakes", "train"]
