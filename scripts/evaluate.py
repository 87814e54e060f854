"""Measure checkpoints and baselines on data sets: PLCC, SROCC, KROCC and RMSE with 95 % bootstrap intervals.

    python scripts/evaluate.py --dataset biq2021 --data_dir path/to/BIQ2021 --output_dir runs/evaluation

    # Every checkpoint on every data set, with two processes; the figures are the same with any number of them.
    accelerate launch --multi_gpu --num_processes 2 scripts/evaluate.py \
        --checkpoint runs/koniq/best runs/biq/best brisque piqe --dataset koniq10k biq2021 \
        --data_dir path/to/koniq10k path/to/BIQ2021 --output_dir runs/evaluation

    # Median over ten seeded splits, each with the checkpoint that was trained on its training part.
    python scripts/evaluate.py --checkpoint runs/livec-{split}/best --dataset livec --data_dir path/to/LIVE-C \
        --repeat_splits 10 --output_dir runs/livec

The output folder holds results.json, the tables made of it (results.md), each image's prediction (predictions/) and
plots (plots/). A results.json that is already there, or that --results names, keeps its rows; a row about the same
checkpoint, data set and split is replaced. Each row says what it is about: number of images, hashes of the weights and
of the list of images, seed and software versions. This is the only program that reads a test split; use it once a
checkpoint is final.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from transformers.utils import logging as transformers_logging

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.accelerate_state import process_state
from modeling_metaqap.data.iqa_datasets import IQA_DATASETS
from modeling_metaqap.data.iqa_datasets.base import NUM_RANDOM_SPLITS
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.baselines.scorer import BASELINES
from modeling_metaqap.evaluation.evaluating import Measurement, NamedDataset, evaluate
from modeling_metaqap.evaluation.report import write_report
from modeling_metaqap.evaluation.results_files import read_results
from modeling_metaqap.evaluation.tables import HEADINGS, TextTable, format_figure, sentences, title
from modeling_metaqap.memory import keep_freed_memory

console = Console(width=None if sys.stdout.isatty() else 160)


def named_datasets(args: argparse.Namespace) -> list[NamedDataset]:
    folders = args.data_dir or ["-"] * len(args.dataset)
    if len(folders) != len(args.dataset):
        raise MetaQAPError(
            f"--dataset names {len(args.dataset)} data sets but --data_dir {len(folders)} folders; name one for each, "
            "in the same order, or - for one that is to be downloaded."
        )
    return [
        NamedDataset(name=name, data_dir=None if folder == "-" else folder)
        for name, folder in zip(args.dataset, folders, strict=True)
    ]


def print_results(measurements: list[Measurement]) -> None:
    rows = [measurement.row for measurement in measurements]
    cells = [
        [title(row), row["dataset"], row["split"], str(row["n"]), *(format_figure(row[name]) for name in HEADINGS)]
        for row in rows
    ]
    console.print(TextTable(["method", "data set", "split", "n", *HEADINGS.values()], cells).rich())
    for sentence in (sentence for row in rows for sentence in sentences(row)):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        default=[str(DEFAULT_CHECKPOINT)],
        help=f"folders or Hub ids, and baselines ({', '.join(BASELINES)}); default the one that ships",
    )
    parser.add_argument(
        "--dataset", nargs="+", required=True, metavar="NAME", help=f"of {', '.join(sorted(IQA_DATASETS))}"
    )
    parser.add_argument("--split", nargs="+", default=["test"], help="such as test (the default) or validation")
    parser.add_argument(
        "--data_dir",
        nargs="+",
        help="one for each data set: what the publisher distributes or what scripts/prepare_dataset.py made of it; "
        "- or nothing at all to download it where the publisher allows that",
    )
    parser.add_argument(
        "--repeat_splits",
        type=int,
        default=1,
        choices=range(1, NUM_RANDOM_SPLITS + 1),
        metavar="N",
        help="report the median over the first N seeded splits of data sets without an official one",
    )
    parser.add_argument("--cache_dir", help="where the prepared data sets are kept")
    parser.add_argument("--output_dir", type=Path, help="folder for results, tables, predictions and plots")
    parser.add_argument("--results", type=Path, help="results file to add to, default results.json in --output_dir")
    parser.add_argument("--device", help="such as cuda:1; default this process's GPU if there is one")
    parser.add_argument("--batch_size", type=int, default=8, help="crops in one pass through the model")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")
    args = parser.parse_args()
    if args.results and not args.output_dir:
        parser.error("--results needs --output_dir")
    transformers_logging.disable_progress_bar()
    state = process_state()
    is_main = state.is_main_process
    if is_main and state.num_processes > 1:
        print(f"{state.num_processes} processes share the images", file=sys.stderr)
    keep_freed_memory()
    with exit_with_sentence("evaluate"):
        results = args.results or (args.output_dir / "results.json" if args.output_dir else None)
        if results is not None:
            read_results(results)  # A file that cannot be added to is told before the work, not after it.
        measurements = []
        for measurement in evaluate(
            args.checkpoint,
            named_datasets(args),
            splits=args.split,
            repeat_splits=args.repeat_splits,
            cache_dir=args.cache_dir,
            device=args.device,
            batch_size=args.batch_size,
            seed=args.seed,
            n_bootstrap=args.bootstrap,
        ):
            measurements.append(measurement)
            if is_main:
                row = measurement.row
                print(f"measured {title(row)} on {row['dataset']} {row['split']}", file=sys.stderr)
        if not is_main:
            return
        if results is not None:
            write_report(measurements, args.output_dir, results)
        print_results(measurements)
        if results is not None:
            console.print(f"Wrote {results} and {args.output_dir}.", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
