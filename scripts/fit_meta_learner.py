"""Fuse trained base learners into one checkpoint.

    python scripts/fit_meta_learner.py --models runs/lite0/best runs/mobilenetv2/best --dataset biq2021 \
        --data_dir path/to/BIQ2021 --output modeling_metaqap/checkpoints/metaqap-lite

    python scripts/fit_meta_learner.py --models runs/lite0-{fold}/refitted runs/mobilenetv2-{fold}/refitted --folds 5 \
        --dataset biq2021 --data_dir path/to/BIQ2021 --output metaqap

    python scripts/fit_meta_learner.py --models runs/lite0/refitted --mean runs/mobilenetv2/refitted \
        runs/mobilenetv2-frozen/refitted --dataset biq2021 --data_dir path/to/BIQ2021 --output metaqap

    python scripts/fit_meta_learner.py --mean modeling_metaqap/checkpoints/metaqap-lite --dataset folder \
        --data_dir data/mine --split train_full --output my-metaqap

The stepwise regression is fitted on scores of images that no learner was trained on; learners that it does not
select are left out. Those are the images of `--split`, or with `--folds` all training images: `{fold}` in a path then
stands for 1 to K, each image is scored by the learner whose fold it was held out with (`scripts/train.py --hold_out
"fold 1 of 5"`), and the K learners of one path enter the ensemble together, as their mean. So do the learners of one
`--mean`: what one of them is worth on images unlike those of the data set, these images cannot tell. A learner that
was trained on an image that it is to score, as its run folder or its checkpoint says, is refused. With `--shrinkage`
the weights of the selected learners are moved a part of the way to equal ones, for the same reason. The meta-learner
is measured, and the 90 % prediction interval calibrated, on scores that were fused by regressions on the other nine
tenths of the images.

The learners of an ensemble, as in the last example, are fused anew: on your own ratings, without training. With
`--mean` their plain mean is brought to the scale of these ratings, for which a few are enough; with `--models` each
gets a weight of its own, for which it takes a few hundred.
The checkpoint holds matrices in float16, and everything else in float32; a `fit.json` beside it says how it was made.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets import hold_out, load_training_split
from modeling_metaqap.errors import DataError, MetaQAPError, TestSplitError
from modeling_metaqap.evaluation.metrics import evaluate_scores
from modeling_metaqap.fusion.checkpoint_folder import read_fit, save_checkpoint
from modeling_metaqap.fusion.conformal import conformal_radius
from modeling_metaqap.fusion.stepwise import StepwiseFit, cross_fitted, fit_stepwise
from modeling_metaqap.inference.predicting import distinct_names, predict
from modeling_metaqap.inference.scorer import Scorer
from modeling_metaqap.lineage import image_ids_sha256, weights_sha256
from modeling_metaqap.modeling_metaqap import ORIGINS
from modeling_metaqap.training.provenance import joined, origins, parts_of, refuse_seen, was_fine_tuned

console = Console(width=None if sys.stdout.isatty() else 140)

#: Of the prediction interval.
COVERAGE = 0.9
#: In a learner's path, stands for the number of its fold, from 1.
FOLD_PLACEHOLDER = "{fold}"


def print_steps(fit: StepwiseFit) -> None:
    table = Table(title="Stepwise linear regression", title_justify="left")
    for heading in ("step", "action", "base learner", "p", "beta", "R^2", "because"):
        table.add_column(heading)
    for number, step in enumerate(fit.steps, start=1):
        table.add_row(
            str(number),
            step.action,
            step.name,
            f"{step.p_value:.2g}",
            f"{step.beta:+.3f}",
            f"{step.r_squared:.4f}",
            step.reason,
        )
    console.print(table)
    for name, reason in fit.excluded.items():
        console.print(f"excluded: {name}, {reason}", highlight=False)


@dataclass(frozen=True)
class Learner:
    """A base learner that may enter the regression.

    Attributes:
        name: for people.
        models: the learner of each fold, or the only one.
        paths: their checkpoints.
        column: which of a checkpoint's learners it is.
        weights_sha256: of the checkpoints.
        fine_tuned: whether gradient steps trained it.
        origins: what a `training_summary` says of it.
    """

    name: str
    models: list[MetaQAPModel]
    paths: list[str]
    column: int
    weights_sha256: list[str | None]
    fine_tuned: bool
    origins: dict[str, str | None]


def learners_in(paths: list[str]) -> list[Learner]:
    """The learners of a checkpoint, or of one for each fold; several where it is an ensemble.

    Raises:
        MetaQAPError: for ensembles of folds, or weights that cannot be read.
    """
    try:
        checkpoints = [MetaQAPModel.from_pretrained(path) for path in paths]
    except SafetensorError as error:
        raise MetaQAPError(f"The weights of {paths[0]} cannot be read: {error}") from error
    if len(checkpoints) > 1 and any(model.config.num_base_learners > 1 for model in checkpoints):
        raise MetaQAPError(f"{paths[0]} is an ensemble; --folds fuses single base learners.")
    fused = read_fit(paths[0]) or {"base_models": []}
    # Fits of before there were frozen learners say nothing of it.
    fine_tuned = {model["name"]: model.get("fine_tuned", True) for model in fused["base_models"]}
    hashes = [weights_sha256(path) for path in paths]
    known = [{"pretrained_on": "ImageNet weights"} | origins(path) for path in paths]
    said = {key: joined(one.get(key) for one in known) for key in ORIGINS}
    learners = []
    for column, models in enumerate(zip(*(checkpoint.base_models() for checkpoint in checkpoints), strict=True)):
        name = models[0].config.base_learners[0]["name"]  # type: ignore[index]
        tuned = fine_tuned.get(name, any(map(was_fine_tuned, paths)))
        learners.append(Learner(name, list(models), paths, column, hashes, tuned, said))
    return learners


def unseen_images(dataset: datasets.Dataset, args: argparse.Namespace) -> list[datasets.Dataset]:
    """The images that the learner of each fold has not seen; all of them where there are no folds."""
    if not args.folds:
        return [dataset]
    folds = range(1, args.folds + 1)
    return [hold_out(dataset, f"fold {fold} of {args.folds}", name=args.dataset)[1] for fold in folds]


def unseen_scores(
    paths: list[str], dataset: datasets.Dataset, parts: list[datasets.Dataset], args: argparse.Namespace
) -> npt.NDArray[np.float64]:
    """Scores `(n, K)` of all images by the K learners of a checkpoint that has not seen them: the only one, or that of
    their fold."""
    scores: npt.NDArray[np.float64] | None = None
    row_of = {image_id: row for row, image_id in enumerate(dataset["image_id"])}
    for path, images in zip(paths, parts, strict=True):
        with console.status(f"Scoring {len(images)} images with {path} ..."):
            found = predict(Scorer(path, device=args.device), images).base_scores
        if scores is None:
            scores = np.full((len(dataset), found.shape[1]), np.nan)
        scores[[row_of[image_id] for image_id in images["image_id"]]] = found
    assert scores is not None
    return scores


def read_learners(args: argparse.Namespace) -> tuple[list[Learner], list[list[int]]]:
    """All learners, named, and the groups of them that enter the regression, by position.

    Raises:
        MetaQAPError: if there are other than `--names` says, or ensembles with `--folds`.
    """
    learners: list[Learner] = []
    groups: list[list[int]] = []
    # The learners of an ensemble in --models enter one by one.
    for together, as_one in [([path], False) for path in args.models] + [(group, True) for group in args.mean]:
        found = []
        for path in together:
            folds = range(1, max(args.folds, 1) + 1)
            found += learners_in([path.replace(FOLD_PLACEHOLDER, str(fold)) for fold in folds])
        positions = list(range(len(learners), len(learners) + len(found)))
        groups += [positions] if as_one else [[position] for position in positions]
        learners += found
    if args.names and len(args.names) != len(learners):
        raise MetaQAPError(f"Got {len(learners)} base learners but {len(args.names)} --names.")
    names = distinct_names(args.names or [learner.name for learner in learners])
    learners = [replace(learner, name=name) for learner, name in zip(learners, names, strict=True)]
    for learner in learners:
        for model in learner.models:
            model.config.base_learners[0]["name"] = learner.name  # type: ignore[index]
    return learners, groups


def fuse(args: argparse.Namespace) -> None:
    dataset = load_training_split(args.dataset, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    targets = np.array(dataset["quality"])
    # All checks come before any image is scored, which takes minutes. This one: are there enough for an interval?
    conformal_radius(targets, targets, coverage=COVERAGE)
    learners, groups = read_learners(args)
    parts = unseen_images(dataset, args)
    # The learners of an ensemble share their path.
    checkpoints = {tuple(learner.paths): learner.paths for learner in learners}
    for paths in checkpoints.values():
        for path, images in zip(paths, parts, strict=True):
            refuse_seen(path, images, dataset=args.dataset, data_dir=args.data_dir, cache_dir=args.cache_dir)
    scores_of = {key: unseen_scores(paths, dataset, parts, args) for key, paths in checkpoints.items()}
    learner_scores = np.column_stack([scores_of[tuple(learner.paths)][:, learner.column] for learner in learners])

    # What enters the regression: the learners of one group as their mean.
    entering = np.column_stack([learner_scores[:, group].mean(axis=1) for group in groups])
    options = {"shrinkage": args.shrinkage, "sizes": [len(group) for group in groups]}
    labels = [" + ".join(learners[position].name for position in group) for group in groups]
    fit = fit_stepwise(entering, targets, names=labels, **options)
    print_steps(fit)
    # Of one learner, not of a mean of several.
    weights, regression_weights = (
        [weight / len(group) for weight, group in zip(fitted.tolist(), groups, strict=True) for _ in group]
        for fitted in (fit.weights, fit.least_squares)
    )

    of_folds = [
        (model, weight / len(learner.models))
        for learner, weight in zip(learners, weights, strict=True)
        for model in learner.models
    ]
    ensemble = MetaQAPModel.from_base_models(
        [model for model, _ in of_folds], weights=[weight for _, weight in of_folds], intercept=fit.intercept
    )
    # Each image by a regression that has not seen it.
    unseen = cross_fitted(entering, targets, **options)
    ensemble.config.interval_radius = conformal_radius(unseen, targets, coverage=COVERAGE)
    ensemble.config.interval_coverage = COVERAGE
    rated = {learner.name: scores for learner, scores in zip(learners, learner_scores.T, strict=True)} | {
        "plain mean": learner_scores.mean(axis=1),
        "meta-learner": fit.predict(entering),
        "meta-learner, cross-fitted": unseen,
    }
    figures = {name: evaluate_scores(scores, targets, n_bootstrap=args.bootstrap) for name, scores in rated.items()}
    summary = figures["meta-learner, cross-fitted"]
    given = {"pretrained_on": args.pretrained_on, "trained_on": args.trained_on, "trained_with": args.trained_with}
    said = {key: given.get(key) or joined(learner.origins[key] for learner in learners) for key in ORIGINS}
    ensemble.config.training_summary = {key: text for key, text in said.items() if text} | {
        "meta_learner_fitted_on": f"{args.dataset} {args.split}, n {len(dataset)}",
        "measured_there": {name: summary[name]["value"] for name in ("plcc", "srocc")},
    }
    save_checkpoint(ensemble, args.output)
    record = {
        "dataset": args.dataset,
        "split": args.split,
        "folds": args.folds,
        "images_sha256": image_ids_sha256(dataset["image_id"]),
        "base_models": [
            {
                "name": learner.name,
                # With folds, one for each.
                "weights_sha256": learner.weights_sha256 if args.folds else learner.weights_sha256[0],
                "fine_tuned": learner.fine_tuned,
            }
            for learner in learners
        ],
        "shrinkage": args.shrinkage,
        "weights": weights,
        "regression_weights": regression_weights,
        "intercept": fit.intercept,
        "interval_radius": ensemble.config.interval_radius,
        "steps": [asdict(step) for step in fit.steps],
        "excluded": fit.excluded,
        "figures": figures,
    }
    write_atomically(args.output / "fit.json", (json.dumps(record, indent=2) + "\n").encode())
    for name, figure in figures.items():
        console.print(f"{name}: PLCC {figure['plcc']['value']:.4f}, SROCC {figure['srocc']['value']:.4f}")
    console.print(f"Wrote {args.output}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[], help="folders of base learners, or of ensembles")
    parser.add_argument(
        "--mean",
        nargs="+",
        action="append",
        default=[],
        metavar="MODEL",
        help="folders of base learners that enter the regression together, as their mean; may be given several times",
    )
    parser.add_argument(
        "--shrinkage",
        type=float,
        default=0.0,
        help="part of the way from the regression's weights to equal ones, 0 (default) to 1: the more, the less the "
        "images to be scored are like the data set; learners that are not selected stay out",
    )
    parser.add_argument(
        "--names", nargs="+", help="names for people to tell the base learners apart, those of --mean last"
    )
    parser.add_argument("--pretrained-on", help="what the learners started from, in words (ImageNet weights)")
    parser.add_argument(
        "--trained-on",
        help="data set and split that the learners were trained on, such as 'biq2021 train', where they do not say it",
    )
    parser.add_argument("--trained-with", help="what else than the data set the learners were trained with, in words")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--folds", type=int, default=0, metavar="K", help="the learners were trained on K folds")
    parser.add_argument(
        "--split",
        help="images that no learner was trained on (validation); with --folds, those that were cut into folds",
    )
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")
    parser.add_argument("--device")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    if args.trained_on and None in parts_of(args.trained_on):
        parser.error(f"--trained-on takes a data set and its split, such as 'biq2021 train', got {args.trained_on!r}")
    args.split = args.split or ("train+validation" if args.folds else "validation")
    if args.folds < 0 or args.folds == 1:
        parser.error(f"--folds must be at least 2, got {args.folds}")
    if not 0 <= args.shrinkage <= 1:
        parser.error(f"--shrinkage must lie in [0, 1], got {args.shrinkage}")
    paths = [path for group in (args.models, *args.mean) for path in group]
    if any(Path(path).resolve() == args.output.resolve() for path in paths):
        parser.error(f"--output {args.output} is one of the learners; write to another folder")
    if not paths:
        parser.error("name base learners with --models or --mean")
    if wrong := [path for path in paths if (FOLD_PLACEHOLDER in path) != bool(args.folds)]:
        parser.error(f"--folds and {FOLD_PLACEHOLDER} in the path of every model go together, not so in {wrong[0]}")
    try:
        fuse(args)
    except (MetaQAPError, DataError, TestSplitError, ValueError, OSError) as error:
        Console(stderr=True).print(
            f"fit_meta_learner: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
