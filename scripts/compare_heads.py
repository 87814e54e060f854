"""Compare heads on the features of a backbone: at home, and on sources that were left out.

    python scripts/compare_heads.py --backbone mobilenetv2_100 --dataset biq2021 --data_dir path/to/BIQ2021 \
        --sources "ss01*" "ss02*" "ss03*" --features features/mobilenetv2.npz

A head is fitted in closed form in seconds, so many can be compared once every image's features are known; they are
kept in `--features`. Each head is fitted on the training split and measured on the validation split, and fitted on all
but the images of one source and measured on that one. What helps at home but not on other sources is memory of the
training photographs, not knowledge of quality. The backbone is one with ImageNet weights, or `--init` a trained
learner's, whose own training saw all sources: then only the figures at home mean anything.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from modeling_metaqap import MetaQAPImageProcessor, MetaQAPModel
from modeling_metaqap.evaluation import image_list_sha256
from modeling_metaqap.iqa_datasets import IQADatasetError, TestSplitError, hold_out, load_training_split
from modeling_metaqap.metrics import plcc, srocc
from modeling_metaqap.reporting import markdown_table
from modeling_metaqap.training import (
    Recipe,
    RecipeError,
    WholeImages,
    collate_crops,
    fit_kernel_head,
    fit_ridge_head,
    new_base_learner,
    pooled_features,
)

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).parents[1] / "hub_card" / "heads.json"
HOME = "validation split"
COMPONENTS, CENTERS = 256, 10_000


def all_features(model: MetaQAPModel, rated: datasets.Dataset, args: argparse.Namespace) -> Tensor:
    """Pooled features of all rated images, `(n, F)` in float32, from `--features` if they are there."""
    digest = image_list_sha256(rated)
    if args.features is not None and args.features.exists():
        with np.load(args.features) as stored:
            if str(stored["images_sha256"]) != digest:
                raise RecipeError(f"{args.features} holds features of other images; remove it.")
            return torch.from_numpy(stored["features"])
    images = WholeImages(rated, MetaQAPImageProcessor())
    loader = DataLoader(images, batch_size=8, collate_fn=collate_crops, num_workers=args.num_workers)
    device = torch.device(args.device)
    model.to(device)
    with console.status(f"Seeing {len(rated)} images ..."), torch.autocast(device.type, dtype=torch.bfloat16):
        features = pooled_features(model, loader, device=device)[0].float()
    if args.features is not None:
        args.features.parent.mkdir(parents=True, exist_ok=True)
        np.savez(args.features, features=features.numpy(), images_sha256=digest)
    return features


def heads(penalties: list[float], gammas: list[float]) -> dict[str, dict[str, float | None]]:
    """Settings of each head by its name; no penalty means generalised cross-validation, no gamma no kernel head."""
    found: dict[str, dict[str, float | None]] = {"linear, cross-validated": {"penalty": None, "gamma": None}}
    for penalty in penalties:
        found[f"linear, penalty {penalty:g}"] = {"penalty": penalty, "gamma": None}
    for penalty, gamma in product(penalties, gammas):
        found[f"linear, penalty {penalty:g}, and kernel, gamma {gamma:g}"] = {"penalty": penalty, "gamma": gamma}
    return found


@torch.no_grad()
def figures(
    model: MetaQAPModel,
    training: tuple[Tensor, Tensor],
    unseen: tuple[Tensor, Tensor],
    settings: dict[str, float | None],
    kernel_penalty: float,
) -> dict[str, float]:
    """PLCC and SROCC on the unseen images of one head, fitted on the training images."""
    learner: Any = model.base_learners[0]
    fit_ridge_head(model, *training, penalty=settings["penalty"])
    if settings["gamma"] is not None:
        fit_kernel_head(
            model,
            *training,
            num_components=COMPONENTS,
            num_centers=CENTERS,
            gamma=settings["gamma"],
            penalty=kernel_penalty,
            seed=0,
        )
    features, qualities = unseen
    predicted = learner.score(learner.standardize(features.float())).double().numpy()
    return {"plcc": plcc(predicted, qualities.numpy()), "srocc": srocc(predicted, qualities.numpy())}


def cell(measured: dict[str, float]) -> str:
    return f"{measured['plcc']:.3f} / {measured['srocc']:.3f}"


def show(result: dict[str, Any]) -> Table:
    table = Table("head", title=f"{result['backbone']}: PLCC / SROCC")
    for source in (HOME, *result["sources"]):
        table.add_column(source if source == HOME else f"{source}, fitted on the others", justify="right")
    for name, row in result["heads"].items():
        table.add_row(name, *map(cell, row.values()))
    return table


def heads_table(results: dict[str, Any]) -> str:
    """All backbones' figures as a Markdown table, PLCC / SROCC."""
    places = [HOME, *next(iter(results.values()))["sources"]]
    headings = ["backbone", "head", *(place if place == HOME else f"{place}, left out" for place in places)]
    cells = [
        [backbone, name, *(cell(row[place]) for place in places)]
        for backbone, result in results.items()
        for name, row in result["heads"].items()
    ]
    return markdown_table(headings, cells)


