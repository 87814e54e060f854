"""The images that a checkpoint's numbers are chosen on: a split that no learner of it was trained on."""

import argparse
from pathlib import Path

import datasets

from .. import DEFAULT_CHECKPOINT
from ..configuration_metaqap import MetaQAPConfig
from ..lineage import learner_stages
from .iqa_datasets import load_training_split
from .seen import refuse_seen


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint`, `--dataset`, `--split`, `--data_dir` and `--cache_dir`."""
    add = parser.add_argument
    add("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    add("--dataset", required=True)
    add("--split", default="validation", help="images that no learner was trained on (%(default)s)")
    add("--data_dir")
    add("--cache_dir")


def load_unseen_split(args: argparse.Namespace, config: MetaQAPConfig) -> datasets.Dataset:
    """The split that these options name.

    Args:
        args: with the options of `add_split_options`.
        config: of the checkpoint.

    Raises:
        MetaQAPError: if a learner was trained on some of the images.
        DataError: see `load_training_split`.
    """
    where = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    dataset = load_training_split(args.dataset, split=args.split, **where)
    stages = [stage for learner in learner_stages(config) for stage in learner]
    refuse_seen(stages, dataset, weights=str(args.checkpoint), dataset=args.dataset, **where)
    return dataset


__all__ = ["add_split_options", "load_unseen_split"]
