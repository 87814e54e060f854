"""How far do own ratings carry learners that know nothing of the photographs' source?

    python studies/left_out_curves.py --dataset biq2021 --data_dir path/to/BIQ2021 --sources "ss01*" "ss02*" "ss03*" \
        --backbones tf_efficientnet_lite0 mobilenetv2_100 --features features

For each source of a data set: learners with ImageNet weights get their heads on the training images of all the other
sources, so neither backbone nor head has seen anything of this one. From four fifths of its training images, drawn
anew for each of `--draws`, ratings are drawn and the learners adapted to them just as `metaqap adapt` does it; the
last fifth is only measured on. Beside that: the learners as they are (their mean), a straight line on it, a fusion
that is fitted anew to the same ratings, and heads on ImageNet weights that are fitted to the same ratings alone. The
official test split is not touched.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from curve_methods import Learned, adapted, fused, medians
from head_fitting import Head, Images, features_of, fit
from rich.console import Console
from study_tables import left_out_curves_table

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets import hold_out
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.metrics import plcc_and_srocc
from modeling_metaqap.fusion.residual_regression import fit_line
from modeling_metaqap.lineage import image_ids_sha256
from modeling_metaqap.training.learner import new_base_learner
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import load_rated

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "left_out_curves.json"

#: Of the learners before they are adapted: those of the shipped learner whose backbone keeps its ImageNet weights.
HEADS = (Head(penalty=1.0), Head(penalty=1.0, gamma=8.0))
KERNEL_PENALTY = 0.1
#: Fitted to the ratings alone: linear, with the penalty that cross-validation chooses.
FROM_IMAGENET = Head()

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@torch.no_grad()
def without_source(model: MetaQAPModel, known: Images, unseen: Images) -> tuple[FloatArray, FloatArray]:
    """Scores `(n,)` and standardised features `(n, F)` of unseen images by a learner with heads on known ones."""
    for head in HEADS:
        fit(model, head, known, None, KERNEL_PENALTY)
    learner: Any = model.base_learners[0]
    standardized = learner.standardize(unseen.features.float())
    return learner.score(standardized).double().numpy(), standardized.double().numpy()


@torch.no_grad()
def from_imagenet(models: list[MetaQAPModel], images: list[Images], rated: IntArray, unseen: IntArray) -> FloatArray:
    """Scores of unseen images: the mean over learners whose heads know the rated images alone."""
    scores = []
    for model, one in zip(models, images, strict=True):
        fit(model, FROM_IMAGENET, one.at(rated.tolist()), None, KERNEL_PENALTY)
        learner: Any = model.base_learners[0]
        scores.append(learner.score(learner.standardize(one.features[unseen].float())).double().numpy())
    return np.mean(scores, axis=0)


def measure(
    learned: Learned, models: list[MetaQAPModel], images: list[Images], rated: IntArray, unseen: IntArray
) -> dict[str, dict[str, float]]:
    """Figures of each method that knows the ratings of some photographs, on those that it does not know."""
    scores, quality = learned.scores, learned.quality
    line = fit_line(scores[rated], quality[rated])
    predictions = {
        "adapted": adapted(learned, rated, unseen)[0],
        "scale alone": line.offset + line.slope * scores[unseen],
        "fusion fitted anew": fused(learned, rated, unseen),
        "from ImageNet weights": from_imagenet(models, images, rated, unseen),
    }
    return {name: plcc_and_srocc(predicted, quality[unseen]) for name, predicted in predictions.items()}


def run(args: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe(backbone=args.backbones[0], dataset=args.dataset)
    parts = load_rated(recipe, data_dir=args.data_dir, cache_dir=args.cache_dir)
    rated_images = datasets.concatenate_datasets(list(parts))
    row_of = {image_id: row for row, image_id in enumerate(rated_images["image_id"])}
    models, everything = [], []
    for backbone in args.backbones:
        console.print(f"Features of {backbone} ...", highlight=False)
        settings = SimpleNamespace(**vars(args), backbone=backbone, scales=[1], crop_size=recipe.crop_size)
        model = new_base_learner(Recipe(backbone=backbone)).eval()
        models.append(model)
        everything.append(features_of(rated_images, backbone, model, None, settings))
    result: dict[str, Any] = {
        "dataset": args.dataset,
        "splits": [recipe.train_split, recipe.validation_split],
        "images_sha256": image_ids_sha256(rated_images["image_id"]),
        "backbones": args.backbones,
        "draws": args.draws,
        "seed": args.seed,
        "sources": {},
    }
    for source in args.sources:
        known, unseen = (
            [row_of[image_id] for image_id in part["image_id"]]
            for part in hold_out(rated_images, source, name=args.dataset)
        )
        images = [one.at(unseen) for one in everything]
        pairs = [
            without_source(model, one.at(known), own)
            for model, one, own in zip(models, everything, images, strict=True)
        ]
        base_scores = np.column_stack([scores for scores, _ in pairs])
        quality = images[0].qualities.numpy()
        learned = Learned(
            standardized=[features for _, features in pairs],
            base_scores=base_scores,
            scores=base_scores.mean(axis=1),
            quality=quality,
        )
        before, of_sizes = [], {}
        for draw in range(args.draws):
            order = np.random.default_rng(args.seed + draw).permutation(len(quality))
            test, pool = np.split(order, [len(order) // 5])
            before.append(plcc_and_srocc(learned.scores[test], quality[test]))
            for n in [size for size in args.sizes if size <= len(pool)]:
                of_sizes.setdefault(str(n), []).append(measure(learned, models, images, pool[:n], test))
            console.print(f"{source}, draw {draw} is done.", highlight=False)
        result["sources"][source] = {
            "n": [len(known), len(unseen)],
            "before": medians(before),
            "curves": {
                size: {method: medians([one[method] for one in several]) for method in several[0]}
                for size, several in of_sizes.items()
            },
        }
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--sources", nargs="+", required=True, metavar="PATTERN", help="ids of images to leave out")
    parser.add_argument("--backbones", nargs="+", required=True, help="timm CNNs")
    parser.add_argument("--features", type=Path, help="folder to keep the features in")
    parser.add_argument("--sizes", nargs="*", type=int, default=[25, 50, 100, 200, 500], help="numbers of ratings")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args(arguments)
    with exit_with_sentence("left_out_curves"):
        result = run(args)
        write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())
        console.print(left_out_curves_table(result).rich(title="SROCC"))


if __name__ == "__main__":
    main()