def compare(args: argparse.Namespace) -> dict[str, Any]:
    source = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    training, validation = (
        load_training_split(args.dataset, split=split, **source) for split in ("train", "validation")
    )
    rated = datasets.concatenate_datasets([training, validation])
    row_of = {image_id: row for row, image_id in enumerate(rated["image_id"])}
    parts = {HOME: (training, validation)}
    parts |= {pattern: hold_out(rated, pattern, name=args.dataset) for pattern in args.sources}

    model = new_base_learner(Recipe(backbone=args.backbone), init=args.init).eval()
    features = all_features(model, rated, args).double()
    qualities = torch.tensor(rated["quality"], dtype=torch.float64)

    def of(images: datasets.Dataset) -> tuple[Tensor, Tensor]:
        rows = [row_of[image_id] for image_id in images["image_id"]]
        return features[rows], qualities[rows]

    result: dict[str, Any] = {
        "backbone": args.backbone,
        "start": "ImageNet weights" if args.init is None else "a trained learner",
        "dataset": args.dataset,
        "images_sha256": image_list_sha256(rated),
        "sources": args.sources,
        "n": {name: [len(part[0]), len(part[1])] for name, part in parts.items()},
        "kernel": {"penalty": args.kernel_penalty, "num_components": COMPONENTS, "num_centers": CENTERS},
        "heads": {},
    }
    for name, settings in heads(args.penalties, args.gammas).items():
        with console.status(f"{name} ..."):
            result["heads"][name] = {
                place: figures(model, of(learned), of(unseen), settings, args.kernel_penalty)
                for place, (learned, unseen) in parts.items()
            }
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="timm CNN")
    parser.add_argument("--init", help="a trained base learner with that backbone instead of ImageNet weights")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument(
        "--sources", nargs="*", default=[], metavar="PATTERN", help="ids of images to leave out in turn"
    )
    parser.add_argument("--penalties", nargs="*", type=float, default=[0.1, 1.0], help="of the linear head")
    parser.add_argument("--gammas", nargs="*", type=float, default=[2.0, 4.0, 8.0], help="of the kernel head")
    parser.add_argument("--kernel_penalty", type=float, default=0.1)
    parser.add_argument("--features", type=Path, help="file to keep the features in")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON; gets or replaces this backbone's part")
    args = parser.parse_args(arguments)
    try:
        known = json.loads(args.results.read_text()) if args.results.exists() else {}
        result = compare(args)
        args.results.write_text(json.dumps(known | {args.backbone: result}, indent=1) + "\n")
    except (RecipeError, IQADatasetError, TestSplitError, OSError, ValueError) as error:
        Console(stderr=True).print(
            f"compare_heads: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        return 2
    console.print(show(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
