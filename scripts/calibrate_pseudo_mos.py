"""Set the scale of the pseudo opinion score, and measure how well it orders the distortion levels.

Both read distorted sets that scripts/distort.py made of pristine photographs, with all 125 distorted images of each
photograph and all metrics:

    for set in population-256 population-384 population-512 check; do
        python scripts/distort.py --pristine_dir PHOTOGRAPHS --list $set.txt --output_dir data/$set --per_image 125 ...
    done
    python scripts/calibrate_pseudo_mos.py --population data/population-* --check data/check

The photographs of `--population` become the reference population, whose quantiles are written into the package
(reference_population.json). Those of `--check` must be different ones; they are scored against it and reported in
studies/results/distortions.json. `--population` may be left out to report only.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distorted import pseudo_mos
from modeling_metaqap.data.distorted.reference_population import (
    levels_report,
    read_distorted_sets,
    reference_population,
)
from modeling_metaqap.data.distortions import LEVELS
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.tables import TextTable
from modeling_metaqap.memory import keep_freed_memory

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)

POPULATION = Path(pseudo_mos.__file__).with_name(pseudo_mos.POPULATION_FILE)
REPORT = Path(__file__).parents[1] / "studies" / "results" / "distortions.json"


def show(report: dict[str, Any]) -> None:
    cells = [
        [
            name + (" (signed)" if row["signed"] else ""),
            *(f"{mean:.3f}" for mean in row["mean_pseudo_mos"]),
            f"{row['five_levels_in_order']:.0%}",
            f"{row['adjacent_levels_in_order']:.0%}",
            "yes" if row["mean_falls_with_level"] else "no",
        ]
        for name, row in report["pseudo_mos"]["distortions"].items()
    ]
    headings = ["distortion", *map(str, LEVELS), "in order", "adjacent", "mean falls"]
    title = f"Pseudo opinion score of {report['photographs']} photographs by level"
    console.print(TextTable(headings, cells).rich(title=title))
    for group, row in report["pseudo_mos"]["summary"].items():
        console.print(
            f"{group}: all five levels in order {row['five_levels_in_order']:.1%}, adjacent levels "
            f"{row['adjacent_levels_in_order']:.1%}; the mean falls for {row['mean_falls_with_level']} "
            f"of {row['distortions']}"
        )
    fast = report["fast"]
    console.print(f"fast: SROCC with full {fast['srocc_with_full']:.4f}, PLCC {fast['plcc_with_full']:.4f}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def calibrate(args: argparse.Namespace) -> None:
    checked, check_settings = read_distorted_sets(args.check)
    if args.population:
        frame, settings = read_distorted_sets(args.population)
        if shared := set(frame["reference_id"]) & set(checked["reference_id"]):
            raise MetaQAPError(
                f"{len(shared)} photographs are in both sets, such as {min(shared)}; the check needs others."
            )
        population = reference_population(frame, settings)
        write_json(args.output, population)
    else:
        population = json.loads(args.output.read_text(encoding="utf-8"))
    report = levels_report(checked, check_settings, population)
    write_json(args.report, report)
    show(report)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=Path, nargs="+", help="distorted sets of the reference population")
    parser.add_argument("--check", type=Path, nargs="+", required=True, help="those of other photographs, to score")
    parser.add_argument(
        "--output", type=Path, default=POPULATION, help="file of the reference population, read without --population"
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="where the report is written")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    with exit_with_sentence("calibrate_pseudo_mos"):
        calibrate(args)


if __name__ == "__main__":
    main()
