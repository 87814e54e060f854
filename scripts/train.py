"""Train one MetaQAP base learner: on synthetic distortions, then on human opinion scores.

    accelerate launch scripts/train.py --stage pretrain --recipe scripts/recipes/pretrain-mobilenetv2.yaml \
        --distorted_dir data/distorted/train --distorted_validation_dir data/distorted/validation \
        --output_dir runs/mobilenetv2-pretrained

    accelerate launch scripts/train.py --stage finetune --recipe scripts/recipes/finetune-pretrained-mobilenetv2.yaml \
        --init runs/mobilenetv2-pretrained/best --data_dir path/to/BIQ2021 --distorted_dir data/distorted/train \
        --output_dir runs/mobilenetv2

Pretraining learns the pseudo opinion score and the distortion of images that scripts/distort.py has made. Fine-tuning
learns human opinion scores, from `--init` or from ImageNet weights; with `synthetic_batch_size` in the recipe each of
its steps adds a few distorted images, so that the learner still names distortions afterwards, and with
`distorted_weight` such images weigh in when the quality head is fitted at the end. Distorted images of photographs
that are validated on are left out; they are told by the ids of the photographs, so keep the files' names.

The same script runs, without changes, on one CPU, several CPU processes, one GPU, several GPUs and several machines,
with DDP or FSDP, in full or mixed precision: `accelerate launch` decides (scripts/recipes/accelerate/). The batch size
of the recipe is the global one, and the loss is a statistic of the global batch in each of these settings. Where a
batch does not fit in memory, `--gradient_accumulation_steps` computes the same step in parts, at the price of a second
forward pass.

The run folder holds recipe.yaml, versions.json, metrics.jsonl, curves.png, states/ to resume from, and the models
best/ (by SROCC on the validation split) and last/, with `refit_head` also refitted/.
A run that was stopped goes on with `--resume_from_checkpoint latest`, and one that has not begun begins with it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import DistributedType, set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import BatchSampler, DataLoader, Sampler, Subset
from transformers.utils import logging as transformers_logging

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel
from modeling_metaqap.data.accelerate_state import without_accelerator
from modeling_metaqap.data.distorted.loading import load_distorted, refuse_shared, rows_without
from modeling_metaqap.errors import DataError, MetaQAPError, TestSplitError
from modeling_metaqap.evaluation.metrics import plcc, srocc
from modeling_metaqap.training.heads import fit_distortion_head, fit_kernel_head, fit_ridge_head, pooled_features
from modeling_metaqap.training.images import TrainingCrops, collate_crops, load_rated, whole_images
from modeling_metaqap.training.learner import freeze_batch_norm, move_toward_imagenet, new_base_learner
from modeling_metaqap.training.optimizer import make_optimizer
from modeling_metaqap.training.provenance import training_summary
from modeling_metaqap.training.recipe import STAGES, Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.samplers import EndlessSampler, EpochSampler
from modeling_metaqap.training.step import training_step

console = Console(stderr=True)

#: Options of the command line that must not be smaller.
LEAST = {"gradient_accumulation_steps": 1, "logging_steps": 1, "checkpointing_steps": 0, "num_workers": 0}


class Position:
    """Where a run stands; saved and restored with the rest of its state."""

    def __init__(self) -> None:
        self.epoch, self.step_in_epoch, self.step = 0, 0, 0
        self.best_srocc, self.best_epoch = -1.0, 0

    def is_over(self, patience: int | None) -> bool:
        """Whether there was no better epoch among the last `patience` ones."""
        return patience is not None and self.epoch - self.best_epoch >= patience

    def state_dict(self) -> dict:
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


@torch.inference_mode()
def validate(accelerator: Accelerator, model: MetaQAPModel, loader: DataLoader) -> dict[str, Tensor]:
    """Scores and labels of whole validation images, gathered from all processes, on the CPU.

    Where the images are distorted ones and the model has a head for that, also the `distortion` named, and the true
    one as `true_distortion`.
    """
    model.eval()
    batches = []
    for batch in loader:
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with accelerator.autocast():
            output = model(pixel_values=batch["pixel_values"], crop_weights=batch["crop_weights"])
        told = {"quality": output.logits.squeeze(1), "true_quality": batch["labels"]}
        if "distortion" in batch and output.distortion_logits is not None:
            told |= {"distortion": output.distortion_logits.argmax(dim=1), "true_distortion": batch["distortion"]}
            told |= {"level": batch["level"]}
        batches.append({name: tensor.cpu() for name, tensor in accelerator.gather_for_metrics(told).items()})
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def validation_figures(
    accelerator: Accelerator, model: MetaQAPModel, loader: DataLoader, distorted: DataLoader | None
) -> dict[str, float]:
    """PLCC and SROCC, computed once on all validation images, and of the distorted ones the share named rightly.

    Where these are others, also the SROCC with their pseudo opinion scores. Level 1 is left out of the share: it is
    hardly visible.
    """
    told = validate(accelerator, model, loader)
    predicted, quality = told["quality"].numpy(), told["true_quality"].numpy()
    figures = {"validation_plcc": plcc(predicted, quality), "validation_srocc": srocc(predicted, quality)}
    if distorted is not None:
        named = told
        if distorted is not loader:
            named = validate(accelerator, model, distorted)
            scores = named["quality"].numpy(), named["true_quality"].numpy()
            figures["validation_distorted_srocc"] = srocc(*scores)
        if "distortion" in named:
            right = named["distortion"] == named["true_distortion"]
            figures["validation_distortion_accuracy"] = right[named["level"] > 1].float().mean().item()
    return figures


def save_model(model: MetaQAPModel, folder: Path) -> None:
    model.save_pretrained(folder)
    MetaQAPImageProcessor().save_pretrained(folder)


def save_state(accelerator: Accelerator, run: RunFolder, position: Position) -> None:
    pending = run.pending_state(position.step)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(pending), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.commit_state(pending)


def load_data(
    args: argparse.Namespace, recipe: Recipe, accelerator: Accelerator
) -> tuple[datasets.Dataset, datasets.Dataset, datasets.Dataset | None, datasets.Dataset | None]:
    """The images to learn quality from, to validate it on, to learn distortions from, and to validate those on."""

    def distorted(directory: str | None, *, needed: str) -> datasets.Dataset:
        if directory is None:
            raise MetaQAPError(f"{needed}: name a data set made by scripts/distort.py.")
        return load_distorted(directory, cache_dir=args.cache_dir)

    with accelerator.main_process_first():
        synthetic = synthetic_validation = None
        if recipe.needs_distorted:
            needed = "The recipe learns from distorted images and needs --distorted_dir"
            synthetic = distorted(args.distorted_dir, needed=needed)
            if args.distorted_validation_dir is not None or recipe.stage == "pretrain":
                needed = "Pretraining needs --distorted_validation_dir"
                synthetic_validation = distorted(args.distorted_validation_dir, needed=needed)
                refuse_shared(synthetic, synthetic_validation)
        if recipe.stage == "pretrain":
            assert synthetic is not None and synthetic_validation is not None
            return synthetic, synthetic_validation, synthetic, synthetic_validation
        try:
            training, validation = load_rated(recipe, data_dir=args.data_dir, cache_dir=args.cache_dir)
        except ValueError as error:
            raise MetaQAPError(str(error)) from error
        # Nothing of a photograph to be validated on may be known, in whatever distortion.
        if synthetic is not None:
            synthetic = synthetic.select(rows_without(synthetic, validation["image_id"]))
        if synthetic_validation is not None:
            synthetic_validation = synthetic_validation.select(
                rows_without(synthetic_validation, training["image_id"])
            )
    return training, validation, synthetic, synthetic_validation


def training_function(args: argparse.Namespace, recipe: Recipe) -> None:
    if args.with_tracking and find_spec(args.with_tracking) is None:
        raise MetaQAPError(f"--with_tracking {args.with_tracking} needs `pip install {args.with_tracking}`.")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        cpu=args.cpu or without_accelerator(),
        log_with=args.with_tracking,
        project_dir=args.output_dir,
    )
    set_seed(recipe.seed)
    run = RunFolder(args.output_dir)
    state = run.state_to_resume(args.resume_from_checkpoint)
    for name in ("batch_size", "synthetic_batch_size"):
        if getattr(recipe, name) % accelerator.num_processes:
            raise MetaQAPError(
                f"`{name}` {getattr(recipe, name)} is the global one and must be divisible by the number of "
                f"processes, {accelerator.num_processes}."
            )

    # Data.
    training_split, validation_split, synthetic, synthetic_validation = load_data(args, recipe, accelerator)
    if len(training_split) < recipe.batch_size:
        raise MetaQAPError(
            f"There are {len(training_split)} training images, fewer than one batch of {recipe.batch_size}."
        )
    workers = {"num_workers": args.num_workers, "persistent_workers": False}

    def shared(crops: TrainingCrops, order: Sampler, batch_size: int) -> DataLoader:
        """Every process draws the same global batches and reads its own part of each."""
        batches = BatchSamplerShard(
            BatchSampler(order, batch_size, drop_last=True),
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            split_batches=True,
        )
        return DataLoader(crops, batch_sampler=batches, pin_memory=accelerator.device.type == "cuda", **workers)

    def to_device(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    crops = TrainingCrops(training_split, crop_size=recipe.crop_size, seed=recipe.seed)
    sampler = EpochSampler(len(crops), seed=recipe.seed)
    training_loader = shared(crops, sampler, recipe.batch_size)
    stream: DataLoader | None = None
    if recipe.synthetic_batch_size:
        stream_sampler = EndlessSampler(len(synthetic), seed=recipe.seed)
        synthetic_crops = TrainingCrops(synthetic, crop_size=recipe.crop_size, seed=recipe.seed)
        stream = shared(synthetic_crops, stream_sampler, recipe.synthetic_batch_size)

    def whole(dataset: datasets.Dataset) -> DataLoader:
        images = whole_images(dataset, distorted_crop_size=recipe.crop_size)
        return accelerator.prepare(DataLoader(images, batch_size=8, collate_fn=collate_crops, **workers))

    validation_loader = whole(validation_split)
    distorted_loader = validation_loader
    if synthetic_validation is not validation_split:
        distorted_loader = None if synthetic_validation is None else whole(synthetic_validation)
    # While gradient steps do not train the distortion head, what it says means nothing.
    meaningful_loader = distorted_loader if recipe.trains_distortions else None

    # Model: a trained one or an ImageNet backbone, with its head started from ridge regression on its features.
    model = new_base_learner(recipe, init=args.init)
    model.config.training_summary = training_summary(recipe, training_split)
    model.to(accelerator.device)
    if accelerator.is_main_process:
        run.start(recipe, resume=args.resume_from_checkpoint is not None, init=args.init)
        if state is None:
            run.forget_after(-1)
    accelerator.wait_for_everyone()
    if args.with_tracking:
        settings = {name: str(value) for name, value in asdict(recipe).items()}
        accelerator.init_trackers("metaqap", config=settings)

    def log(*, step: int, **values: Any) -> None:
        run.log(step=step, **values)
        accelerator.log({name: value for name, value in values.items() if name != "refit_head"}, step=step)

    def features_of(model: MetaQAPModel, loader: DataLoader, doing: str, *targets: str) -> tuple[Tensor, ...]:
        with console.status(doing), accelerator.autocast():
            return pooled_features(
                model, loader, device=accelerator.device, gather=accelerator.gather_for_metrics, targets=targets
            )

    if state is None and recipe.epochs > 0:
        head = Subset(crops, [(0, index) for index in range(len(crops))])  # type: ignore[arg-type]
        loader = accelerator.prepare(DataLoader(head, batch_size=recipe.batch_size, **workers))
        doing = "Starting the head from ridge regression ..."
        features, qualities = features_of(model, loader, doing, "labels")
        fitted = fit_ridge_head(model, features, qualities, penalty=recipe.ridge_penalty)
        if accelerator.is_main_process:
            log(step=0, processes=accelerator.num_processes, **fitted)
    steps_per_epoch = len(crops) // recipe.batch_size
    total_steps = recipe.epochs * steps_per_epoch
    optimizer, scheduler = make_optimizer(model, recipe, steps_per_epoch=steps_per_epoch)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    position = Position()
    if accelerator.distributed_type is DistributedType.FSDP:
        model.to(memory_format=torch.contiguous_format)  # the only one that it can cut up
        # Mixed precision is autocast's, as without it; otherwise BatchNorm and the heads would be rounded as well.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler, average, position)

    if state is not None:
        if (state / "model.safetensors").exists() == (accelerator.distributed_type is DistributedType.FSDP):
            raise MetaQAPError("FSDP was on when the run was begun and is off now, or the other way round.")
        accelerator.load_state(str(state))
        console.print(f"Resumed at step {position.step} of {total_steps}.")
        if accelerator.is_main_process:
            run.forget_after(position.step)

    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
        console=console,
        disable=not accelerator.is_main_process,
    )
    with progress:
        task = progress.add_task("train", total=total_steps, completed=position.step, epoch=position.epoch, loss="-")
        losses, started = [], time.perf_counter()
        while position.epoch < recipe.epochs and not position.is_over(recipe.patience):
            model.train()
            freeze_batch_norm(model)
            sampler.set_epoch(position.epoch, skip=position.step_in_epoch * recipe.batch_size)
            synthetic_batches: Iterator[dict[str, Any]] = repeat({})
            if stream is not None:
                stream_sampler.start = position.step * recipe.synthetic_batch_size
                synthetic_batches = iter(stream)
            for batch, synthetic_batch in zip(training_loader, synthetic_batches, strict=False):
                batch = to_device(batch)
                pixels, labels, distortions = batch["pixel_values"], batch["labels"], batch.get("distortion")
                if synthetic_batch:
                    synthetic_batch = to_device(synthetic_batch)
                    pixels = torch.cat([pixels, synthetic_batch["pixel_values"]])
                    distortions = synthetic_batch["distortion"]
                loss = training_step(
                    accelerator,
                    model,
                    optimizer,
                    scheduler,
                    average,
                    recipe,
                    (pixels, labels, distortions),
                    parts=args.gradient_accumulation_steps,
                )
                if not torch.isfinite(loss):
                    raise MetaQAPError(
                        f"The loss or its gradient is not finite at step {position.step}: training diverged. Start "
                        "again with a lower `learning_rate`, in another --output_dir."
                    )
                position.step += 1
                position.step_in_epoch += 1
                losses.append(loss.item())
                progress.update(task, advance=1, epoch=position.epoch, loss=f"{losses[-1]:.4f}")
                if position.step % args.logging_steps == 0 and accelerator.is_main_process:
                    rate = len(losses) * recipe.batch_size / (time.perf_counter() - started)
                    log(
                        step=position.step,
                        epoch=position.epoch,
                        loss=sum(losses) / len(losses),
                        learning_rate=scheduler.get_last_lr()[0],
                        images_per_second=round(rate, 2),
                    )
                    losses, started = [], time.perf_counter()
                if args.checkpointing_steps and position.step % args.checkpointing_steps == 0:
                    save_state(accelerator, run, position)

            # Without decay it is the model itself, and whole on each process even where that one is sharded.
            ema: MetaQAPModel = average.module
            figures = validation_figures(accelerator, ema, validation_loader, meaningful_loader)
            position.epoch += 1
            position.step_in_epoch = 0
            # Scores that are all the same have no SROCC (NaN); there is a best epoch even so.
            reached = -1.0 if math.isnan(figures["validation_srocc"]) else figures["validation_srocc"]
            improved = position.best_epoch == 0 or reached > position.best_srocc
            if improved:
                position.best_srocc, position.best_epoch = reached, position.epoch
            if accelerator.is_main_process:
                log(step=position.step, epoch=position.epoch, **figures)
                shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
                console.print(f"epoch {position.epoch}: {shown}")
                for name in ["last", "best"] if improved else ["last"]:
                    save_model(ema, run.path / name)
            save_state(accelerator, run, position)
            losses, started = [], time.perf_counter()

    if recipe.refit_head:
        final = average.module
        if recipe.epochs:
            final = MetaQAPModel.from_pretrained(run.path / "best").to(accelerator.device)
        if recipe.imagenet_share:
            move_toward_imagenet(final, recipe.imagenet_share)
        features, qualities = features_of(
            final, whole(training_split), "Seeing the training images whole ...", "labels"
        )
        distorted = None
        if recipe.distorted_weight or recipe.refit_distortion_head:
            doing = "Seeing the distorted images whole ..."
            distorted_features, scores, named = features_of(final, whole(synthetic), doing, "labels", "distortion")
            distorted = distorted_features, scores
        fitted = fit_ridge_head(
            final,
            features,
            qualities,
            penalty=recipe.ridge_penalty,
            distorted=distorted,
            distorted_weight=recipe.distorted_weight,
        )
        if recipe.kernel_components:
            fitted |= fit_kernel_head(
                final,
                features,
                qualities,
                num_components=recipe.kernel_components,
                num_centers=recipe.kernel_centers,
                gamma=recipe.kernel_gamma,
                penalty=recipe.kernel_penalty,
                seed=recipe.seed,
            )
        if recipe.refit_distortion_head:
            fitted |= fit_distortion_head(final, distorted_features, named)
        figures = validation_figures(accelerator, final, validation_loader, distorted_loader)
        if accelerator.is_main_process:
            log(step=position.step, refit_head=True, **fitted, **figures)
            console.print("refitted head: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
            save_model(final, run.path / "refitted")

    if accelerator.is_main_process:
        run.plot_curves()
        print(json.dumps({"output_dir": str(run.path), "best_validation_srocc": position.best_srocc}))
    accelerator.end_training()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, required=True, help="what to learn")
    parser.add_argument("--recipe", required=True, help="YAML file with every setting of the run")
    parser.add_argument("--output_dir", required=True, help="the run folder")
    parser.add_argument("--init", help="start from this trained base learner instead of ImageNet weights")
    parser.add_argument("--data_dir", help="unpacked data set; downloaded where the publisher allows it if left out")
    parser.add_argument("--distorted_dir", help="distorted images to learn from, made by scripts/distort.py")
    parser.add_argument("--distorted_validation_dir", help="likewise, of other photographs, to validate on")
    parser.add_argument("--cache_dir", help="where the prepared data set is kept")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--hold_out", help="instead of the recipe's, such as 'fold 1 of 5'")
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default=None)
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that read images")
    parser.add_argument(
        "--gradient_accumulation_steps", type=int, default=1, help="compute each step in so many parts to save memory"
    )
    parser.add_argument(
        "--with_tracking", choices=["tensorboard", "trackio"], help="also log to this, on this machine"
    )
    parser.add_argument("--logging_steps", type=int, default=20)
    parser.add_argument("--checkpointing_steps", type=int, default=100, help="0: only at the end of each epoch")
    parser.add_argument("--resume_from_checkpoint", metavar="latest|STATE", help="go on from a state of this run")
    args = parser.parse_args()
    for name, least in LEAST.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    transformers_logging.disable_progress_bar()
    try:
        recipe = Recipe.load(args.recipe, stage=args.stage, seed=args.seed, epochs=args.epochs, hold_out=args.hold_out)
        training_function(args, recipe)
    except (MetaQAPError, TestSplitError, DataError, OSError) as error:
        console.print(f"Error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
