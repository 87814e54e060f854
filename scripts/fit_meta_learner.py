"""Fuse trained base learners into one checkpoint.

    python scripts/fit_meta_learner.py --models runs/lite0/best runs/mobilenetv2/best --dataset biq2021 \
        --data_dir path/to/BIQ2021 --output_dir modeling_metaqap/checkpoints/metaqap-lite

    python scripts/fit_meta_learner.py --models runs/lite0-{fold}/refitted runs/mobilenetv2-{fold}/refitted --folds 5 \
        --dataset biq2021 --data_dir path/to/BIQ2021 --output_dir metaqap

    python scripts/fit_meta_learner.py --models runs/lite0/refitted --mean runs/mobilenetv2/refitted \
        runs/mobilenetv2-frozen/refitted --dataset biq2021 --data_dir path/to/BIQ2021 --output_dir metaqap

    python scripts/fit_meta_learner.py --mean modeling_metaqap/checkpoints/metaqap-lite --dataset folder \
        --data_dir data/mine --split train_full --output_dir my-metaqap

The stepwise regression is fitted on scores of images that no learner was trained on; learners that it does not
select are left out. Those are the images of `--split`, or with `--folds` all training images: `{fold}` in a path then
stands for 1 to K, each image is scored by the learner whose fold it was held out with (`scripts/train.py --hold_out
"fold 1 of 5"`), and the K learners of one path enter the ensemble together, as their mean. So do the learners of one
`--mean`: what one of them is worth on images unlike those of the data set, these images cannot tell. A learner that
was trained on an image that it is to score, as its lineage says, is refused. With `--shrinkage` the weights of the
selected learners are moved a part of the way to equal ones, for the same reason. The meta-learner is measured, and the
prediction interval calibrated, on scores that were fused by regressions on the other nine tenths of the images.

The learners of an ensemble, as in the last example, are fused anew: on your own ratings, without training. With
`--mean` their plain mean is brought to the scale of these ratings, for which a few are enough; with `--models` each
gets a weight of its own, for which it takes a few hundred.
The checkpoint holds matrices in float16, and everything else in float32; a `fit.json` beside it says how it was fused.
Under `accelerate launch` the images are shared out among the processes.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from modeling_metaqap.data.accelerate_state import process_state
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.fusion.fusing import FusionSettings, fuse
from modeling_metaqap.fusion.stepwise import StepwiseFit
from modeling_metaqap.memory import keep_freed_memory

console = Console(width=None if sys.stdout.isatty() else 140)


def print_steps(fit: StepwiseFit) -> None:
    table = Table(title="Stepwise linear regression", title_justify="left")
    for heading in ("step", "action", "base learner", "p", "beta", "R^2", "because"):
        table.add_column(heading)
    for number, step in enumerate(fit.steps, start=1):
        figures = (f"{step.p_value:.2g}", f"{step.beta:+.3f}", f"{step.r_squared:.4f}")
        table.add_row(str(number), step.action, step.name, *figures, step.reason)
    console.print(table)
    for name, reason in fit.excluded.items():
        console.print(f"excluded: {name}, {reason}", highlight=False)


def parse_arguments() -> argparse.Namespace:
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
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--folds", type=int, default=0, metavar="K", help="the learners were trained on K folds")
    parser.add_argument(
        "--split",
        help="images that no learner was trained on (validation); with --folds, those that were cut into folds",
    )
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument(
        "--coverage", type=float, default=0.9, help="share of opinions that the interval is to hold (0.9)"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")
    parser.add_argument("--device")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    settings = FusionSettings(
        models=args.models,
        means=args.mean,
        names=args.names,
        dataset=args.dataset,
        split=args.split or ("train+validation" if args.folds else "validation"),
        folds=args.folds,
        shrinkage=args.shrinkage,
        coverage=args.coverage,
        n_bootstrap=args.bootstrap,
        data_dir=args.data_dir,
        cache_dir=args.cache_dir,
        device=args.device,
    )
    if any(Path(path).resolve() == args.output_dir.resolve() for path in settings.paths):
        raise MetaQAPError(f"--output_dir {args.output_dir} is one of the learners; write to another folder.")
    is_main = process_state().is_main_process
    errors = Console(stderr=True, quiet=not is_main)
    fusion = fuse(settings, announce=lambda text: errors.print(text, highlight=False, markup=False, soft_wrap=True))
    if not is_main:
        return
    print_steps(fusion.fit)
    fusion.save(args.output_dir)
    for name, figure in fusion.record["figures"].items():
        console.print(f"{name}: PLCC {figure['plcc']['value']:.4f}, SROCC {figure['srocc']['value']:.4f}")
    console.print(f"Wrote {args.output_dir}.")


def main() -> None:
    args = parse_arguments()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    with exit_with_sentence("fit_meta_learner"):
        run(args)


if __name__ == "__main__":
    main()
