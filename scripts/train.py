"""Train one MetaQAP base learner on human opinion scores.

    accelerate launch scripts/train.py --stage finetune --recipe scripts/recipes/finetune-lite0.yaml \
        --data_dir path/to/BIQ2021 --output_dir runs/lite0

The same script runs, without changes, on one CPU, several CPU processes, one GPU, several GPUs and several machines,
in full or mixed precision: `accelerate launch` (or `accelerate config`) decides. The batch size of the recipe is the
global one, and the loss is a statistic of the global batch in each of these settings.

The run folder holds recipe.yaml, metrics.jsonl, states/ to resume from, and the models best/ (by SROCC on the
validation split) and last/, with `refit_head` also refitted/.
A run that was stopped goes on with `--resume_from_checkpoint latest`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import BatchSampler, DataLoader, Subset
from transformers import get_cosine_schedule_with_warmup
from transformers.utils import logging as transformers_logging

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel, quality_aware_loss
from modeling_metaqap.iqa_datasets import IQADatasetError, TestSplitError, load_training_split
from modeling_metaqap.metrics import plcc, srocc
from modeling_metaqap.training import (
    EpochSampler,
    Recipe,
    RecipeError,
    RunFolder,
    TrainingCrops,
    WholeImages,
    collate_crops,
    fit_ridge_head,
    freeze_batch_norm,
    new_base_learner,
    parameter_groups,
)

console = Console(stderr=True)


class Position:
    """Where a run stands; saved and restored with the rest of its state."""

    def __init__(self) -> None:
        self.epoch, self.step_in_epoch, self.step, self.best_srocc = 0, 0, 0, -1.0

    def state_dict(self) -> dict:
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


def gathered_loss(
    accelerator: Accelerator, logits: torch.Tensor, labels: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """Quality-aware loss over the global batch.

    Each process computes it on everyone's predictions but has a gradient through its own only. Data parallelism then
    averages the processes' gradients, hence the factor for the backward pass.
    """
    predictions = logits.squeeze(1).float()
    if accelerator.num_processes > 1:
        gathered = accelerator.gather(predictions.detach())
        start = accelerator.process_index * len(predictions)
        predictions = torch.cat([gathered[:start], predictions, gathered[start + len(predictions) :]])
        labels = accelerator.gather(labels)
    return quality_aware_loss(
        predictions,
        labels,
        lambda_mse=recipe.loss_mse_weight,
        lambda_srocc=recipe.loss_srocc_weight,
        surrogate=recipe.loss_surrogate,
    )


@torch.inference_mode()
def validate(accelerator: Accelerator, model: MetaQAPModel, loader: DataLoader) -> dict[str, float]:
    """PLCC and SROCC on whole validation images, computed once on everything gathered."""
    model.eval()
    predictions, targets = [], []
    for batch in loader:
        labels = batch.pop("labels")
        batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        with accelerator.autocast():
            scores = model(**batch).logits.squeeze(1)
        gathered = accelerator.gather_for_metrics((scores, labels.to(accelerator.device)))
        predictions.append(gathered[0].cpu())
        targets.append(gathered[1].cpu())
    predicted, quality = torch.cat(predictions).numpy(), torch.cat(targets).numpy()
    return {"validation_plcc": plcc(predicted, quality), "validation_srocc": srocc(predicted, quality)}


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


def training_function(args: argparse.Namespace, recipe: Recipe) -> None:
    accelerator = Accelerator(mixed_precision=args.mixed_precision, cpu=args.cpu)
    set_seed(recipe.seed)
    run = RunFolder(args.output_dir)
    resume = args.resume_from_checkpoint is not None
    if accelerator.is_main_process:
        run.start(recipe, resume=resume)
    accelerator.wait_for_everyone()

    # Data. The training split is read by a function that refuses the test split.
    if recipe.batch_size % accelerator.num_processes:
        raise RecipeError(
            f"`batch_size` {recipe.batch_size} is the global one and must be divisible by the number of processes, "
            f"{accelerator.num_processes}."
        )
    load = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    with accelerator.main_process_first():
        training_split = load_training_split(recipe.dataset, split=recipe.train_split, **load)
        validation_split = load_training_split(recipe.dataset, split=recipe.validation_split, **load)
    if len(training_split) < recipe.batch_size:
        raise RecipeError(
            f"The split {recipe.train_split!r} has {len(training_split)} images, fewer than one batch of "
            f"{recipe.batch_size}."
        )
    crops = TrainingCrops(training_split, crop_size=recipe.crop_size, seed=recipe.seed)
    sampler = EpochSampler(len(crops), seed=recipe.seed)
    workers = {"num_workers": args.num_workers, "persistent_workers": False}
    training_loader = DataLoader(
        crops, batch_sampler=BatchSampler(sampler, recipe.batch_size, drop_last=True), **workers
    )
    local_batch = slice(
        accelerator.process_index * recipe.batch_size // accelerator.num_processes,
        (accelerator.process_index + 1) * recipe.batch_size // accelerator.num_processes,
    )
    image_processor = MetaQAPImageProcessor()
    validation_loader = accelerator.prepare(
        DataLoader(WholeImages(validation_split, image_processor), batch_size=8, collate_fn=collate_crops, **workers)
    )

    # Model: a trained one, or an ImageNet backbone with its head started from ridge regression on its features.
    model = new_base_learner(recipe, init=args.init)
    if not resume and args.init is None and recipe.epochs > 0:
        head = Subset(crops, [(0, index) for index in range(len(crops))])  # type: ignore[arg-type]
        with console.status("Starting the head from ridge regression ..."):
            with accelerator.autocast():
                fitted = fit_ridge_head(
                    model, DataLoader(head, batch_size=recipe.batch_size, **workers), device=accelerator.device
                )
        if accelerator.is_main_process:
            run.log(step=0, **fitted)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe))
    steps_per_epoch = len(crops) // recipe.batch_size
    total_steps = recipe.epochs * steps_per_epoch
    scheduler = get_cosine_schedule_with_warmup(optimizer, int(recipe.warmup_fraction * total_steps), total_steps)
    model.to(accelerator.device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    position = Position()
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler, average, position)

    if resume:
        latest = args.resume_from_checkpoint == "latest"
        state = run.latest_state() if latest else Path(args.resume_from_checkpoint)
        if state is None or not state.is_dir():
            raise RecipeError(f"There is no state to resume from in {run.states if latest else state}.")
        accelerator.load_state(str(state))
        if accelerator.is_main_process:
            run.forget_after(position.step)
        console.print(f"Resumed at step {position.step} of {total_steps}.")

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
        while position.epoch < recipe.epochs:
            model.train()
            freeze_batch_norm(model)
            sampler.set_epoch(position.epoch, skip=position.step_in_epoch * recipe.batch_size)
            for batch in training_loader:
                # Every process draws the same global batch and keeps its own part of it.
                pixels = batch["pixel_values"][local_batch].to(accelerator.device, memory_format=torch.channels_last)
                labels = batch["labels"][local_batch].to(accelerator.device)
                with accelerator.autocast():
                    logits = model(pixel_values=pixels.float() / 255).logits
                loss = gathered_loss(accelerator, logits, labels, recipe)
                if not torch.isfinite(loss):
                    raise RecipeError(
                        f"The loss is not finite at step {position.step}: training diverged. Lower `learning_rate` "
                        "and resume or start again."
                    )
                accelerator.backward(loss * accelerator.num_processes)
                accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                average.update_parameters(accelerator.unwrap_model(model))
                position.step += 1
                position.step_in_epoch += 1
                losses.append(loss.item())
                progress.update(task, advance=1, epoch=position.epoch, loss=f"{losses[-1]:.4f}")
                if position.step % args.logging_steps == 0 and accelerator.is_main_process:
                    rate = len(losses) * recipe.batch_size / (time.perf_counter() - started)
                    run.log(
                        step=position.step,
                        epoch=position.epoch,
                        loss=sum(losses) / len(losses),
                        learning_rate=scheduler.get_last_lr()[0],
                        images_per_second=round(rate, 2),
                    )
                    losses, started = [], time.perf_counter()
                if args.checkpointing_steps and position.step % args.checkpointing_steps == 0:
                    save_state(accelerator, run, position)

            ema: MetaQAPModel = average.module if recipe.ema_decay else accelerator.unwrap_model(model)
            figures = validate(accelerator, ema, validation_loader)
            position.epoch += 1
            position.step_in_epoch = 0
            improved = figures["validation_srocc"] > position.best_srocc
            position.best_srocc = max(position.best_srocc, figures["validation_srocc"])
            if accelerator.is_main_process:
                run.log(step=position.step, epoch=position.epoch, **figures)
                shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
                console.print(f"epoch {position.epoch}: {shown}")
                for name in ["last", "best"] if improved else ["last"]:
                    save_model(ema, run.path / name)
            save_state(accelerator, run, position)
            losses, started = [], time.perf_counter()

    if recipe.refit_head and accelerator.is_main_process:
        # One process is enough: the features are computed once and the regression is solved in closed form.
        final = MetaQAPModel.from_pretrained(run.path / "best") if recipe.epochs else accelerator.unwrap_model(model)
        whole = DataLoader(
            WholeImages(training_split, image_processor), batch_size=8, collate_fn=collate_crops, **workers
        )
        with console.status("Fitting the head on whole images ..."), accelerator.autocast():
            fitted = fit_ridge_head(final, whole, device=accelerator.device)
        figures = validate(accelerator, final, validation_loader)
        run.log(step=position.step, refit_head=True, **fitted, **figures)
        console.print("refitted head: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        save_model(final, run.path / "refitted")

    if accelerator.is_main_process:
        print(json.dumps({"output_dir": str(run.path), "best_validation_srocc": position.best_srocc}))
    accelerator.end_training()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["finetune"], required=True, help="what to train on")
    parser.add_argument("--recipe", required=True, help="YAML file with every setting of the run")
    parser.add_argument("--output_dir", required=True, help="the run folder")
    parser.add_argument("--init", help="start from this trained base learner instead of ImageNet weights")
    parser.add_argument("--data_dir", help="unpacked data set; downloaded where the publisher allows it if left out")
    parser.add_argument("--cache_dir", help="where the prepared data set is kept")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default=None)
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that read images")
    parser.add_argument("--logging_steps", type=int, default=20)
    parser.add_argument("--checkpointing_steps", type=int, default=100, help="0: only at the end of each epoch")
    parser.add_argument("--resume_from_checkpoint", metavar="latest|STATE", help="go on from a state of this run")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    try:
        training_function(args, Recipe.load(args.recipe, seed=args.seed, epochs=args.epochs))
    except (RecipeError, TestSplitError, IQADatasetError) as error:
        console.print(f"[bold red]Error:[/] {error}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
