"""Export a checkpoint to ONNX and measure what that costs on rated photographs.

    python scripts/export_onnx.py --dataset biq2021 --data_dir path/to/BIQ2021 --limit 100 --int8 --results onnx.json

`metaqap export` does the same without opinion scores. Every second image calibrates the int8 file; ONNX and int8 are
judged on the others: by their largest difference from PyTorch, and by PLCC, SROCC and RMSE against the opinion scores,
side by side with PyTorch's. The test split is refused, as it is by everything but `evaluate.py`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.metrics import evaluate_scores
from modeling_metaqap.inference.choices import ONNX_FILES
from modeling_metaqap.inference.onnx_export import export_onnx
from modeling_metaqap.lineage import software_versions, weights_sha256
from modeling_metaqap.memory import keep_freed_memory

console = Console(width=None if sys.stdout.isatty() else 140)

FIGURES = ("plcc", "srocc", "rmse")


def run(args: argparse.Namespace) -> None:
    dataset = load_training_split(args.dataset, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    dataset = dataset.select(range(min(args.limit, len(dataset))))
    export = export_onnx(args.checkpoint, args.output_dir, photographs=list(dataset["image"]), int8=args.int8)
    judged = dataset.select(range(1, len(dataset), 2)) if args.int8 else dataset
    engines: dict[str, dict[str, float]] = {}
    for engine, records in export.records.items():
        figures = evaluate_scores([record.quality for record in records], judged["quality"], n_bootstrap=0)
        row = {name: figures[name]["value"] for name in FIGURES}
        if engine in export.agreement:
            row["megabytes"] = (export.folder / ONNX_FILES[engine]).stat().st_size / 1e6
            row |= asdict(export.agreement[engine])
        engines[str(engine)] = row
    table = Table(title=f"{len(judged)} images of {args.dataset} {args.split}", title_justify="left")
    for heading in ("engine", *FIGURES, "largest difference", "mean difference", "MB"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for engine, row in engines.items():
        cells = [f"{row[name]:.4f}" for name in FIGURES]
        if "largest" in row:
            cells += [f"{row['largest']:.1e}", f"{row['mean']:.1e}", f"{row['megabytes']:.1f}"]
        table.add_row(engine, *cells)
    console.print(table)
    if args.results is not None:
        record = {
            "software": software_versions(),
            "weights_sha256": weights_sha256(args.checkpoint),
            "dataset": args.dataset,
            "split": args.split,
            "n": len(judged),
            "engines": engines,
        }
        args.results.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(DEFAULT_CHECKPOINT), help="folder or Hub id")
    parser.add_argument("--output_dir", help="folder to write (the checkpoint's own)")
    parser.add_argument("--int8", action="store_true", help="also write an int8 file")
    parser.add_argument("--dataset", required=True, help="such as biq2021")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--limit", type=int, default=100, help="images to use, from the first on (100)")
    parser.add_argument("--results", type=Path, help="JSON to write: the figures")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    with exit_with_sentence("export_onnx"):
        if args.limit < 10:
            raise MetaQAPError("At least 10 images are needed to correlate scores with opinions; raise --limit.")
        run(args)


if __name__ == "__main__":
    main()
