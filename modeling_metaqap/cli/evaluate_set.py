r"""Measure checkpoints and baselines on data sets: PLCC, SROCC, KROCC and RMSE with 95 % bootstrap intervals.

    metaqap evaluate-set --dataset biq2021 --data-dir path/to/BIQ2021 --output-dir runs/evaluation

Every checkpoint on every data set. Under `accelerate launch -m modeling_metaqap evaluate-set` several processes
share the images; the figures are the same with any number of them.

    metaqap evaluate-set --checkpoint runs/koniq/best runs/biq/best brisque piqe --dataset koniq10k biq2021 \
        --data-dir path/to/koniq10k path/to/BIQ2021 --output-dir runs/evaluation

Your own photographs and ratings from 1 to 5: the fifth of them that training leaves alone.

    metaqap evaluate-set --dataset folder --data-dir path/to/photographs --csv ratings.csv --mos-range 1 5 \
        --output-dir runs/mine

Median over ten seeded splits, each with the checkpoint that was trained on its training part.

    metaqap evaluate-set --checkpoint runs/livec-{split}/best --dataset livec --data-dir path/to/LIVE-C \
        --repeat-splits 10 --output-dir runs/livec

The output folder holds results.json, the tables made of it (results.md), each image's prediction (predictions/) and
plots (plots/). A results.json that is already there, or that `--results` names, keeps its rows; a row about the same
checkpoint, data set and split is replaced. Each row says what it is about: number of images, hashes of the weights and
of the list of images, seed and software versions. This is the only program that reads a test split; use it once a
checkpoint is final.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_places import checkpoint_folder
from ..data.dataset_names import DATASET_NAMES
from ..data.rating_options import FOLDER, RatingOptions, add_rating_options
from ..errors import MetaQAPError
from .program import AddOption, Program

if TYPE_CHECKING:
    from ..evaluation.evaluating import Measurement, NamedDataset


def _options(add: AddOption) -> None:
    add(
        "--checkpoint",
        nargs="+",
        default=[str(DEFAULT_CHECKPOINT)],
        help="folders or Hub ids, and baselines (brisque, piqe); default the one that ships",
    )
    add("--dataset", nargs="+", required=True, metavar="NAME", help=f"of {', '.join(DATASET_NAMES)}")
    add("--split", nargs="+", default=["test"], help="such as test (the default) or validation")
    add(
        "--data_dir",
        nargs="+",
        help="one for each data set: what the publisher distributes or what `metaqap prepare` made of it; - or "
        "nothing at all to download it where the publisher allows that",
    )
    add_rating_options(add)
    add(
        "--repeat_splits",
        type=int,
        default=1,
        metavar="N",
        help="report the median over the first N seeded splits of data sets without an official one",
    )
    add("--cache_dir", help="where the prepared data sets are kept")
    add("--output_dir", type=Path, help="folder for results, tables, predictions and plots")
    add("--results", type=Path, help="results file to add to, default results.json in the output folder")
    add("--device", help="such as cuda:1; default this process's GPU if there is one")
    add("--batch_size", type=int, default=8, help="crops in one pass through the model")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")


def _named_datasets(args: argparse.Namespace) -> "list[NamedDataset]":
    from ..evaluation.evaluating import NamedDataset

    folders = args.data_dir or ["-"] * len(args.dataset)
    if len(folders) != len(args.dataset):
        raise MetaQAPError(
            f"`dataset` names {len(args.dataset)} data sets but `data_dir` {len(folders)} folders; name one for each, "
            "in the same order, or - for one that is to be downloaded."
        )
    ratings = RatingOptions.of(vars(args))
    ratings.of_dataset(*args.dataset)
    return [
        NamedDataset(
            name=name,
            data_dir=None if folder == "-" else folder,
            ratings=ratings if name == FOLDER else RatingOptions(),
        )
        for name, folder in zip(args.dataset, folders, strict=True)
    ]


def _found(checkpoints: Sequence[str]) -> list[str]:
    """Checkpoints that ship by their folders, so that results have one name for them however they were named."""
    from ..evaluation.baselines.scorer import BASELINES

    return [one if one in BASELINES else str(checkpoint_folder(one) or one) for one in checkpoints]


def _print_results(measurements: "list[Measurement]") -> None:
    from ..evaluation.tables import HEADINGS, TextTable, format_figure, sentences, title
    from .printing import console

    rows = [measurement.row for measurement in measurements]
    cells = [
        [title(row), row["dataset"], row["split"], str(row["n"]), *(format_figure(row[name]) for name in HEADINGS)]
        for row in rows
    ]
    console.print(TextTable(["method", "data set", "split", "n", *HEADINGS.values()], cells).rich())
    for sentence in (sentence for row in rows for sentence in sentences(row)):
        console.print(sentence, markup=False, soft_wrap=True)


def _run(args: argparse.Namespace) -> None:
    if args.results and not args.output_dir:
        raise MetaQAPError("`results` needs `output_dir`.")

    from ..data.accelerate_state import process_state
    from ..data.iqa_datasets.base import NUM_RANDOM_SPLITS
    from ..evaluation.evaluating import evaluate
    from ..evaluation.report import write_report
    from ..evaluation.results_files import read_results
    from ..evaluation.tables import title
    from .printing import console, silence_libraries

    if not 1 <= args.repeat_splits <= NUM_RANDOM_SPLITS:
        raise MetaQAPError(f"`repeat_splits` must lie in 1 to {NUM_RANDOM_SPLITS}, got {args.repeat_splits}.")
    silence_libraries()
    state = process_state()
    is_main = state.is_main_process
    if is_main and state.num_processes > 1:
        print(f"{state.num_processes} processes share the images", file=sys.stderr)
    results = args.results or (args.output_dir / "results.json" if args.output_dir else None)
    if results is not None:
        read_results(results)  # A file that cannot be added to is told before the work, not after it.
    measurements = []
    for measurement in evaluate(
        _found(args.checkpoint),
        _named_datasets(args),
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
    _print_results(measurements)
    if results is not None:
        console.print(f"Wrote {results} and {args.output_dir}.", markup=False, soft_wrap=True)


PROGRAM = Program(command="evaluate-set", script="evaluate", description=__doc__, options=_options, run=_run)
