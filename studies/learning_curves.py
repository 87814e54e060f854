"""How many own ratings does it take? Adapt a checkpoint to more and more of them, and measure on others.

    python studies/learning_curves.py --dataset livec --data_dir path/to/ChallengeDB_release --features features

For a data set without an official split: in each of its seeded 80/20 splits, ratings are drawn from the 80 % and the
checkpoint is adapted to them just as `metaqap adapt` does it. All choices are made by cross-validation in these
ratings; the 20 % are only measured on. Beside that: the checkpoint as it is, a fusion that is fitted anew to the same
ratings with the learners as they are (`scripts/fit_meta_learner.py`), and as many ratings of photographs that
`metaqap suggest` names in the 80 %. A checkpoint that has learned from any of the photographs is refused.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from curve_methods import Learned, adapted, add_photograph_options, fused, medians, refuse
from rich.console import Console
from study_tables import curves_table

from modeling_metaqap import Scorer
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset, load_training_split
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.metrics import plcc_and_srocc, rmse
from modeling_metaqap.fusion.expectation import cross_validated
from modeling_metaqap.fusion.residual_regression import USUAL, fit_line
from modeling_metaqap.fusion.suggesting import most_instructive
from modeling_metaqap.fusion.widths import recalibrated_widths
from modeling_metaqap.inference.features import image_features
from modeling_metaqap.inference.predicting import interval_radii
from modeling_metaqap.lineage import all_stages, image_ids_sha256, weights_sha256

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "learning_curves.json"

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class Photographs(Learned):
    """All photographs of a data set: features, scores and ratings."""

    def __init__(self, args: argparse.Namespace):
        where = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
        scorer = Scorer(args.checkpoint, device=args.device)
        dataset = load_iqa_dataset(args.dataset, split="all", decode=False, **where)
        stages = all_stages(scorer.model.config)
        refuse_seen(stages, dataset, weights=args.checkpoint, dataset=args.dataset, **where)
        self.ids = list(dataset["image_id"])
        start = time.perf_counter()
        paths = [Path(row["image"]["path"]) for row in dataset.select_columns("image")]
        features = image_features(scorer, paths, cache_dir=args.features, on_unreadable=refuse)
        console.print(f"Features of {len(paths):,} photographs: {time.perf_counter() - start:.0f} s.")
        super().__init__(
            standardized=features.standardized(scorer.model),
            base_scores=features.base_scores,
            scores=features.quality(scorer.model),
            quality=np.array(dataset["quality"]),
        )
        self.distances = features.distances
        self.config = scorer.model.config
        self.radii = interval_radii(self.config, self.scores, self.base_scores, self.distances)


def measure(photographs: Photographs, rated: IntArray, unseen: IntArray) -> dict[str, dict[str, float]]:
    """What the ratings of some photographs give on those that they do not know: figures by method."""
    scores, quality = photographs.scores, photographs.quality
    by_adapting, functions = adapted(photographs, rated, unseen)
    known = np.arange(len(rated))
    cross = cross_validated(scores[rated], quality[rated], functions, groups=known)
    line = fit_line(scores[rated], quality[rated])
    on_line = line.offset + line.slope * scores[unseen]
    methods = {
        "adapted": by_adapting,
        "scale alone": on_line,
        "fusion fitted anew": fused(photographs, rated, unseen),
    }
    widths = recalibrated_widths(photographs.config, cross, quality[rated], photographs.distances[rated])
    radii = {
        "adapted": interval_radii(widths, by_adapting, photographs.base_scores[unseen], photographs.distances[unseen]),
        "scale alone": photographs.radii[unseen],
    }
    result = {}
    for name, predicted in methods.items():
        result[name] = {**plcc_and_srocc(predicted, quality[unseen]), "rmse": rmse(predicted, quality[unseen])}
        if name in radii:
            held = np.abs(predicted - quality[unseen]) <= radii[name]
            result[name] |= {"covered": float(held.mean()), "width": 2 * float(radii[name].mean())}
    return result


def _figures_of(photographs: Photographs, rated: IntArray, unseen: IntArray) -> dict[str, float]:
    """Figures of a checkpoint that is adapted to some ratings, on other photographs."""
    predicted = adapted(photographs, rated, unseen)[0]
    return {
        **plcc_and_srocc(predicted, photographs.quality[unseen]),
        "rmse": rmse(predicted, photographs.quality[unseen]),
    }


def suggested(photographs: Photographs, pool: IntArray, n: int) -> IntArray:
    """The n photographs of a pool whose ratings are worth most, chosen without any rating."""
    values = photographs.functions(pool, pool, gammas=USUAL[:1])[USUAL[0]].values
    return pool[most_instructive(photographs.scores[pool], values, np.array([], dtype=int), n)]


def run(args: argparse.Namespace) -> dict[str, Any]:
    photographs = Photographs(args)
    where = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    row_of = {image_id: row for row, image_id in enumerate(photographs.ids)}
    of_splits: dict[str, list[dict[str, Any]]] = {}
    before = []
    for split in range(args.repeat_splits):
        training = load_training_split(args.dataset, split=f"train_{split}+validation_{split}", **where)
        test = load_iqa_dataset(args.dataset, split=f"test_{split}", **where)
        pool, unseen = (np.array([row_of[image_id] for image_id in part["image_id"]]) for part in (training, test))
        quality, scores = photographs.quality[unseen], photographs.scores[unseen]
        held = np.abs(scores - quality) <= photographs.radii[unseen]
        before.append(
            {**plcc_and_srocc(scores, quality), "rmse": rmse(scores, quality), "covered": float(held.mean())}
        )
        order = np.random.default_rng(args.seed + split).permutation(pool)
        named = suggested(photographs, pool, min(max(args.suggested), len(pool)))
        for n in [*(size for size in args.sizes if size < len(pool)), len(pool)]:
            measured = measure(photographs, order[:n], unseen)
            if n in args.suggested:
                measured["adapted to suggested ones"] = _figures_of(photographs, named[:n], unseen)
            of_splits.setdefault(str(n), []).append(measured)
        console.print(f"Split {split} is done.", highlight=False)
    return {
        "dataset": args.dataset,
        "n": len(photographs.ids),
        "images_sha256": image_ids_sha256(photographs.ids),
        "weights_sha256": weights_sha256(args.checkpoint),
        "repeat_splits": args.repeat_splits,
        "seed": args.seed,
        "shipped_width": 2 * float(photographs.radii.mean()),
        "before": medians(before),
        "curves": {
            size: {method: medians([one[method] for one in several]) for method in several[0]}
            for size, several in of_splits.items()
        },
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photograph_options(parser)
    parser.add_argument("--sizes", nargs="*", type=int, default=[15, 25, 50, 100, 200, 400], help="numbers of ratings")
    parser.add_argument("--suggested", nargs="*", type=int, default=[50, 100, 200], help="of them, also suggested")
    parser.add_argument("--repeat_splits", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; gets or replaces the part of this data set")
    args = parser.parse_args(arguments)
    with exit_with_sentence("learning_curves"):
        known = json.loads(args.output.read_text()) if args.output.exists() else {}
        result = run(args)
        write_atomically(args.output, (json.dumps(known | {args.dataset: result}, indent=1) + "\n").encode())
        console.print(curves_table(result).rich(title="PLCC / SROCC"))


if __name__ == "__main__":
    main()
