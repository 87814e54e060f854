"""Write docs/results.md: every table of the research, and what it shows, from the committed JSON files.

    python studies/make_results.py

The words are in results_template.md. Each measured number in them comes from a file; none is typed.
"""

import argparse
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import jinja2
import study_tables
from study_tables import HOME, Json, mean_srocc, percent

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distortions import DISTORTION_NAMES
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.results_files import read_results
from modeling_metaqap.evaluation.tables import plcc_srocc, results_table, sentences
from modeling_metaqap.training.recipe import Recipe

STUDIES = Path(__file__).parent
HUB_CARD = STUDIES.parent / "modeling_metaqap" / "publishing" / "hub_card"
PAGE = STUDIES.parent / "docs" / "results.md"

WRAPPER = textwrap.TextWrapper(width=117, break_long_words=False, break_on_hyphens=False)

#: The runs in the training log that fitted the shipped learners' heads; the kernel head of "mnv2_joint" was replaced.
HEAD_RUNS = {
    "EfficientNet-Lite0": "lite0_joint",
    "EfficientNet-Lite1": "lite1_joint",
    "MobileNetV2": "mnv2_joint",
    "MobileNetV2, frozen": "mobilenetv2_frozen",
}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def the_row(rows: list[Json], checkpoint: str) -> Json:
    """The only row of a checkpoint among results on one data set."""
    [row] = [row for row in rows if row["checkpoint"] == checkpoint]
    return row


