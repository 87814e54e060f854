"""Compare heads on the features of a backbone: at home, and on sources that were left out.

    python studies/compare_heads.py --backbone mobilenetv2_100 --dataset biq2021 --data_dir path/to/BIQ2021 \
        --sources "ss01*" "ss02*" "ss03*" --features features/mobilenetv2 \
        --distorted_dir data/distorted/train --distorted_validation_dir data/distorted/validation

A head is fitted in closed form in seconds, so many can be compared once every image's features are known; they are
kept in the folder `--features`. Each head is fitted on the training split and measured on the validation split, and
fitted on all but the images of one source and measured on that one. What helps at home but not on other sources is
memory of the training photographs, not knowledge of quality. With distorted images (from scripts/distort.py) heads are
also fitted together with these, and all heads measured on those of other photographs by their pseudo opinion scores.
With `--scales 1 2` the backbone sees each image also at half its size. The backbone is one with ImageNet weights, or
`--init` a trained learner's. With `{source}` in that path there is a learner for each source, trained without it
(`scripts/train.py --hold_out`), and its heads are measured on that source alone: such a learner has seen most of the
validation split, as any other has seen all sources. `--with_imagenet` tells what a frozen backbone adds to the trained
ones: it measures the mean of both scores too. `--scores` keeps every score, for studies/compare_fusions.py, which
fuses those of several backbones.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from head_fitting import CENTERS, COMPONENTS, Backbone, Material, features_of, fitted_scores, heads, write_scores
from rich.console import Console
from study_tables import HOME, heads_table
from torch import Tensor

from modeling_metaqap import MetaQAPConfig
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distorted.loading import load_distorted, refuse_shared, rows_without
from modeling_metaqap.data.iqa_datasets import hold_out
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.metrics import plcc_and_srocc
from modeling_metaqap.lineage import all_stages, image_ids_sha256
from modeling_metaqap.training.learner import new_base_learner
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import load_rated

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "heads.json"
DISTORTED = "distorted images"
#: What recipes that do not say otherwise have.
DEFAULTS = Recipe(backbone="")
#: After the name of a head, says that the score is a mean.
WITH_IMAGENET = ", mean with the same on ImageNet weights"
#: In the path of `--init`, stands for a pattern of `--sources` without its asterisks.
SOURCE_PLACEHOLDER = "{source}"


def by_source(init: str | None) -> bool:
    """Whether `--init` names a learner for each source."""
    return init is not None and SOURCE_PLACEHOLDER in init


def learner_for(place: str, init: str | None) -> str | None:
    """The learner whose heads are measured at a place; none means ImageNet weights."""
    return None if init is None else init.replace(SOURCE_PLACEHOLDER, without_asterisks(place))


def refuse_learner(learner: str, unseen: datasets.Dataset, args: argparse.Namespace) -> None:
    """Raise `MetaQAPError` if a learner has learned from images that its heads are to be measured on."""
    refuse_seen(
        all_stages(MetaQAPConfig.from_pretrained(learner)),
        unseen,
        weights=learner,
        dataset=args.dataset,
        data_dir=args.data_dir,
        cache_dir=args.cache_dir,
    )


def without_asterisks(pattern: str) -> str:
    return pattern.replace("*", "")


def compare(args: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe(
        backbone=args.backbone,
        scales=args.scales,
        dataset=args.dataset,
        train_split=args.train_split,
        validation_split=args.validation_split,
    )
    [source] = recipe.sets
    training, validation = load_rated(source, **source.where(args.data_dir, args.cache_dir))
    rated = datasets.concatenate_datasets([training, validation])
    row_of = {image_id: row for row, image_id in enumerate(rated["image_id"])}
    images_of = {} if by_source(args.init) else {HOME: (training, validation)}
    images_of |= {pattern: hold_out(rated, pattern, name=args.dataset) for pattern in args.sources}
    learners: dict[str | None, list[str]] = {}
    for place, (_, unseen) in images_of.items():
        learner = learner_for(place, args.init)
        if learner is not None:
            refuse_learner(learner, unseen, args)
        learners.setdefault(learner, []).append(place)
    distorted = distorted_unseen = None
    if args.distorted_dir is not None:
        distorted, distorted_unseen = (
            load_distorted(directory, cache_dir=args.cache_dir)
            for directory in (args.distorted_dir, args.distorted_validation_dir)
        )
        refuse_shared(distorted, distorted_unseen)

    start = "ImageNet weights" if args.init is None else "a trained learner"
    if by_source(args.init):
        start = "for each source a learner trained without it"
    result: dict[str, Any] = {
        "backbone": args.backbone,
        "scales": args.scales,
        "start": start,
        "dataset": args.dataset,
        "splits": [recipe.train_split, recipe.validation_split],
        "images_sha256": image_ids_sha256(rated["image_id"]),
        "sources": args.sources,
        "n": {name: [len(known), len(unseen)] for name, (known, unseen) in images_of.items()},
        "kernel": {"penalty": args.kernel_penalty, "num_components": COMPONENTS, "num_centers": CENTERS},
        "n_distorted": None if distorted is None else [len(distorted), len(distorted_unseen)],
        "heads": {},
    }
    scores: dict[str, dict[str, Tensor]] = {place: {} for place in images_of}

    def backbone_of(init: str | None, folder: str, *, at_home: bool) -> Backbone:
        model = new_base_learner(recipe, init=init).eval()
        console.print(f"Features of {init or 'ImageNet weights'} ...", highlight=False)
        photographs = features_of(rated, f"{folder}photographs", model, init, args)
        if distorted is None:
            return Backbone(model, photographs, None, None)
        crops = features_of(distorted, f"{folder}distorted", model, init, args)
        name = f"{folder}distorted-validation"
        unseen_crops = features_of(distorted_unseen, name, model, init, args) if at_home else None
        return Backbone(model, photographs, crops, unseen_crops)

    def at_place(backbone: Backbone, place: str) -> Material:
        learned, unseen = (
            backbone.photographs.at([row_of[image_id] for image_id in images["image_id"]])
            for images in images_of[place]
        )
        if backbone.distorted is None:
            return Material(backbone.model, learned, None, {place: unseen})
        # Nothing of a photograph to be measured on may be known, in whatever distortion.
        crops = backbone.distorted.at(rows_without(distorted, images_of[place][1]["image_id"]))
        columns = {place: unseen} | ({DISTORTED: backbone.distorted_unseen} if place == HOME else {})
        return Material(backbone.model, learned, crops, columns)

    frozen = backbone_of(None, "imagenet/", at_home=HOME in images_of) if args.with_imagenet else None
    for init, places in learners.items():
        folder = f"{without_asterisks(places[0])}/" if by_source(args.init) else ""
        backbone = backbone_of(init, folder, at_home=HOME in places)
        for place in places:
            material = at_place(backbone, place)
            frozen_material = None if frozen is None else at_place(frozen, place)
            for head in heads(args.penalties, args.gammas, [] if distorted is None else args.distorted_weights):
                with console.status(f"{head}, {place} ..."):
                    rows = {str(head): fitted_scores(head, material, args.kernel_penalty)}
                    if frozen_material is not None:
                        of_frozen = fitted_scores(head, frozen_material, args.kernel_penalty)
                        rows[f"{head}{WITH_IMAGENET}"] = {
                            column: (predicted + of_frozen[column]) / 2
                            for column, predicted in rows[str(head)].items()
                        }
                for name, row in rows.items():
                    scores[place][name] = row[place]
                    result["heads"].setdefault(name, {}).update(
                        {
                            column: plcc_and_srocc(predicted.numpy(), material.columns[column].qualities.numpy())
                            for column, predicted in row.items()
                        }
                    )
    if args.scores is not None:
        write_scores(args.scores, scores, {place: unseen for place, (_, unseen) in images_of.items()})
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="timm CNN")
    parser.add_argument(
        "--scales",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="the backbone sees images so many times smaller",
    )
    parser.add_argument(
        "--init",
        help="a trained base learner with that backbone instead of ImageNet weights; one for each source with "
        f"{SOURCE_PLACEHOLDER} in the path",
    )
    parser.add_argument(
        "--with_imagenet",
        action="store_true",
        help="measure also the mean of each head's score and that of the same head on ImageNet weights",
    )
    parser.add_argument("--label", help="for people to tell results apart; the backbone's name by default")
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--train_split",
        default=DEFAULTS.train_split,
        help=f"images to fit on, such as train[:1000] ({DEFAULTS.train_split})",
    )
    parser.add_argument(
        "--validation_split",
        default=DEFAULTS.validation_split,
        help=f"images to measure on ({DEFAULTS.validation_split}); with --sources those of both splits are cut anew",
    )
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument(
        "--sources", nargs="*", default=[], metavar="PATTERN", help="ids of images to leave out in turn"
    )
    parser.add_argument("--penalties", nargs="*", type=float, default=[0.1, 1.0], help="of the linear head")
    parser.add_argument("--gammas", nargs="*", type=float, default=[2.0, 4.0, 8.0], help="of the kernel head")
    parser.add_argument("--kernel_penalty", type=float, default=0.1)
    parser.add_argument("--distorted_dir", help="distorted images to learn from too, made by scripts/distort.py")
    parser.add_argument("--distorted_validation_dir", help="likewise, of other photographs, to measure on")
    parser.add_argument(
        "--distorted_weights", nargs="*", type=float, default=[0.1], help="of all the distorted images together (0.1)"
    )
    parser.add_argument(
        "--crop_size",
        type=int,
        default=DEFAULTS.crop_size,
        help=f"that distorted images are seen in ({DEFAULTS.crop_size})",
    )
    parser.add_argument("--features", type=Path, help="folder to keep the features in")
    parser.add_argument("--scores", type=Path, help="CSV to write: what each head says of each image")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; gets or replaces the part of this label")
    args = parser.parse_args(arguments)
    if (args.distorted_dir is None) != (args.distorted_validation_dir is None):
        parser.error("--distorted_dir and --distorted_validation_dir go together")
    if any(weight <= 0 for weight in args.distorted_weights):
        parser.error("--distorted_weights must be above 0; heads without distorted images are always measured")
    if args.features is not None and args.features.is_file():
        parser.error(f"--features {args.features} is a file; name a folder")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: there is no GPU that PyTorch can use")
    if args.with_imagenet and args.init is None:
        parser.error("--with_imagenet goes with --init; without it the learner has ImageNet weights already")
    if by_source(args.init) and not args.sources:
        parser.error(f"{SOURCE_PLACEHOLDER} in --init stands for each of --sources; name some")
    label = args.label or args.backbone
    with exit_with_sentence("compare_heads"):
        known = json.loads(args.output.read_text()) if args.output.exists() else {}
        result = compare(args)
        write_atomically(args.output, (json.dumps(known | {label: result}, indent=1) + "\n").encode())
        console.print(heads_table({label: result}).rich(title="PLCC / SROCC"))


if __name__ == "__main__":
    main()
