"""Choose the learners that serve best where fewer than all are wanted, and write them into the checkpoint.

    python scripts/choose_learners.py --checkpoint modeling_metaqap/checkpoints/metaqap-lite --dataset biq2021 \
        --data_dir path/to/BIQ2021

For each number of learners every set of them is fused by a regression on images that no learner was trained on, and
the one with the highest SROCC on images that its regression has not seen is kept. `metaqap score --learners N` takes
it. The choice goes into the checkpoint's config.json, and with its figures and multiply-adds into `--output`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging as transformers_logging

from modeling_metaqap import MetaQAPConfig, Scorer
from modeling_metaqap.checkpoint_reading import read_model
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.unseen_split import add_split_options, load_unseen_split
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.tables import TextTable
from modeling_metaqap.fusion.choosing import choose_learners
from modeling_metaqap.inference.predicting import predict
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.memory import keep_freed_memory

OUTPUT = Path(__file__).parents[1] / "studies" / "results" / "learners.json"

console = Console()


def multiply_adds(learner: torch.nn.Module, side: int) -> int:
    """Of one crop."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        learner(torch.zeros(1, 3, side, side), torch.ones(1, 1))
    return counter.get_total_flops() // 2


def run(args: argparse.Namespace) -> None:
    scorer = Scorer(args.checkpoint, engine="auto")
    config = scorer.engine.config
    dataset = load_unseen_split(args, config)
    predictions = predict(scorer, dataset)
    targets = np.array(dataset["quality"])
    coverage = config.interval_coverage
    chosen = choose_learners(
        predictions.base_scores, targets, predictions.distances, shrinkage=args.shrinkage, coverage=coverage
    )
    side = scorer.image_processor.crop_size["height"]
    model = read_model(args.checkpoint)
    macs = [multiply_adds(learner, side) for learner in model.base_learners]
    curve: list[dict[str, Any]] = [
        {
            **one,
            "names": [config.base_learners[index]["name"] for index in one["learners"]],
            "macs": sum(macs[index] for index in one["learners"]),
        }
        for one in chosen
    ]
    record = {
        "checkpoint": args.checkpoint.name,
        "weights_sha256": weights_sha256(args.checkpoint),
        "dataset": args.dataset,
        "split": args.split,
        "n": len(dataset),
        "shrinkage": args.shrinkage,
        "curve": curve,
    }
    write_atomically(args.output, (json.dumps(record, indent=1) + "\n").encode())
    keys = ("learners", "weights", "intercept", "interval_radius", "interval_scale", "familiar_distances")
    file = args.checkpoint / "config.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    # All of them have the meta-learner of the checkpoint itself.
    saved["learner_subsets"] = [{key: one[key] for key in keys} for one in chosen[:-1]]
    MetaQAPConfig.from_dict(saved)
    write_atomically(file, (json.dumps(saved, indent=2, sort_keys=True) + "\n").encode())
    cells = [
        [
            str(len(one["names"])),
            ", ".join(one["names"]),
            f"{one['plcc']:.4f}",
            f"{one['srocc']:.4f}",
            f"{one['interval_radius']:.3f}",
            f"{one['macs'] / 1e9:.2f}",
        ]
        for one in curve
    ]
    headings = ["learners", "names", "PLCC", "SROCC", "interval +-", "G multiply-adds"]
    console.print(TextTable(headings, cells).rich())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser)
    parser.add_argument(
        "--shrinkage", type=float, default=0.0, help="part of the way to equal weights, as the checkpoint was fused"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    with exit_with_sentence("choose_learners"):
        run(args)


if __name__ == "__main__":
    main()
