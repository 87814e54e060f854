"""What gradient steps on own ratings add to the closed form, on photographs that neither has seen.

    python studies/finetuning.py --dataset livec --data_dir path/to/ChallengeDB_release --splits 0 1 --sizes 200 930

In each of the named 80/20 splits of a data set without an official one, ratings are drawn from the 80 % and the
checkpoint is adapted to them as `metaqap adapt --finetune` does it. The 20 % are only measured on. A program that was
interrupted goes on where it was, also with further splits and sizes.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from curve_methods import add_photograph_options, refuse
from rich.console import Console

from modeling_metaqap import Scorer
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset, load_training_split
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.metrics import plcc_and_srocc, rmse
from modeling_metaqap.fusion.adapting import AdaptationSettings, adapt_to_features
from modeling_metaqap.fusion.finetuning_settings import FinetuningSettings
from modeling_metaqap.inference.features import image_features
from modeling_metaqap.inference.predicting import predict
from modeling_metaqap.lineage import all_stages, image_ids_sha256, weights_sha256

console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)

OUTPUT = Path(__file__).with_name("results") / "finetuning.json"


def measure(args: argparse.Namespace, scorer: Scorer, split: int, size: int) -> dict[str, Any]:
    """Figures of one split with so many ratings: the closed form alone, and with fine-tuned learners."""
    where = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    pool = load_training_split(args.dataset, split=f"train_{split}+validation_{split}", **where)
    unseen = load_iqa_dataset(args.dataset, split=f"test_{split}", **where)
    refuse_seen(all_stages(scorer.model.config), unseen, weights=args.checkpoint, dataset=args.dataset, **where)
    order = np.random.default_rng(args.seed + split).permutation(len(pool))[:size]
    rated = pool.select(sorted(order.tolist()))
    stored = rated.select_columns("image").cast_column("image", datasets.Image(decode=False))
    paths = [Path(row["image"]["path"]) for row in stored]
    features = image_features(scorer, paths, cache_dir=args.features, on_unreadable=refuse)
    start, result = time.process_time(), {"split": split, "n": len(rated)}
    for name, finetuning in (("closed form", None), ("fine-tuned", args.finetuning)):
        adaptation = adapt_to_features(
            scorer.model,
            features,
            np.array(rated["quality"]),
            names=rated["image_id"],
            started_from=weights_sha256(args.checkpoint),
            dataset=args.dataset,
            split=f"train_{split}+validation_{split}",
            settings=AdaptationSettings(draws=0, n_bootstrap=0, seed=args.seed),
            finetuning=finetuning,
            paths=paths,
            runs_dir=args.runs,
            cache_dir=args.features,
        )
        with tempfile.TemporaryDirectory() as folder:
            adaptation.save(folder)
            predicted = predict(Scorer(folder, device=args.device), unseen).quality
        quality = np.array(unseen["quality"])
        result[name] = {**plcc_and_srocc(predicted, quality), "rmse": rmse(predicted, quality)}
        if finetuning is not None:
            result |= {"finetuned": adaptation.record["finetuned"], "conclusion": adaptation.conclusion}
            if adaptation.runs is not None:
                shutil.rmtree(adaptation.runs)
    return result | {"cpu_minutes": round((time.process_time() - start) / 60, 1)}


def run(args: argparse.Namespace, known: list[dict[str, Any]]) -> None:
    """Measure what is not known yet; each result is written at once."""
    scorer = Scorer(args.checkpoint, device=args.device)
    ids = load_iqa_dataset(args.dataset, split="all", data_dir=args.data_dir, cache_dir=args.cache_dir)["image_id"]
    origin = {
        "dataset": args.dataset,
        "images_sha256": image_ids_sha256(ids),
        "weights_sha256": weights_sha256(args.checkpoint),
        "seed": args.seed,
        "settings": asdict(args.finetuning),
    }
    for split in args.splits:
        for size in args.sizes:
            if any(one["split"] == split and one["asked"] == size and one.items() >= origin.items() for one in known):
                continue
            known.append(origin | {"asked": size} | measure(args, scorer, split, size))
            write_atomically(args.output, (json.dumps(known, indent=1) + "\n").encode())
            both = ", ".join(
                f"{name} {known[-1][name]['plcc']:.4f} / {known[-1][name]['srocc']:.4f}"
                for name in ("closed form", "fine-tuned")
            )
            console.print(f"Split {split}, {known[-1]['n']:,} ratings: {both}.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photograph_options(parser)
    parser.add_argument("--runs", type=Path, help="folder to keep unfinished training in")
    parser.add_argument("--splits", nargs="*", type=int, default=list(range(10)), help="numbers of splits")
    parser.add_argument("--sizes", nargs="*", type=int, default=[930], help="numbers of ratings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; gets what it does not have yet")
    default = FinetuningSettings()
    for name, value in asdict(default).items():
        kind = int if value is None else type(value)
        parser.add_argument(f"--{name}", type=kind, default=value, help="see `FinetuningSettings`")
    args = parser.parse_args(arguments)
    with exit_with_sentence("finetuning"):
        args.finetuning = FinetuningSettings(**{name: getattr(args, name) for name in asdict(default)})
        run(args, json.loads(args.output.read_text()) if args.output.exists() else [])


if __name__ == "__main__":
    main()
