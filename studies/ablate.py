"""Train one base learner with and without each part of the method and write one table.

    python studies/ablate.py --recipe scripts/recipes/ablation.yaml --init runs/mobilenetv2-pretrained/best \
        --data_dir path/to/BIQ2021 --sources "ss01*" "ss02*" "ss03*" --seeds 0 1 --output_dir runs/ablation

Every variant has the recipe's budget and the same seeds. It is measured at home, on the recipe's validation split, and
for each of `--sources`, a pattern of image ids, on those images after training on all others: what a part is worth on
photographs from elsewhere. Always after the last epoch: the best one would be chosen on the images that it is measured
on. The variants:

    full                        the recipe, from --init if it is given
    without pretraining         from ImageNet weights (only with --init)
    without the rank loss       mean squared error alone
    last stage only             the pooled features of the backbone's last stage alone, from ImageNet weights: a
                                pretrained learner has all stages, so compare this one with "without pretraining"
    without refitted heads      the head that gradient steps on crops have made (if the recipe has `refit_head`; as the
                                ones below, it shares the gradient steps of "full")
    without the way back        the backbone as fine-tuning leaves it (if the recipe has an `imagenet_share`)
    without the kernel head     the linear quality head alone (if the recipe has a kernel head)
    without distorted images    opinions alone fit the quality head (if the recipe has a `distorted_weight`)

What the meta-learner adds is in the `fit.json` of a fused checkpoint: best single learner, plain mean, meta-learner;
on left-out sources studies/compare_fusions.py tells it.
Runs that are done are not repeated and a stopped one goes on, so the command can be repeated until it is done. Further
options, after `--`, go to `accelerate launch`.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from study_tables import HOME, ablation_table

from modeling_metaqap import MetaQAPModel
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.lineage import software_versions
from modeling_metaqap.training.launching import finish_run
from modeling_metaqap.training.learner import model_config
from modeling_metaqap.training.recipe import Recipe
from modeling_metaqap.training.run_folder import RunFolder
from modeling_metaqap.training.splits import load_rated

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "ablation.json"


#: What a recipe says of the heads that are fitted at the end, as one without such heads has it.
NO_HEADS: dict[str, Any] = {
    "refit_head": False,
    "imagenet_share": 0.0,
    "distorted_weight": 0.0,
    "refit_distortion_head": False,
    "kernel_components": 0,
}


@dataclass(frozen=True)
class Variant:
    """A recipe with one part of the method left out, and the learner that it starts from."""

    name: str
    recipe: Recipe
    init: str | None
    #: The variant whose gradient steps it shares.
    trained_as: str


def number_of_stages(recipe: Recipe) -> int:
    """Of the recipe's backbone.

    Raises:
        MetaQAPError: if timm has no such CNN.
    """
    try:
        model = MetaQAPModel(model_config(replace(recipe, stages=None)))
    except ValueError as error:
        raise MetaQAPError(str(error)) from error
    learner: Any = model.base_learners[0]
    return len(learner.backbone.feature_info)


def variants(recipe: Recipe, init: str | None) -> list[Variant]:
    """The whole method first, then each way to do without a part that it has."""
    found = [Variant("full", recipe, init, "full")]

    def without(name: str, recipe: Recipe, init: str | None) -> None:
        found.append(Variant(name, recipe, init, name))

    if init is not None:
        without("without pretraining", recipe, None)
    if recipe.loss_srocc_weight:
        # Its weight goes to the squared error, so that the loss keeps its size.
        total = recipe.loss_mse_weight + recipe.loss_srocc_weight
        without("without the rank loss", replace(recipe, loss_mse_weight=total, loss_srocc_weight=0.0), init)
    last = number_of_stages(recipe) - 1
    if recipe.stages != [last]:
        without("last stage only", replace(recipe, stages=[last]), None)
    for name, has, changes in (
        ("without refitted heads", recipe.refit_head, NO_HEADS),
        ("without the way back", recipe.imagenet_share, {"imagenet_share": 0.0}),
        ("without the kernel head", recipe.kernel_components, {"kernel_components": 0}),
        ("without distorted images", recipe.distorted_weight, {"distorted_weight": 0.0}),
    ):
        if has:
            found.append(Variant(name, replace(recipe, **changes), init, "full"))
    return found


def measured_on(recipe: Recipe, source: str, seed: int) -> Recipe:
    """The recipe of a run that has not seen the images of one place."""
    return replace(recipe, hold_out=None if source == HOME else source, seed=seed)


def train(variant: Variant, source: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """The runs of a variant; its figures at the end, on the images that it has not seen."""
    place = "home" if source == HOME else "".join(character for character in source if character.isalnum())
    recipe = measured_on(variant.recipe, source, seed)
    options = {name: getattr(args, name) for name in ("data_dir", "cache_dir", "distorted_dir", "num_workers")}
    console.print(f"{variant.name}, measured on the {source}, seed {seed} ...", highlight=False)

    def run(recipe: Recipe, name: str, init: str | Path | None) -> RunFolder:
        folder = args.output_dir / f"{name.replace(' ', '-')}_{place}_{seed}"
        return finish_run(recipe, folder, launch=args.launch, options=options | {"init": init})

    done = run(replace(recipe, **NO_HEADS), variant.trained_as, variant.init)
    if recipe.refit_head:
        done = run(replace(recipe, epochs=0), f"{variant.name}_heads", done.path / "last")
    last = [row for row in done.rows() if "validation_srocc" in row][-1]
    return {name: last[f"validation_{name}"] for name in ("plcc", "srocc")}


def ablate(args: argparse.Namespace) -> None:
    recipe = Recipe.load(args.recipe)
    if recipe.datasets is not None:
        raise MetaQAPError("Recipes with several `datasets` are compared by compare_mixtures.py.")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "recipe": asdict(recipe),
        "pretrained": args.init is not None,
        "sources": args.sources,
        "n": {},
        "seeds": args.seeds,
        "versions": software_versions(),
        "variants": {},
    }
    found = variants(recipe, args.init)
    for source in (HOME, *args.sources):
        for variant in found:
            runs = [train(variant, source, seed, args) for seed in args.seeds]
            if source not in result["n"]:
                [measured] = measured_on(recipe, source, args.seeds[0]).sets
                parts = load_rated(measured, **measured.where(args.data_dir, args.cache_dir))
                result["n"][source] = [len(part) for part in parts]
            row = result["variants"].setdefault(variant.name, {})
            row[source] = {name: statistics.mean(run[name] for run in runs) for name in ("plcc", "srocc")}
            row[source]["runs"] = runs
            # Written after each variant, so that what is known can be read while the rest is trained.
            write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())
    console.print(ablation_table(result).rich(title=f"PLCC / SROCC, mean over seeds {args.seeds}"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="YAML file of the whole method, for fine-tuning")
    parser.add_argument("--init", help="pretrained base learner to start from")
    parser.add_argument(
        "--sources", nargs="*", default=[], metavar="PATTERN", help="ids of images to leave out in turn"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--distorted_dir", help="for recipes that learn from distorted images")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of all the runs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    parser.add_argument("launch", nargs="*", help="after --: options of accelerate launch")
    args = parser.parse_args(arguments)
    with exit_with_sentence("ablate"):
        ablate(args)


if __name__ == "__main__":
    main()
