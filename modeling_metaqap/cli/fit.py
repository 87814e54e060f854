r"""Fuse trained base learners into one checkpoint.

    metaqap fit --models runs/lite0/best runs/mobilenetv2/best --dataset biq2021 --data-dir path/to/BIQ2021 \
        --output-dir my-ensemble

    metaqap fit --models runs/lite0-{fold}/refitted runs/mobilenetv2-{fold}/refitted --folds 5 \
        --dataset biq2021 --data-dir path/to/BIQ2021 --output-dir my-ensemble

    metaqap fit --models runs/lite0/refitted --mean runs/mobilenetv2/refitted runs/mobilenetv2-frozen/refitted \
        --dataset biq2021 --data-dir path/to/BIQ2021 --output-dir my-ensemble

    metaqap fit --mean path/to/metaqap-lite --dataset folder --data-dir path/to/photographs --csv ratings.csv \
        --mos-range 1 5 --split train_full --output-dir my-metaqap

The stepwise regression is fitted on scores of images that no learner was trained on; learners that it does not
select are left out. Those are the images of `--split`, or with `--folds` all training images: `{fold}` in a path then
stands for 1 to K, each image is scored by the learner whose fold it was held out with (`metaqap train --hold-out
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
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.rating_options import RatingOptions, add_rating_options
from ..errors import MetaQAPError
from .program import AddOption, Program

if TYPE_CHECKING:
    from ..fusion.stepwise import StepwiseFit


def _options(add: AddOption) -> None:
    add("--models", nargs="+", default=[], help="folders of base learners, or of ensembles")
    add(
        "--mean",
        nargs="+",
        action="append",
        default=[],
        metavar="MODEL",
        help="folders of base learners that enter the regression together, as their mean; may be given several times",
    )
    add(
        "--shrinkage",
        type=float,
        default=0.0,
        help="part of the way from the regression's weights to equal ones, 0 (default) to 1: the more, the less the "
        "images to be scored are like the data set; learners that are not selected stay out",
    )
    add("--names", nargs="+", help="names for people to tell the base learners apart, those of --mean last")
    add("--dataset", required=True, metavar="NAME", help="with the opinion scores; folder for your own photographs")
    add("--folds", type=int, default=0, metavar="K", help="the learners were trained on K folds")
    add(
        "--split",
        help="images that no learner was trained on (validation); with --folds, those that were cut into folds",
    )
    add(
        "--data_dir",
        help="what the publisher distributes or what `metaqap prepare` made of it; downloaded where the publisher "
        "allows it if left out",
    )
    add_rating_options(add)
    add("--cache_dir", help="where the prepared data set is kept")
    add("--output_dir", required=True, type=Path, help="folder of the new checkpoint")
    add("--coverage", type=float, default=0.9, help="share of opinions that the interval is to hold (0.9)")
    add("--bootstrap", type=int, default=1000, help="draws of the bootstrap; 0 for no intervals")
    add("--device", help="such as cuda:1; default this process's GPU if there is one")


def _run(args: argparse.Namespace) -> None:
    from ..data.accelerate_state import process_state
    from ..fusion.fusing import FusionSettings, fuse
    from .printing import console, errors, silence_libraries

    silence_libraries()
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
        ratings=RatingOptions.of(vars(args)),
        device=args.device,
    )
    if any(Path(path).resolve() == args.output_dir.resolve() for path in settings.paths):
        raise MetaQAPError(f"`output_dir` {args.output_dir} is one of the learners; write to another folder.")
    is_main = process_state().is_main_process

    def announce(text: str) -> None:
        if is_main:
            errors.print(text, markup=False, soft_wrap=True)

    fusion = fuse(settings, announce=announce)
    if not is_main:
        return
    _print_steps(fusion.fit)
    fusion.save(args.output_dir)
    for name, figure in fusion.record["figures"].items():
        console.print(f"{name}: PLCC {figure['plcc']['value']:.4f}, SROCC {figure['srocc']['value']:.4f}")
    console.print(f"Wrote {args.output_dir}.", markup=False, soft_wrap=True)


def _print_steps(fit: "StepwiseFit") -> None:
    from rich.table import Table

    from .printing import console

    table = Table(title="Stepwise linear regression", title_justify="left")
    for heading in ("step", "action", "base learner", "p", "beta", "R^2", "because"):
        table.add_column(heading)
    for number, step in enumerate(fit.steps, start=1):
        figures = (f"{step.p_value:.2g}", f"{step.beta:+.3f}", f"{step.r_squared:.4f}")
        table.add_row(str(number), step.action, step.name, *figures, step.reason)
    console.print(table)
    for name, reason in fit.excluded.items():
        console.print(f"excluded: {name}, {reason}", markup=False)


PROGRAM = Program(command="fit", script="fit_meta_learner", description=__doc__, options=_options, run=_run)
