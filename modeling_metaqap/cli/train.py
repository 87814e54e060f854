r"""Train one MetaQAP base learner: on synthetic distortions, then on human opinion scores.

    metaqap train --stage finetune --recipe metaqap-lite/mobilenetv2-1 --data-dir path/to/BIQ2021 \
        --output-dir runs/mobilenetv2-1

    metaqap train --stage pretrain --recipe pretrain-mobilenetv2 --distorted-dir data/distorted/train \
        --distorted-validation-dir data/distorted/validation --output-dir runs/mobilenetv2-pretrained

    metaqap train --stage finetune --recipe finetune-pretrained-mobilenetv2 --init runs/mobilenetv2-pretrained/best \
        --data-dir path/to/BIQ2021 --distorted-dir data/distorted/train --output-dir runs/mobilenetv2

A recipe is a YAML file, or a name that `metaqap recipes` lists. Pretraining learns the pseudo opinion score and the
distortion of images that `metaqap distort-set` has made. Fine-tuning learns human opinion scores, from `--init` or
from ImageNet weights. With `synthetic_batch_size` in the recipe each of its steps adds a few distorted images, so that
the learner still recognises distortions afterwards. With `distorted_weight` such images weigh in when the quality head
is fitted at the end. Distorted images of photographs that are validated on are left out; the file names of the
photographs tell which ones these are, so keep the names.

The same run works, without changes, on one CPU, several CPU processes, one GPU, several GPUs and several machines,
with DDP or FSDP, in full or mixed precision: `--num-processes` and `--accelerate` start it with accelerate's launcher,
as `accelerate launch -m modeling_metaqap.training` does. The batch size of the recipe is the global one, and the loss
is a statistic of the global batch in each of these settings. Where a batch does not fit in memory,
`--gradient-accumulation-steps` computes the same step in chunks, at the price of a second forward pass.

The run folder holds recipe.yaml, versions.json, metrics.jsonl, curves.png, states/ to resume from, and the models
best/ (by SROCC on the validation split) and last/, with `refit_head` also refitted/.
A run that was stopped goes on with `--resume-from-checkpoint latest`, and one that has not begun begins with it.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import MetaQAPError
from ..training import recipe_files
from ..training.arguments import add_options, recipe_and_settings
from .program import AddOption, Program


def _options(add: AddOption) -> None:
    add_options(add)
    add("--num_processes", type=int, metavar="N", help="start so many processes: one for each GPU, or on the CPU")
    add(
        "--accelerate",
        metavar="FILE",
        help="start processes by these settings of accelerate: a file, or a name under accelerate/ of `metaqap "
        "recipes`, such as many_gpus or fsdp",
    )


def _run(args: argparse.Namespace) -> None:
    values = vars(args)
    processes, settings_file = values.pop("num_processes"), values.pop("accelerate")
    if processes is not None and processes < 1:
        raise MetaQAPError(f"`num_processes` must be at least 1, got {processes}.")
    run = recipe_and_settings(dict(values))
    if settings_file is None and processes in (None, 1):
        from ..training.__main__ import train_and_report

        train_and_report(*run)
        return
    launch = launch_options(values, processes, settings_file)
    # Only now, so that a wrong option is answered at once.
    from ..training.launching import run_processes
    from ..training.loop import refuse_mistakes

    refuse_mistakes(*run)
    if status := run_processes(values, launch=launch):
        sys.exit(status)


def launch_options(values: Mapping[str, Any], processes: int | None, settings_file: str | None) -> list[str]:
    """The options of `accelerate launch` for a run in several processes.

    Args:
        values: options of the run.
        processes: how many; None for what the file says.
        settings_file: of accelerate; default one for this machine.

    Raises:
        MetaQAPError: if there is no such file.
    """
    if settings_file is None:
        import torch

        settings_file = "two_cpu_processes" if values["cpu"] or not torch.cuda.is_available() else "many_gpus"
    file = recipe_files.find(settings_file)
    if not file.is_file():
        file = recipe_files.find(f"{recipe_files.ACCELERATE}/{settings_file}")
    if not file.is_file():
        raise MetaQAPError(f"There are no settings {settings_file} of accelerate; `metaqap recipes` lists those here.")
    number = [] if processes is None else ["--num_processes", str(processes)]
    return ["--config_file", str(file), *number]


PROGRAM = Program(command="train", script="train", description=__doc__, options=_options, run=_run)
