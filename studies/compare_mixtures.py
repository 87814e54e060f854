"""Is it worth training on several sets at once, each with a scale of its own?

    python studies/compare_mixtures.py --recipe scripts/recipes/ablation.yaml --data_dir path/to/BIQ2021 \
        --other livec --other_dir path/to/ChallengeDB_release --seeds 0 1 --output_dir runs/mixtures

Base learners are trained with one recipe on

    one set         BIQ2021 as the set that it is
    its sources     each of BIQ2021's sources as a set of its own; each photograph is drawn as often as before
    with another    BIQ2021 and the training part of the first seeded split of another set (with --other)

and measured after the last epoch, so that nothing is chosen: on BIQ2021's validation split, whole and by source, and
on the 20 % of the other set's split. The recipe, --train_split and --epochs are the budget. The other set makes an
epoch longer by its own images; --other_weight draws from it more often.
Runs that are done are not repeated and a stopped one goes on, so the command can be repeated until it is done. Further
options, after `--`, go to `accelerate launch`.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from study_tables import HOME, mixtures_table

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.evaluating import Measurement, NamedDataset, evaluate
from modeling_metaqap.evaluation.metrics import plcc_and_srocc
from modeling_metaqap.lineage import software_versions
from modeling_metaqap.training.launching import finish_run
from modeling_metaqap.training.recipe import Recipe

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "mixtures.json"


def mixtures(recipe: Recipe, args: argparse.Namespace) -> Iterator[tuple[str, Recipe, str | None | list[str | None]]]:
    """Name, recipe and folders of each way to train."""
    alone = {"dataset": args.dataset, "train_split": recipe.train_split, "validation_split": recipe.validation_split}
    several = replace(recipe, dataset="biq2021", train_split="train", validation_split="validation")
    yield "one set", recipe, args.data_dir
    sources = [{**alone, "name": source.strip("*"), "images": source} for source in args.sources]
    yield "its sources", replace(several, datasets=sources), args.data_dir
    if args.other is not None:
        other = {"dataset": args.other, "train_split": "train_0", "validation_split": "validation_0"}
        sets = [alone, other]
        if args.other_weight is not None:
            sets = [{**one, "weight": weight} for one, weight in zip(sets, (1.0, args.other_weight), strict=True)]
        yield "with another", replace(several, datasets=sets), [args.data_dir, args.other_dir]


def measure(checkpoint: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """PLCC and SROCC of a checkpoint at each place."""

    def on(dataset: str, folder: str | None, split: str) -> Measurement:
        named = NamedDataset(name=dataset, data_dir=folder)
        [measured] = evaluate([str(checkpoint)], [named], splits=[split], cache_dir=args.cache_dir, n_bootstrap=0)
        return measured

    home = on(args.dataset, args.data_dir, args.validation_split)
    figures = {HOME: correlations(home, range(len(home.image_ids)))}
    for source in args.sources:
        rows = [row for row, image_id in enumerate(home.image_ids) if fnmatchcase(image_id, source)]
        figures[source] = correlations(home, rows)
    if args.other is not None:
        away = on(args.other, args.other_dir, "test_0")
        figures[args.other] = correlations(away, range(len(away.image_ids)))
    return figures


def correlations(measured: Measurement, rows: Sequence[int]) -> dict[str, float]:
    chosen = np.array(rows)
    return {**plcc_and_srocc(measured.predictions[chosen], measured.qualities[chosen]), "n": len(chosen)}


def compare(args: argparse.Namespace) -> None:
    values = {"train_split": args.train_split, "validation_split": args.validation_split, "epochs": args.epochs}
    recipe = Recipe.load(args.recipe, dataset=args.dataset, **values)
    if recipe.refit_head:
        raise MetaQAPError("The recipe has `refit_head`, but what is compared are gradient steps; leave it out.")
    args.validation_split = recipe.validation_split
    args.output_dir.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "recipe": asdict(recipe),
        "sources": args.sources,
        "other": args.other,
        "other_weight": args.other_weight,
        "seeds": args.seeds,
        "versions": software_versions(),
        "mixtures": {},
    }
    for seed in args.seeds:
        for name, mixture, folders in mixtures(replace(recipe, seed=seed), args):
            console.print(f"{name}, seed {seed} ...", highlight=False)
            options = {"data_dir": folders, "cache_dir": args.cache_dir, "num_workers": args.num_workers}
            folder = args.output_dir / f"{name.replace(' ', '-')}_{seed}"
            run = finish_run(mixture, folder, launch=args.launch, options=options)
            runs = result["mixtures"].setdefault(name, {"runs": []})["runs"]
            lines = {key: value for row in run.rows() for key, value in row.items() if key.startswith("line_")}
            runs.append({"seed": seed, "figures": measure(folder / "last", args), "lines": lines})
            result["mixtures"][name]["mean"] = mean_figures([one["figures"] for one in runs])
            # Written after each run, so that what is known can be read while the rest is trained.
            write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())
    console.print(mixtures_table(result).rich(title=f"PLCC / SROCC, mean over seeds {args.seeds}"))


def mean_figures(several: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean over runs of the figures at each place."""
    return {
        place: {name: statistics.mean(one[place][name] for one in several) for name in several[0][place]}
        for place in several[0]
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, help="for fine-tuning on one set; its budget is that of all")
    parser.add_argument("--dataset", default="biq2021", help="with several sources (%(default)s)")
    parser.add_argument("--sources", nargs="+", default=["ss01*", "ss02*", "ss03*"], metavar="PATTERN")
    parser.add_argument("--train_split", help="instead of the recipe's")
    parser.add_argument("--validation_split", help="instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--other", metavar="NAME", help="another set without an official split, such as livec")
    parser.add_argument("--other_weight", type=float, help="its weight in the batches; that of the first set is 1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--data_dir")
    parser.add_argument("--other_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of all the runs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    parser.add_argument("launch", nargs="*", help="after --: options of accelerate launch")
    args = parser.parse_args(arguments)
    with exit_with_sentence("compare_mixtures"):
        compare(args)


if __name__ == "__main__":
    main()
