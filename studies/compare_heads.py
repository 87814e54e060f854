"""Compare heads on the features of a backbone: at home, and on sources that were left out.

    python studies/compare_heads.py --backbone mobilenetv2_100 --dataset biq2021 --data_dir path/to/BIQ2021 \
        --sources "ss01*" "ss02*" "ss03*" --features features/mobilenetv2 \
        --distorted_dir data/distorted/train --distorted_validation_dir data/distorted/validation

A head is fitted in closed form in seconds, so many can be compared once every image's features are known; they are
kept in the folder `--features`. Each head is fitted on the training split and measured on the validation split, and
fitted on all but the images of one source and measured on that one. What helps at home but not on other sources is
memory of the training photographs, not knowledge of quality. With distorted images (from scripts/distort.py) heads are
also fitted together with these, and all heads measured on those of other photographs by their pseudo opinion scores.
The backbone is one with ImageNet weights, or `--init` a trained learner's. With `{source}` in that path there is a
learner for each source, trained without it (`scripts/train.py --hold_out`), and its heads are measured on that source
alone: such a learner has seen most of the validation split, as any other has seen all sources. `--with_imagenet` tells
what a frozen backbone adds to the trained ones: it measures the mean of both scores too. `--scores` keeps every score,
for studies/compare_fusions.py, which fuses those of several backbones.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console
from study_tables import HOME, heads_table
from torch import Tensor
from torch.utils.data import DataLoader

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distorted.loading import load_distorted, refuse_shared, rows_without
from modeling_metaqap.data.iqa_datasets import hold_out
from modeling_metaqap.errors import DataError, MetaQAPError, TestSplitError
from modeling_metaqap.evaluation.metrics import plcc_and_srocc
from modeling_metaqap.lineage import image_ids_sha256, weights_sha256
from modeling_metaqap.training.heads import fit_kernel_head, fit_ridge_head, pooled_features
from modeling_metaqap.training.images import collate_crops, whole_images
from modeling_metaqap.training.learner import new_base_learner
from modeling_metaqap.training.provenance import refuse_seen
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.splits import load_rated

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "heads.json"
DISTORTED = "distorted images"
COMPONENTS, CENTERS = 256, 10_000
#: What recipes that do not say otherwise have.
DEFAULTS = Recipe(backbone="")
#: After the name of a head, says that the score is a mean.
WITH_IMAGENET = ", mean with the same on ImageNet weights"
#: In the path of `--init`, stands for a pattern of `--sources` without its asterisks.
SOURCE_PLACEHOLDER = "{source}"


@dataclass(frozen=True)
class Images:
    """Features `(n, F)` and quality `(n,)` of images, in float64."""

    features: Tensor
    qualities: Tensor

    def at(self, rows: Sequence[int]) -> "Images":
        return Images(self.features[rows], self.qualities[rows])


def by_source(init: str | None) -> bool:
    """Whether `--init` names a learner for each source."""
    return init is not None and SOURCE_PLACEHOLDER in init


def learner_for(place: str, init: str | None, dataset: str) -> str | None:
    """The learner whose heads may be measured at a place; none means ImageNet weights.

    Raises:
        MetaQAPError: if its run saw images of the place.
    """
    if init is None:
        return None
    path = init.replace(SOURCE_PLACEHOLDER, without_asterisks(place))
    settings = Path(path).parent / "recipe.yaml"
    if not settings.exists():
        return path
    recipe = Recipe.load(settings)
    if recipe.stage == "finetune" and recipe.dataset != dataset:
        return path
    # Pretraining knows no opinions.
    if place != HOME and recipe.hold_out != place and (by_source(init) or recipe.stage == "finetune"):
        raise MetaQAPError(f"{path} was not trained without {place}; train it with --hold_out '{place}'.")
    if place == HOME and recipe.hold_out is not None:
        raise MetaQAPError(
            f"{path} was trained without {recipe.hold_out} and has seen most of the {HOME}; write "
            f"{SOURCE_PLACEHOLDER} in the path to measure such learners on their sources."
        )
    return path


def without_asterisks(pattern: str) -> str:
    return pattern.replace("*", "")


def features_of(
    dataset: datasets.Dataset, name: str, model: MetaQAPModel, init: str | None, args: argparse.Namespace
) -> Images:
    """Pooled features and quality of all images, the features from the file `name` in `--features` if they are there.

    The quality of distorted images is their pseudo opinion score.
    """
    qualities = torch.tensor(dataset["quality"], dtype=torch.float64)
    columns = ("reference_id", "distortion", "level") if "distortion" in dataset.column_names else ("image_id",)
    described = {
        "backbone": args.backbone,
        "init": None if init is None else weights_sha256(init),
        "crop_size": args.crop_size,
        "images": list(zip(*(dataset[column] for column in (*columns, "quality")), strict=True)),
    }
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    file = None if args.features is None else args.features / f"{name}.npz"
    if file is not None and file.exists():
        with np.load(file) as stored:
            if str(stored["sha256"]) != digest:
                raise MetaQAPError(f"{file} holds features of another learner or of other images; remove it.")
            return Images(torch.from_numpy(stored["features"]).double(), qualities)
    images = whole_images(dataset, distorted_crop_size=args.crop_size)
    loader = DataLoader(images, batch_size=8, collate_fn=collate_crops, num_workers=args.num_workers)
    device = torch.device(args.device)
    model.to(device)
    with console.status(f"Seeing {len(dataset)} images ..."), torch.autocast(device.type, dtype=torch.bfloat16):
        features = pooled_features(model, loader, device=device)[0].float()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=features.numpy(), sha256=digest)
    return Images(features.double(), qualities)


@dataclass(frozen=True)
class Head:
    """Settings; no penalty means generalised cross-validation, no gamma no kernel head."""

    penalty: float | None = None
    gamma: float | None = None
    distorted_weight: float = 0.0

    def __str__(self) -> str:
        name = "linear, " + ("cross-validated" if self.penalty is None else f"penalty {self.penalty:g}")
        if self.distorted_weight:
            name += f", distorted images {self.distorted_weight:g}"
        return name if self.gamma is None else f"{name}, and kernel, gamma {self.gamma:g}"


def heads(penalties: list[float], gammas: list[float], weights: list[float]) -> list[Head]:
    """All heads; a linear one comes right before the kernel heads that are added to it."""
    return [Head(), *(Head(p, gamma, w) for w, p, gamma in product((0.0, *weights), penalties, (None, *gammas)))]


@torch.no_grad()
def fit(model: MetaQAPModel, head: Head, training: Images, distorted: Images | None, kernel_penalty: float) -> None:
    """Fit the linear head, or the kernel head of a learner that has the linear one."""
    if head.gamma is None:
        fit_ridge_head(
            model,
            training.features,
            training.qualities,
            penalty=head.penalty,
            distorted=None if distorted is None else (distorted.features, distorted.qualities),
            distorted_weight=head.distorted_weight,
        )
        return
    fit_kernel_head(
        model,
        training.features,
        training.qualities,
        num_components=COMPONENTS,
        num_centers=CENTERS,
        gamma=head.gamma,
        penalty=kernel_penalty,
        seed=0,
    )


@dataclass(frozen=True)
class Backbone:
    """A learner whose heads are fitted, and its features of all rated images and of all distorted ones."""

    model: MetaQAPModel
    photographs: Images
    distorted: Images | None
    distorted_unseen: Images | None


@dataclass(frozen=True)
class Material:
    """What heads on a learner are fitted on for one place, and the unseen images to measure on, by column."""

    model: MetaQAPModel
    learned: Images
    distorted: Images | None
    columns: dict[str, Images]


@torch.no_grad()
def fitted_scores(head: Head, material: Material, kernel_penalty: float) -> dict[str, Tensor]:
    """Fit a head; its scores `(n,)` of the unseen images of each column, in float64."""
    fit(material.model, head, material.learned, material.distorted, kernel_penalty)
    learner: Any = material.model.base_learners[0]
    return {
        column: learner.score(learner.standardize(unseen.features.float())).double()
        for column, unseen in material.columns.items()
    }


def write_scores(path: Path, scores: dict[str, dict[str, Tensor]], unseen: dict[str, datasets.Dataset]) -> None:
    """A CSV file with a row for each place and image: `place`, `image_id`, `quality`, and a column for each head.

    Args:
        scores: of each place, by head, `(n,)`.
        unseen: the n images of each place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "image_id", "quality", *next(iter(scores.values()))])
        for place, by_head in scores.items():
            columns = (
                unseen[place]["image_id"],
                unseen[place]["quality"],
                *(head.tolist() for head in by_head.values()),
            )
            writer.writerows((place, *row) for row in zip(*columns, strict=True))


