"""Fuse trained base learners into one checkpoint.

    python scripts/fit_meta_learner.py --models runs/lite0/best runs/mobilenetv2/best --dataset biq2021 \
        --data_dir path/to/BIQ2021 --output modeling_metaqap/checkpoints/metaqap-lite

    python scripts/fit_meta_learner.py --models runs/lite0-{fold}/refitted runs/mobilenetv2-{fold}/refitted --folds 5 \
        --dataset biq2021 --data_dir path/to/BIQ2021 --output metaqap

    python scripts/fit_meta_learner.py --models runs/lite0/refitted --mean runs/mobilenetv2/refitted \
        runs/mobilenetv2-frozen/refitted --dataset biq2021 --data_dir path/to/BIQ2021 --output metaqap

The stepwise regression is fitted on scores of images that no learner was trained on; learners that it does not
select are left out. Those are the images of `--split`, or with `--folds` all training images: `{fold}` in a path then
stands for 1 to K, each image is scored by the learner whose fold it was held out with (`scripts/train.py --hold_out
"fold 1 of 5"`), and the K learners of one path enter the ensemble together, as their mean. So do the learners of one
`--mean`: what one of them is worth on images unlike those of the data set, these images cannot tell. A learner whose
run folder says that it was trained on an image that it is to score is refused. With `--shrinkage` the weights of the
selected learners are moved a part of the way to equal ones, for the same reason. The meta-learner is measured, and the
90 % prediction interval calibrated, on scores that were fused by regressions on the other nine tenths of the images.
The checkpoint holds matrices in float16, and everything else in float32; a `fit.json` beside it says how it was made.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.calibration import conformal_radius
from modeling_metaqap.evaluation import EvaluationError, distinct_names, image_list_sha256, predict
from modeling_metaqap.iqa_datasets import IQADatasetError, TestSplitError, hold_out, load_training_split
from modeling_metaqap.meta_learner import StepwiseFit, cross_fitted, fit_stepwise
from modeling_metaqap.metrics import evaluate_scores
from modeling_metaqap.release import save_release, weights_sha256
from modeling_metaqap.scoring import Scorer, ScoringError
from modeling_metaqap.training import Recipe, RecipeError, RunFolder, load_rated

console = Console(width=None if sys.stdout.isatty() else 140)

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


def refuse_seen(path: str, images: datasets.Dataset, args: argparse.Namespace) -> None:
    """Raise `RecipeError` if the run that a learner lies in was trained on any of the images.

    What an earlier run that it started from was trained on is not looked up; a learner outside of a run folder tells
    nothing.
    """
    settings = Path(path).parent / "recipe.yaml"
    if not settings.exists():
        return
    recipe = Recipe.load(settings)
    if recipe.stage != "finetune" or recipe.dataset != args.dataset:
        return
    trained_on = set(load_rated(recipe, data_dir=args.data_dir, cache_dir=args.cache_dir)[0]["image_id"])
    if seen := len(trained_on.intersection(images["image_id"])):
        raise RecipeError(
            f"{path} was trained on {seen:,} of the {len(images):,} images that it would be scored on; take a --split "
            "that it has not seen, or --folds."
        )


def was_fine_tuned(path: str) -> bool:
    """Whether gradient steps trained a learner; not if its run only fitted heads on ImageNet weights."""
    run = RunFolder(Path(path).parent)
    origin = run.origin()
    return origin is None or origin["weights_sha256"] is not None or Recipe.load(run.path / "recipe.yaml").epochs > 0


def unseen_images(dataset: datasets.Dataset, args: argparse.Namespace) -> list[datasets.Dataset]:
    """The images that the learner of each fold has not seen; all of them where there are no folds."""
    if not args.folds:
        return [dataset]
    folds = range(1, args.folds + 1)
    return [hold_out(dataset, f"fold {fold} of {args.folds}", name=args.dataset)[1] for fold in folds]


def unseen_scores(
    paths: list[str], dataset: datasets.Dataset, parts: list[datasets.Dataset], args: argparse.Namespace
) -> npt.NDArray[np.float64]:
    """Scores `(n,)` of all images, each by the learner that has not seen it: the only one, or that of its fold."""
    scores = np.full(len(dataset), np.nan)
    row_of = {image_id: row for row, image_id in enumerate(dataset["image_id"])}
    for path, images in zip(paths, parts, strict=True):
        with console.status(f"Scoring {len(images)} images with {path} ..."):
            scores[[row_of[image_id] for image_id in images["image_id"]]] = predict(
                Scorer(path, device=args.device), images
            ).quality
    return scores


def fuse(args: argparse.Namespace) -> None:
    dataset = load_training_split(args.dataset, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    targets = np.array(dataset["quality"])
    groups = [[path] for path in args.models] + args.mean
    # One entry for each learner, with a path for each fold.
    paths = [
        [path.replace(FOLD_PLACEHOLDER, str(fold)) for fold in range(1, max(args.folds, 1) + 1)]
        for group in groups
        for path in group
    ]
    # Before any of them is scored, which takes minutes.
    parts = unseen_images(dataset, args)
    for learner in paths:
        for path, images in zip(learner, parts, strict=True):
            refuse_seen(path, images, args)
    models = [[MetaQAPModel.from_pretrained(path) for path in learner] for learner in paths]
    names = args.names or [str(learner[0].config.base_learners[0]["name"]) for learner in models]  # type: ignore[index]
    names = distinct_names(names)
    for name, learner in zip(names, models, strict=True):
        for model in learner:
            model.config.base_learners[0]["name"] = name  # type: ignore[index]
    learner_scores = np.column_stack([unseen_scores(learner, dataset, parts, args) for learner in paths])

    # What enters the regression: the learners of one group as their mean.
    members = np.split(np.arange(len(paths)), np.cumsum([len(group) for group in groups])[:-1])
    entering = np.column_stack([learner_scores[:, group].mean(axis=1) for group in members])
    options = {"shrinkage": args.shrinkage, "sizes": [len(group) for group in members]}
    labels = [" + ".join(names[index] for index in group) for group in members]
    fit = fit_stepwise(entering, targets, names=labels, **options)
    print_steps(fit)
    # Of one learner, not of a mean of several.
    weights, regression_weights = (
        [weight / len(group) for weight, group in zip(fitted.tolist(), members, strict=True) for _ in group]
        for fitted in (fit.weights, fit.least_squares)
    )

    ensemble = MetaQAPModel.from_base_models(
        [model for learner in models for model in learner],
        weights=[weight / len(learner) for weight, learner in zip(weights, models, strict=True) for _ in learner],
        intercept=fit.intercept,
    )
    # Each image by a regression that has not seen it.
    unseen = cross_fitted(entering, targets, **options)
    ensemble.config.interval_radius = conformal_radius(unseen, targets, coverage=0.9)
    rated = dict(zip(names, learner_scores.T, strict=True)) | {
        "plain mean": learner_scores.mean(axis=1),
        "meta-learner": fit.predict(entering),
        "meta-learner, cross-fitted": unseen,
    }
    figures = {name: evaluate_scores(scores, targets, n_bootstrap=args.bootstrap) for name, scores in rated.items()}
    summary = figures["meta-learner, cross-fitted"]
    ensemble.config.training_summary = {
        "pretrained_on": args.pretrained_on,
        "trained_on": f"{args.dataset} train",
        "trained_with": args.trained_with,
        "meta_learner_fitted_on": f"{args.dataset} {args.split}, n {len(dataset)}",
        "measured_there": {name: summary[name]["value"] for name in ("plcc", "srocc")},
    }
    save_release(ensemble, args.output)
    record = {
        "dataset": args.dataset,
        "split": args.split,
        "folds": args.folds,
        "images_sha256": image_list_sha256(dataset),
        "base_models": [
            {
                "name": name,
                # With folds, one for each.
                "weights_sha256": [weights_sha256(path) for path in learner]
                if args.folds
                else weights_sha256(learner[0]),
                "fine_tuned": any(map(was_fine_tuned, learner)),
            }
            for name, learner in zip(names, paths, strict=True)
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
    (args.output / "fit.json").write_text(json.dumps(record, indent=2) + "\n")
    for name, figure in figures.items():
        console.print(f"{name}: PLCC {figure['plcc']['value']:.4f}, SROCC {figure['srocc']['value']:.4f}")
    console.print(f"Wrote {args.output}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[], help="folders of trained base learners")
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
        "images to be scored are like the data set",
    )
    parser.add_argument(
        "--names", nargs="+", help="names for people to tell the base learners apart, those of --mean last"
    )
    parser.add_argument("--pretrained-on", default="ImageNet weights", help="what the learners started from, in words")
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
    args.split = args.split or ("train+validation" if args.folds else "validation")
    if args.folds < 0 or args.folds == 1:
        parser.error(f"--folds must be at least 2, got {args.folds}")
    if not 0 <= args.shrinkage <= 1:
        parser.error(f"--shrinkage must lie in [0, 1], got {args.shrinkage}")
    learners = [path for group in (args.models, *args.mean) for path in group]
    if not learners:
        parser.error("name base learners with --models or --mean")
    if wrong := [path for path in learners if (FOLD_PLACEHOLDER in path) != bool(args.folds)]:
        parser.error(f"--folds and {FOLD_PLACEHOLDER} in the path of every model go together, not so in {wrong[0]}")
    if args.names and len(args.names) != len(learners):
        parser.error(f"got {len(learners)} models but {len(args.names)} names")
    try:
        fuse(args)
    except (EvaluationError, IQADatasetError, RecipeError, ScoringError, TestSplitError, ValueError, OSError) as error:
        Console(stderr=True).print(
            f"fit_meta_learner: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
