"""When does it mean something that a photograph looks like one of the 25 distortions?

    python studies/choose_looks_like.py --dataset biq2021 --data_dir path/to/BIQ2021

The distortion head names one of 25 distortions for every photograph, for the best ones too. Each photograph of the
validation split is scored as it is, and with one of the distortions at one of the levels 1 to 5, both drawn at random.
A name is right if it is that of the distortion; it is wrong if it is another one, and for a photograph as it is that
people find good. (For one that they find bad nobody knows the right name, so it does not count.) Names are shown for
qualities below a limit and probabilities above another. Of all pairs of limits by which at least 80 % of the names
that are shown are right, and at most 1 % of the good photographs have one, the pair is kept that shows most of the
right ones. Writes studies/results/looks_like.json; the limits stand in modeling_metaqap/inference/wording.py.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from modeling_metaqap import Scorer, ScoreRecord
from modeling_metaqap.checkpoint_reading import read_config
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distortions import LEVELS, applicable_distortions, distort
from modeling_metaqap.data.unseen_split import add_split_options, load_unseen_split
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.tables import TextTable
from modeling_metaqap.inference.decoding import Photograph
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.memory import keep_freed_memory

OUTPUT = Path(__file__).with_name("results") / "looks_like.json"

#: Candidates for the two limits.
QUALITIES = tuple(round(0.3 + 0.05 * step, 2) for step in range(15))
PROBABILITIES = tuple(round(0.2 + 0.1 * step, 1) for step in range(8))

#: Of the names that are shown.
WANTED_PRECISION = 0.8

#: Of good photographs may have a name: in an archive there are many of them, and few distorted ones.
FALSE_ALARMS = 0.01

#: A photograph that people find at least this good looks like no distortion.
GOOD = 0.6


def photographs(dataset: Any, labels: list[str], seed: int) -> Iterator[tuple[Photograph, str | None, int]]:
    """Each photograph as it is and distorted, with the name of the distortion (None) and the level (0)."""
    rng = np.random.default_rng(seed)
    for row in dataset:
        image = row["image"]
        yield Photograph(image, *image.size), None, 0
        name = str(rng.choice([label for label in applicable_distortions(image) if label in labels]))
        level = int(rng.choice(LEVELS))
        distorted = distort(image, name, level, int(rng.integers(1 << 31)))
        yield Photograph(distorted, *distorted.size), name, level


def choose(
    records: list[ScoreRecord], names: list[str | None], opinions: list[float]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The figures of all pairs of limits, and the pair to keep.

    Args:
        records: of the photographs.
        names: of their distortions, None for one that was left as it is.
        opinions: quality of each original, as people see it.

    Raises:
        MetaQAPError: if no pair is right often enough.
    """
    quality = np.array([record.quality for record in records])
    probability = np.array([record.distortion_probability for record in records])
    is_distorted = np.array([name is not None for name in names])
    is_right = np.array([record.distortion == name for record, name in zip(records, names, strict=True)])
    is_good = ~is_distorted & (np.array(opinions) >= GOOD)
    tried = []
    for most, least in product(QUALITIES, PROBABILITIES):
        shown = (quality < most) & (probability >= least)
        right, named = int((shown & is_right).sum()), int((shown & (is_distorted | is_good)).sum())
        tried.append(
            {
                "max_quality": most,
                "min_probability": least,
                "named": named,
                "right": right,
                "precision": round(right / named, 4) if named else None,
                "share_of_distorted_named_rightly": round(right / int(is_distorted.sum()), 4),
                "share_of_good_named": round(float(shown[is_good].mean()), 4),
            }
        )
    good_enough = [
        one
        for one in tried
        if (one["precision"] or 0) >= WANTED_PRECISION and one["share_of_good_named"] <= FALSE_ALARMS
    ]
    if not good_enough:
        raise MetaQAPError("No pair of limits is right often enough.")
    return tried, max(good_enough, key=lambda one: (one["right"], one["precision"]))


def run(args: argparse.Namespace) -> None:
    config = read_config(args.checkpoint)
    dataset = load_unseen_split(args, config)
    if not config.distortion_labels:
        raise MetaQAPError("This checkpoint names no distortions.")
    if args.images is not None:
        dataset = dataset.select(range(args.images))
    scorer = Scorer(args.checkpoint, engine="auto", num_images=2 * len(dataset))
    truths: list[tuple[str | None, int]] = []

    def seen() -> Iterator[Photograph]:
        for photograph, name, level in photographs(dataset, config.distortion_labels, args.seed):
            truths.append((name, level))
            yield photograph

    records = list(scorer.score(seen()))
    opinions = np.repeat(np.array(dataset["quality"]), 2).tolist()
    names = [name for name, _ in truths]
    tried, kept = choose(records, names, opinions)
    always = [record.distortion == name for record, name in zip(records, names, strict=True) if name is not None]
    results = {
        "checkpoint": args.checkpoint.name,
        "weights_sha256": weights_sha256(args.checkpoint),
        "dataset": args.dataset,
        "split": args.split,
        "seed": args.seed,
        "photographs": len(dataset),
        "good_from": GOOD,
        "good": sum(name is None and opinion >= GOOD for name, opinion in zip(names, opinions, strict=True)),
        "distorted_named_rightly_without_limits": round(float(np.mean(always)), 4),
        "wanted_precision": WANTED_PRECISION,
        "false_alarms": FALSE_ALARMS,
        "kept": kept,
        "tried": tried,
    }
    write_atomically(args.output, (json.dumps(results, indent=1) + "\n").encode())
    best = sorted(tried, key=lambda one: -one["right"])
    cells = [[str(value) for value in one.values()] for one in [kept, *best[:12]]]
    Console().print(TextTable(list(kept), cells).rich())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser)
    parser.add_argument("--images", type=int, help="only the first ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    with exit_with_sentence("choose_looks_like"):
        run(args)


if __name__ == "__main__":
    main()