def compare(args: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe(
        backbone=args.backbone,
        dataset=args.dataset,
        train_split=args.train_split,
        validation_split=args.validation_split,
    )
    training, validation = load_rated(recipe, data_dir=args.data_dir, cache_dir=args.cache_dir)
    rated = datasets.concatenate_datasets([training, validation])
    row_of = {image_id: row for row, image_id in enumerate(rated["image_id"])}
    parts = {} if by_source(args.init) else {HOME: (training, validation)}
    parts |= {pattern: hold_out(rated, pattern, name=args.dataset) for pattern in args.sources}
    learners: dict[str | None, list[str]] = {}
    for place, (_, unseen) in parts.items():
        learner = learner_for(place, args.init, args.dataset)
        if learner is not None:
            refuse_seen(learner, unseen, dataset=args.dataset, data_dir=args.data_dir, cache_dir=args.cache_dir)
        learners.setdefault(learner, []).append(place)
    made = others = None
    if args.distorted_dir is not None:
        made, others = (
            load_distorted(directory, cache_dir=args.cache_dir)
            for directory in (args.distorted_dir, args.distorted_validation_dir)
        )
        refuse_shared(made, others)

    start = "ImageNet weights" if args.init is None else "a trained learner"
    if by_source(args.init):
        start = "for each source a learner trained without it"
    result: dict[str, Any] = {
        "backbone": args.backbone,
        "start": start,
        "dataset": args.dataset,
        "splits": [recipe.train_split, recipe.validation_split],
        "images_sha256": image_ids_sha256(rated["image_id"]),
        "sources": args.sources,
        "n": {name: [len(part[0]), len(part[1])] for name, part in parts.items()},
        "kernel": {"penalty": args.kernel_penalty, "num_components": COMPONENTS, "num_centers": CENTERS},
        "n_distorted": None if made is None else [len(made), len(others)],
        "heads": {},
    }
    scores: dict[str, dict[str, Tensor]] = {place: {} for place in parts}

    def backbone_of(init: str | None, folder: str, *, at_home: bool) -> Backbone:
        model = new_base_learner(recipe, init=init).eval()
        return Backbone(
            model,
            features_of(rated, f"{folder}photographs", model, init, args),
            None if made is None else features_of(made, f"{folder}distorted", model, init, args),
            features_of(others, f"{folder}distorted-validation", model, init, args) if others and at_home else None,
        )

    def at_place(backbone: Backbone, place: str) -> Material:
        learned, unseen = (
            backbone.photographs.at([row_of[image_id] for image_id in images["image_id"]]) for images in parts[place]
        )
        if backbone.distorted is None:
            return Material(backbone.model, learned, None, {place: unseen})
        # Nothing of a photograph to be measured on may be known, in whatever distortion.
        distorted = backbone.distorted.at(rows_without(made, parts[place][1]["image_id"]))
        columns = {place: unseen} | ({DISTORTED: backbone.distorted_unseen} if place == HOME else {})
        return Material(backbone.model, learned, distorted, columns)

    frozen = backbone_of(None, "imagenet/", at_home=HOME in parts) if args.with_imagenet else None
    for init, places in learners.items():
        folder = f"{without_asterisks(places[0])}/" if by_source(args.init) else ""
        backbone = backbone_of(init, folder, at_home=HOME in places)
        for place in places:
            material = at_place(backbone, place)
            frozen_material = None if frozen is None else at_place(frozen, place)
            for head in heads(args.penalties, args.gammas, [] if made is None else args.distorted_weights):
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
        write_scores(args.scores, scores, {place: part[1] for place, part in parts.items()})
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="timm CNN")
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
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON; gets or replaces the part of this label")
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
    try:
        known = json.loads(args.results.read_text()) if args.results.exists() else {}
        result = compare(args)
        write_atomically(args.results, (json.dumps(known | {label: result}, indent=1) + "\n").encode())
    except (MetaQAPError, DataError, TestSplitError, OSError, ValueError) as error:
        Console(stderr=True).print(
            f"compare_heads: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        return 2
    console.print(heads_table({label: result}).rich(title="PLCC / SROCC"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
