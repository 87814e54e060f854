"""Train one base learner with and without each part of the method and write one table.

    python scripts/ablate.py --recipe scripts/recipes/ablation.yaml --init runs/mobilenetv2-pretrained/best \
        --data_dir path/to/BIQ2021 --sources "ss01*" "ss02*" "ss03*" --seeds 0 1 --output_dir runs/ablation

Every variant has the recipe's budget and the same seeds. It is measured at home, on the recipe's validation split, and
for each of `--sources`, a pattern of image ids, on those images after training on all others: what a part is worth on
photographs from elsewhere. The variants:

    full                      the recipe, from --init if it is given
    without pretraining       from ImageNet weights (only with --init)
    without the rank loss     mean squared error alone
    last stage only           the pooled features of the backbone's last stage alone, from ImageNet weights: a
                              pretrained learner has all stages, so compare this one with "without pretraining"
    without the kernel head   the linear quality head alone (only if the recipe has a kernel head)
    without distorted images  opinions alone fit the quality head (only if the recipe has a `distorted_weight`)

What the meta-learner adds is in the `fit.json` of a fused checkpoint: best single learner, plain mean, meta-learner.
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

import timm
from rich.console import Console
from rich.table import Table

from modeling_metaqap.evaluation import software_versions
from modeling_metaqap.training import Recipe, RecipeError
from modeling_metaqap.training.launching import finish_run

console = Console(width=None if sys.stdout.isatty() else 140)

TRAIN = Path(__file__).with_name("train.py")
OUTPUT = Path(__file__).parents[1] / "hub_card" / "ablation.json"
HOME = "validation split"


@dataclass(frozen=True)
class Variant:
    """A recipe with one part of the method left out, and the learner that it starts from."""

    name: str
    recipe: Recipe
    init: str | None


def variants(recipe: Recipe, init: str | None) -> list[Variant]:
    """The whole method first, then each way to do without a part that it has."""
    found = [Variant("full", recipe, init)]
    if init is not None:
        found.append(Variant("without pretraining", recipe, None))
    if recipe.loss_srocc_weight:
        # Its weight goes to the squared error, so that the loss keeps its size.
        total = recipe.loss_mse_weight + recipe.loss_srocc_weight
        alone = replace(recipe, loss_mse_weight=total, loss_srocc_weight=0.0)
        found.append(Variant("without the rank loss", alone, init))
    last = len(timm.create_model(recipe.backbone, features_only=True).feature_info) - 1  # type: ignore[arg-type]
    if recipe.stages != [last]:
        found.append(Variant("last stage only", replace(recipe, stages=[last]), None))
    if recipe.kernel_components:
        found.append(Variant("without the kernel head", replace(recipe, kernel_components=0), init))
    if recipe.distorted_weight:
        found.append(Variant("without distorted images", replace(recipe, distorted_weight=0.0), init))
    return found


def train(variant: Variant, source: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """One run; its figures at the end, on the images that it has not seen."""
    held_out = None if source == HOME else source
    place = "".join(character for character in source if character.isalnum()) if held_out else "home"
    folder = args.output_dir / f"{variant.name.replace(' ', '-')}_{place}_{seed}"
    console.print(f"{variant.name}, measured on the {source}, seed {seed} ...", highlight=False)
    run = finish_run(
        replace(variant.recipe, hold_out=held_out, seed=seed),
        folder,
        script=TRAIN,
        launch=args.launch,
        options={name: getattr(args, name) for name in ("data_dir", "cache_dir", "distorted_dir", "num_workers")}
        | {"init": variant.init},
    )
    last = [row for row in run.rows() if "validation_srocc" in row][-1]
    return {name: last[f"validation_{name}"] for name in ("plcc", "srocc")}


def table(result: dict[str, Any]) -> Table:
    sources = [HOME, *result["sources"]]
    shown = Table("variant", title=f"PLCC / SROCC, mean of {len(result['seeds'])} seeds")
    for source in sources:
        shown.add_column(source if source == HOME else f"{source}, trained on the others", justify="right")
    for name, row in result["variants"].items():
        cells = []
        for source in sources:
            figures = row.get(source)
            cells.append("" if figures is None else f"{figures['plcc']:.3f} / {figures['srocc']:.3f}")
        shown.add_row(name, *cells)
    return shown


def ablate(args: argparse.Namespace) -> None:
    recipe = Recipe.load(args.recipe)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "recipe": asdict(recipe),
        "pretrained": args.init is not None,
        "sources": args.sources,
        "seeds": args.seeds,
        "versions": software_versions(),
        "variants": {},
    }
    found = variants(recipe, args.init)
    for source in [HOME, *args.sources]:
        for variant in found:
            runs = [train(variant, source, seed, args) for seed in args.seeds]
            row = result["variants"].setdefault(variant.name, {})
            row[source] = {name: statistics.mean(run[name] for run in runs) for name in ("plcc", "srocc")}
            row[source]["runs"] = runs
            # Written after each variant, so that what is known can be read while the rest is trained.
            args.results.write_text(json.dumps(result, indent=1) + "\n")
    console.print(table(result))


def main() -> int:
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
    parser.add_argument("--results", type=Path, default=OUTPUT, help="JSON to write (hub_card/ablation.json)")
    parser.add_argument("launch", nargs="*", help="after --: options of accelerate launch")
    args = parser.parse_args()
    try:
        ablate(args)
    except (RecipeError, OSError) as error:
        Console(stderr=True).print(f"ablate: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
