"""Measure checkpoints on image quality data sets: PLCC, SROCC, KROCC and RMSE with 95 % bootstrap intervals.

    python scripts/evaluate.py --dataset biq2021 --split test --data_dir path/to/BIQ2021 --output results.json

Scores are made exactly as `metaqap score` makes them. The result names what it is about: split, number of images,
hashes of the weights and of the list of images, seed and software versions. This is the only program that reads a
test split; use it once a checkpoint is final.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.evaluation import (
    EvaluationError,
    image_list_sha256,
    predict,
    software_versions,
    weights_sha256,
)
from modeling_metaqap.iqa_datasets import IQADatasetError, load_iqa_dataset
from modeling_metaqap.metrics import METRICS, evaluate_scores
from modeling_metaqap.scoring import Scorer, ScoringError

console = Console(width=None if sys.stdout.isatty() else 140)


def evaluate_one(args: argparse.Namespace, checkpoint: str, dataset_name: str) -> dict[str, Any]:
    dataset = load_iqa_dataset(dataset_name, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    scorer = Scorer(checkpoint, device=args.device, batch_size=args.batch_size)
    with console.status(f"Scoring the {len(dataset)} images of {dataset_name} {args.split} ..."):
        predictions = predict(scorer, dataset)
    return {
        "checkpoint": Path(checkpoint).name,
        "weights_sha256": weights_sha256(checkpoint),
        "dataset": dataset_name,
        "split": args.split,
        "images_sha256": image_list_sha256(dataset),
        **evaluate_scores(predictions, dataset["quality"], seed=args.seed, n_bootstrap=args.bootstrap),
    }


def print_results(results: list[dict[str, Any]]) -> None:
    table = Table()
    for heading in ("checkpoint", "data set", "split", "n", *METRICS):
        table.add_column(heading, justify="left" if heading in ("checkpoint", "data set", "split") else "right")
    for result in results:
        figures = []
        for name in METRICS:
            figure = result[name]
            interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
            figures.append(f"{figure['value']:.4f}{interval}")
        table.add_row(result["checkpoint"], result["dataset"], result["split"], str(result["n"]), *figures)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", nargs="+", default=[str(DEFAULT_CHECKPOINT)], help="folders or Hub ids")
    parser.add_argument("--dataset", nargs="+", required=True, help="such as biq2021")
    parser.add_argument("--split", default="test")
    parser.add_argument("--data_dir", help="unpacked data set; downloaded where the publisher allows it if left out")
    parser.add_argument("--cache_dir", help="where the prepared data set is kept")
    parser.add_argument("--output", type=Path, help="write the results here as JSON")
    parser.add_argument("--device")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    try:
        results = [
            evaluate_one(args, checkpoint, dataset) for checkpoint in args.checkpoint for dataset in args.dataset
        ]
        if args.output is not None:
            record = {"software": software_versions(), "results": results}
            args.output.write_text(json.dumps(record, indent=2) + "\n")
    except (EvaluationError, IQADatasetError, ScoringError, ValueError, OSError) as error:
        Console(stderr=True).print(f"evaluate: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
    print_results(results)


if __name__ == "__main__":
    main()