def template_values() -> dict[str, Any]:
    """What the template may use: the files' contents, the tables made of them, and a few functions."""
    results = {path.stem: read(path) for path in sorted((STUDIES / "results").glob("*.json"))}
    fit = read(DEFAULT_CHECKPOINT / "fit.json")
    cost, onnx, published = (read(HUB_CARD / f"{name}.json") for name in ("cost", "onnx", "published"))
    rows = read_results(HUB_CARD / "results.json")
    others = read(STUDIES / "published.json")
    at_home, rows_on_livec = ([row for row in rows if row["dataset"] == name] for name in ("biq2021", "livec"))
    shipped, nano = (the_row(at_home, name) for name in ("metaqap-lite", "metaqap-nano"))
    on_livec, nano_on_livec = (the_row(rows_on_livec, name) for name in ("metaqap-lite", "metaqap-nano"))
    heads, log = results["heads"], {run["run"]: run for run in results["training_log"]}
    last = {name: run["measured"][-1] for name, run in log.items()}

    def head(backbone: str, name: str) -> Json:
        """PLCC and SROCC of a head at each place."""
        return heads[backbone]["heads"][name]

    def elsewhere(backbone: str, name: str) -> float:
        """Mean SROCC of a head on the sources that were left out."""
        return mean_srocc({place: head(backbone, name)[place] for place in heads[backbone]["sources"]})

    def span(place: str) -> str:
        """Lowest and highest SROCC of all heads on ImageNet weights at a place."""
        frozen = [result for result in heads.values() if result["start"] == "ImageNet weights"]
        sroccs = [row[place]["srocc"] for result in frozen for row in result["heads"].values()]
        return f"{min(sroccs):.2f} to {max(sroccs):.2f}"

    def better(variant: str, other: str) -> int:
        """At how many places a variant of the ablation has a higher SROCC than another one."""
        one, two = (results["ablation"]["variants"][name] for name in (variant, other))
        return sum(one[place]["srocc"] > two[place]["srocc"] for place in one)

    def fused(result: Json, name: str) -> str:
        """Mean SROCC of a fusion on the sources that were left out."""
        return f"{mean_srocc(result['rows'][name]):.3f}"

    def largest_loss(name: str) -> str:
        """How much lower than the plain mean's the SROCC of a fusion is, on the source where that is most."""
        rows = results["fusions"]["rows"]
        losses = [figures["srocc"] - rows[name][source]["srocc"] for source, figures in rows["plain mean"].items()]
        return f"{max(losses):.3f}"

    def point(mse_weight: float, srocc_weight: float, surrogate: str) -> Json:
        """The point of the sweep with these settings."""
        settings = {"loss_mse_weight": mse_weight, "loss_srocc_weight": srocc_weight, "loss_surrogate": surrogate}
        [found] = [one for one in results["sweep"]["points"] if settings.items() <= one.items()]
        return found

    def validation_pair(row: Json) -> str:
        """PLCC / SROCC of a row of the training log."""
        return plcc_srocc({name: row[f"validation_{name}"] for name in ("plcc", "srocc")})

    def logged(run: str, after: str) -> Json:
        """A row of the training log that is not the last one of its run."""
        [row] = [row for row in log[run]["measured"] if row["after"] == after]
        return row

    def plain_pair(figures: Json) -> str:
        """PLCC / SROCC of figures with intervals."""
        return plcc_srocc(study_tables.correlations(figures))

    def log_recipe(run: str) -> Recipe:
        """What a logged run was started with."""
        return Recipe(**log[run]["recipe"])

    def bootstrap_interval(figure: Json) -> str:
        """The bootstrap interval of a figure."""
        return f"{figure['low']:.3f} to {figure['high']:.3f}"

    functions = (
        bootstrap_interval,
        head,
        elsewhere,
        span,
        better,
        fused,
        largest_loss,
        point,
        validation_pair,
        logged,
        plain_pair,
        log_recipe,
    )
    left_out = [n for place, (_, n) in results["ablation"]["n"].items() if place != HOME]
    side, speed = list(results["benchmark"]["pseudo_mos"]["sides"].items())[-1]
    distorted_crops, validation_crops = heads["mobilenetv2_100"]["n_distorted"]
    return {
        **results,
        **{function.__name__: function for function in functions},
        "mean_srocc": mean_srocc,
        "percent": percent,
        "smallest_left_out": min(left_out),
        "largest_left_out": max(left_out),
        "largest_side": side,
        "fast_speedup": round(speed["fast_images_per_second"] / speed["full_images_per_second"]),
        "HOME": HOME,
        "tables": study_tables,
        "fit": fit,
        "cost": cost["inference"],
        "two_threads": results["scoring"]["scoring"]["512 x 512, 2 threads"],
        "other_sizes": {
            title: section
            for title, section in results["scoring"]["scoring"].items()
            if title != "512 x 512, 2 threads"
        },
        "onnx": onnx,
        "published": published,
        "shipped": shipped,
        "results_table": results_table(at_home),
        "across": study_tables.across_table(rows, results["learning_curves"], others),
        "published_best": others["best_of_the_paper"],
        "on_livec": on_livec,
        "sentences_on_livec": [*sentences(on_livec), *sentences(nano_on_livec)],
        "sentences": [*sentences(shipped), *sentences(nano)],
        "last": last,
        "head_runs": {learner: last[run] for learner, run in HEAD_RUNS.items()},
        "distortions_count": len(DISTORTION_NAMES),
        # Each photograph was distorted once by each distortion.
        "crops": distorted_crops,
        "photographs": distorted_crops // len(DISTORTION_NAMES),
        "validation_crops": validation_crops,
        "validation_photographs": validation_crops // len(DISTORTION_NAMES),
    }


def results_page() -> str:
    """The whole page in Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STUDIES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {
        "three": lambda value: f"{value:.3f}",
        "grouped": lambda number: f"{number:,}",
        "srocc": lambda figures: f"{figures['srocc']:.3f}",
        "validation_srocc": lambda row: f"{row['validation_srocc']:.3f}",
        "named": lambda row: percent(row["validation_distortion_accuracy"]),
    }
    return wrapped(environment.get_template("results_template.md").render(template_values()))


def wrapped(page: str) -> str:
    """The page with the lines of its paragraphs and lists filled anew."""
    blocks = []
    for block in page.strip().split("\n\n"):
        if not block.startswith(("|", "#", "<!--", "```")):
            items = re.split(r"\n(?=- )", block)
            filled = (WRAPPER.fill(" ".join(item.split())) for item in items)
            block = "\n".join(text.replace("\n", "\n  ") if text.startswith("- ") else text for text in filled)
        blocks.append(block.strip("\n"))
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PAGE, help="page to write (%(default)s)")
    args = parser.parse_args()
    with exit_with_sentence("make_results"):
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.output, results_page().encode())
        print(f"Wrote {args.output}.")


if __name__ == "__main__":
    main()
