"""The tables of the studies, from what their programs wrote as JSON; for the terminal and for docs/results.md."""

import statistics
from collections.abc import Sequence
from typing import Any

from modeling_metaqap.evaluation.tables import UNDEFINED, TextTable, plcc_srocc
from modeling_metaqap.inference.wording import distortion_title

Json = dict[str, Any]

#: The images of the data set's own validation split, beside those of a source that was left out of training.
HOME = "validation split"


def heads_table(results: Json) -> TextTable:
    """PLCC / SROCC of each head of each backbone at each place, from `compare_heads.py`."""
    rows = [row for result in results.values() for row in result["heads"].values()]
    places = list(dict.fromkeys(place for row in rows for place in row))
    sources = {source for result in results.values() for source in result["sources"]}
    headings = ["backbone", "head", *(f"{place}, left out" if place in sources else place for place in places)]
    cells = [
        [backbone, name, *(plcc_srocc(row.get(place)) for place in places)]
        for backbone, result in results.items()
        for name, row in result["heads"].items()
    ]
    return TextTable(headings, cells)


def fusions_table(result: Json) -> TextTable:
    """PLCC / SROCC of each learner and each fusion on each source, from `compare_fusions.py`."""
    headings = ["", *(f"{source}, left out ({n:,})" for source, n in result["n"].items()), "mean SROCC"]
    cells = [
        [label, *(plcc_srocc(row[source]) for source in result["n"]), f"{mean_srocc(row):.3f}"]
        for label, row in result["rows"].items()
    ]
    return TextTable(headings, cells)


def ablation_table(result: Json) -> TextTable:
    """PLCC / SROCC of each variant at each place, from `ablate.py`.

    The headings say how many images were trained and measured on.
    """
    places = {HOME: HOME} | {source: f"{source}, left out" for source in result["sources"]}
    headings = [f"{heading} ({' / '.join(f'{n:,}' for n in result['n'][place])})" for place, heading in places.items()]
    cells = [[name, *(plcc_srocc(row.get(place)) for place in places)] for name, row in result["variants"].items()]
    return TextTable(["variant", *headings], cells)


def mixtures_table(result: Json) -> TextTable:
    """PLCC / SROCC of each way to mix sets at each place, from `compare_mixtures.py`."""
    means = {name: row["mean"] for name, row in result["mixtures"].items()}
    places = {place: figures["n"] for place, figures in next(iter(means.values())).items()}
    headings = [f"{place} (n {count:,.0f})" for place, count in places.items()]
    cells = [[name, *(plcc_srocc(mean[place]) for place in places)] for name, mean in means.items()]
    return TextTable(["trained on", *headings], cells)


#: Methods of `learning_curves.py` in the order of its table.
CURVES = ("adapted", "adapted to suggested ones", "fusion fitted anew", "scale alone")


def curves_table(result: Json) -> TextTable:
    """Median PLCC / SROCC of each method by the number of ratings, from `learning_curves.py`."""
    cells = [["0", *([plcc_srocc(correlations(result["before"]))] * len(CURVES))]]
    for size, methods in result["curves"].items():
        figures = (methods.get(method) for method in CURVES)
        cells.append([size, *(UNDEFINED if one is None else plcc_srocc(correlations(one)) for one in figures)])
    return TextTable(["ratings", *CURVES], cells)


#: Data sets that are trained on and measured on in the table of `across_table`, with their names for people.
_SETS = {"biq2021": "BIQ2021", "koniq10k": "KonIQ-10k", "livec": "LIVE In the Wild"}

#: The rows of that table: data sets to train on and to measure on.
_WAYS = (
    ("biq2021", "biq2021"),
    ("biq2021", "livec"),
    ("biq2021", "koniq10k"),
    ("livec", "livec"),
    ("livec", "biq2021"),
    ("koniq10k", "koniq10k"),
    ("koniq10k", "livec"),
)

NOT_MEASURED = "not measured"


def across_table(rows: list[Json], curves: Json, published: Json) -> TextTable:
    """PLCC / SROCC from data set to data set, those of others in columns of their own.

    Args:
        rows: of `scripts/evaluate.py`.
        curves: of `learning_curves.py`; its figures for all ratings of LIVE In the Wild are in-dataset ones.
        published: figures of others.
    """
    measured = {
        (row["checkpoint"], str(row["trained_on"]).split()[0], row["dataset"]): correlations(row) for row in rows
    }
    ours = list(dict.fromkeys(name for name, trained_on, _ in measured if trained_on in _SETS))
    others = list(dict.fromkeys(row["method"] for row in published["results"]))
    most = max(curves["livec"]["curves"], key=int)
    measured["metaqap-lite", "livec", "livec"] = correlations(curves["livec"]["curves"][most]["adapted"])
    reported = {(row["method"], row["trained_on"], row["measured_on"]): row for row in published["results"]}
    cells = []
    for way in _WAYS:
        own = [NOT_MEASURED if (one := measured.get((name, *way))) is None else plcc_srocc(one) for name in ours]
        theirs = [plcc_srocc(reported.get((name, *way))) for name in others]
        trained_on, measured_on = (_SETS[name] for name in way)
        way_title = f"within {measured_on}" if trained_on == measured_on else f"{trained_on} to {measured_on}"
        cells.append([way_title, *own, *theirs])
    return TextTable(["", *ours, *others], cells)


#: Methods of `left_out_curves.py` in the order of its table.
LEFT_OUT_CURVES = ("adapted", "scale alone", "fusion fitted anew", "from ImageNet weights")


def left_out_curves_table(result: Json) -> TextTable:
    """Median PLCC / SROCC by source, method and number of ratings, from `left_out_curves.py`."""
    sizes = list(dict.fromkeys(size for one in result["sources"].values() for size in one["curves"]))
    cells = []
    for source, one in result["sources"].items():
        before = plcc_srocc(correlations(one["before"]))
        for method in LEFT_OUT_CURVES:
            none = UNDEFINED if method == "from ImageNet weights" else before
            figures = (one["curves"].get(size) for size in sizes)
            row = (UNDEFINED if by is None else plcc_srocc(correlations(by[method])) for by in figures)
            cells.append([source, method, none, *row])
    return TextTable(["source, left out", "method", "0 ratings", *sizes], cells)


def finetuning_table(results: list[Json]) -> TextTable:
    """Median PLCC / SROCC of the closed form and with fine-tuned learners by number of ratings, of `finetuning.py`."""
    names = ("closed form", "fine-tuned")
    cells = []
    for size in sorted({one["n"] for one in results}):
        those = [one for one in results if one["n"] == size]
        medians = (
            {metric: statistics.median(one[name][metric] for one in those) for metric in ("plcc", "srocc")}
            for name in names
        )
        minutes = statistics.median(one["cpu_minutes"] for one in those)
        cells.append([f"{size:,}", str(len(those)), *map(plcc_srocc, medians), f"{minutes:.0f}"])
    return TextTable(["ratings", "splits", *names, "minutes of a processor"], cells)


def intervals_table(result: Json) -> TextTable:
    """Share of opinions in the interval, and its width, by the number of ratings, from `learning_curves.py`."""
    before = result["before"]["covered"]["value"]
    cells = [["0, the shipped interval", percent(before), f"{result['shipped_width']:.3f}"]]
    for size, methods in result["curves"].items():
        for method in ("scale alone", "adapted"):
            figures = methods[method]
            name = f"{size}, " + ("scale fitted, the shipped interval" if method == "scale alone" else "adapted")
            cells.append([name, percent(figures["covered"]["value"]), f"{figures['width']['value']:.3f}"])
    return TextTable(["ratings", "opinions held", "mean width"], cells)


def widths_table(result: Json) -> TextTable:
    """Share of opinions held and mean width, by what the width depends on, from `choose_interval.py`."""
    rows = result["home"]["width_depends_on"].items()
    cells = [[name, percent(one["covered"]), f"{one['width']:.3f}"] for name, one in rows]
    return TextTable(["width depends on", "opinions held", "mean width"], cells)


def groups_table(result: Json) -> TextTable:
    """Share of opinions held and mean width of photographs of one kind, from `choose_interval.py`."""
    cells = [
        [name, str(one["n"]), *(_held(one[kind]) for kind in ("constant", "own width"))]
        for name, one in result["home"]["groups"].items()
    ]
    return TextTable(["photographs", "n", "one width", "own width"], cells)


def strangers_table(result: Json) -> TextTable:
    """Familiarity of what is unlike home, from `choose_interval.py`."""
    cells = [
        [name, str(one["n"]), f"{one['median_familiarity']:.2f}", percent(one["called_strangers"])]
        for name, one in {**result["strangers"], **result["elsewhere"]}.items()
    ]
    return TextTable(["pictures", "n", "median familiarity", "called strangers"], cells)


def elsewhere_table(result: Json) -> TextTable:
    """Share of opinions held and mean width elsewhere, before and after some ratings, from `choose_interval.py`."""
    cells = []
    for place, found in result["elsewhere"].items():
        for when in (name for name, one in found.items() if isinstance(one, dict)):
            figures = found[when]
            cells.append([f"{place}, {when}", *(_held(figures[kind]) for kind in ("constant", "own width"))])
    return TextTable(["photographs", "one width", "own width"], cells)


def _held(figures: Json) -> str:
    lowest = f", lowest {percent(figures['covered_lowest'])}" if "covered_lowest" in figures else ""
    return f"{percent(figures['covered'])} at {figures['width']:.3f}{lowest}"


def sweep_table(result: Json) -> TextTable:
    """PLCC / SROCC of each point of the grid, the highest SROCC first, from `sweep.py`."""
    settings = [name for name in result["points"][0] if name not in ("plcc", "srocc")]
    cells = [[*(str(point[name]) for name in settings), plcc_srocc(point)] for point in result["points"]]
    return TextTable([*(f"`{name}`" for name in settings), "PLCC / SROCC"], cells)


def runs_table(runs: Sequence[Json]) -> TextTable:
    """What each run started from, changed of the default recipe and reached in the end, from `log_runs.py`.

    Runs that have measured nothing yet are left out.
    """
    headings = [
        "run",
        "started from",
        "settings",
        "images a second",
        "measured after",
        "PLCC / SROCC",
        "distortions named",
    ]
    cells = []
    for run in (run for run in runs if run["measured"]):
        settings = run["fused"] if "fused" in run else run["recipe"]
        last = run["measured"][-1]
        named = last.get("validation_distortion_accuracy")
        start = run.get("init", UNDEFINED)
        if "teacher" in run:
            start = f"{start}, taught by {run['teacher']}"
        cells.append(
            [
                run["run"],
                start,
                ", ".join(f"{name} {value}" for name, value in settings.items()),
                UNDEFINED if (rate := run.get("images_per_second")) is None else f"{rate:g}",
                last["after"],
                plcc_srocc({name: last[f"validation_{name}"] for name in ("plcc", "srocc")}),
                UNDEFINED if named is None else percent(named),
            ]
        )
    return TextTable(headings, cells)


def mean_srocc(row: Json) -> float:
    """Mean over the places of a row."""
    return statistics.mean(figures["srocc"] for figures in row.values())


def percent(share: float) -> str:
    """`"82.3 %"`."""
    return f"{100 * share:.1f} %"


def fit_table(fit: Json) -> TextTable:
    """What the learners, their plain mean and the meta-learner reach on the images that it was fitted on."""
    cells = [[name, *(f"{value:.3f}" for value in correlations(row).values())] for name, row in fit["figures"].items()]
    return TextTable(["", "PLCC", "SROCC"], cells)


def meta_learner_table(fit: Json, test: Json, fusions: Json) -> TextTable:
    """What is lost without the meta-learner: at home, on the test split, and on sources that were left out."""
    figures, rows = fit["figures"], fusions["rows"]
    # The best one as far as it can be known without the test split.
    best = max(fusions["learners"], key=lambda name: figures[name]["srocc"]["value"])
    elsewhere = max(fusions["learners"], key=lambda name: mean_srocc(rows[name]))
    [shipped] = [label for label in rows if label.endswith("(shipped)")]
    compared = {
        "the meta-learner": (figures["meta-learner, cross-fitted"], test, rows[shipped]),
        "without it: plain mean": (figures["plain mean"], test["learners"]["plain mean"], rows["plain mean"]),
    }
    for label, name in (("best single learner", best), ("best single learner elsewhere", elsewhere)):
        compared[f"without it: {label} ({name})"] = (figures[name], test["learners"][name], rows[name])
    headings = [f"{HOME}, cross-fitted ({figures['plain mean']['n']:,})", f"test split ({test['n']:,})"]
    headings += [f"{source}, left out ({n:,})" for source, n in fusions["n"].items()]
    cells = [
        [label, *(plcc_srocc(correlations(row)) for row in (home, tested, *left_out.values()))]
        for label, (home, tested, left_out) in compared.items()
    ]
    return TextTable(["", *headings], cells)


def distortion_heads_table(last: dict[str, Json]) -> TextTable:
    """What learners say of distorted images that they have not seen.

    Args:
        last: by the learner's name, what its run measured last, from `log_runs.py`.
    """
    cells = [
        [name, percent(row["validation_distortion_accuracy"]), f"{row['validation_distorted_srocc']:.3f}"]
        for name, row in last.items()
    ]
    return TextTable(["", "distortions named rightly", "SROCC with pseudo opinion scores"], cells)


def published_table(published: Json, dataset: str) -> TextTable:
    """Figures that others publish on the test split of a data set, as they give them."""
    cells = [
        [result["method"], result["plcc"], result["srocc"]]
        for result in published["results"]
        if (result["dataset"], result["split"]) == (dataset, "test")
    ]
    return TextTable(["method", "PLCC", "SROCC"], cells)


def levels_table(report: Json) -> TextTable:
    """Mean pseudo opinion score of each distortion at its five levels, from `scripts/calibrate_pseudo_mos.py`."""
    cells = [
        [
            distortion_title(name),
            f"`{name}`",
            *(f"{mean:.3f}" for mean in row["mean_pseudo_mos"]),
            percent(row["five_levels_in_order"]),
            percent(row["adjacent_levels_in_order"]),
        ]
        for name, row in report["pseudo_mos"]["distortions"].items()
    ]
    headings = ["distortion", "in files", *map(str, range(1, 6)), "all five in order", "neighbours in order"]
    return TextTable(headings, cells)


def metrics_table(report: Json, speed: Json) -> TextTable:
    """How each full-reference metric agrees with the score that all of them make, and how long it takes."""
    headings = ["metric", "SROCC with the score", "five levels in order"]
    headings += [f"milliseconds at {side} px" for side in speed["sides"]]
    cells = [
        [
            name,
            f"{row['srocc_with_pseudo_mos']:.3f}",
            percent(row["five_levels_in_order"]),
            *(f"{size['milliseconds'][name]:.1f}" for size in speed["sides"].values()),
        ]
        for name, row in report["metrics"].items()
    ]
    return TextTable(headings, cells)


def distortion_speed_table(speed: Json) -> TextTable:
    """Distorted images a second, from `scripts/benchmark.py`."""
    cells = [[distortion_title(name), f"{rate:.1f}"] for name, rate in speed["images_per_second"].items()]
    return TextTable(["distortion", "images a second"], cells)


def engines_table(cost: Json, onnx: Json) -> TextTable:
    """Speed of each engine beside PyTorch's, and how far its scores are from PyTorch's where that was measured."""
    names = {
        "torch": "PyTorch, float32",
        "torch-bfloat16": "PyTorch, bfloat16",
        "onnx": "ONNX Runtime, float32",
        "onnx-int8": "ONNX Runtime, int8",
    }
    cells = []
    for engine, speed in cost["engines"].items():
        agreement = onnx["engines"].get(engine)
        differs = agreement is not None and "largest" in agreement
        cells.append(
            [
                names[engine],
                f"{speed['crops_per_second']:.2f}",
                f"{speed['over_torch']:.2f}",
                f"{agreement['largest']:.1e}" if differs else UNDEFINED,
                plcc_srocc(agreement),
            ]
        )
    headings = ["engine", "crops a second", "times as fast as PyTorch", "largest difference of scores", "PLCC / SROCC"]
    return TextTable(headings, cells)


def was_shared(section: Json) -> bool:
    """Whether the machine did other work while a race was run: then its threads did not get a core each.

    Of such a race the figures for a second of a processor count, and those for a second of the clock do not.
    """
    reference = section["contenders"].get("matrix product", {})
    if "images_per_processor_second" not in reference:
        return False
    return reference["images_per_second"] < 0.8 * section["threads"] * reference["images_per_processor_second"]


def scoring_table(section: Json) -> TextTable:
    """Photographs a second from file to score, from `scripts/benchmark.py --sections scoring`."""
    shared = was_shared(section)
    rate, compared = ("images_per_processor_second", "processor_ratios") if shared else ("images_per_second", "ratios")
    references = [name for name in ("version before", "pyiqa topiq_nr", "pyiqa musiq") if name in section[compared]]
    cells = []
    for name, row in section["contenders"].items():
        if name == "matrix product" or "error" in row:
            continue
        ratios = (section[compared][reference].get(name, 1.0) for reference in references)
        cells.append(
            [
                name,
                f"{row[rate]:.2f}",
                *(f"{ratio:.2f}" for ratio in ratios),
                f"{row['share_of_peak']:.0%}".replace("%", " %")
                if "share_of_peak" in row and not shared
                else UNDEFINED,
                f"{row['peak_memory_megabytes']:,.0f}",
            ]
        )
    beside = (f"times as fast as {reference}" for reference in references)
    title = "images a second of a processor" if shared else "images a second"
    return TextTable(["", title, *beside, "of the peak", "MB at most"], cells)


def end_to_end(section: Json) -> str:
    """What files to scores is of the bare forward with each engine: `"85.0 % with PyTorch and 78.9 % with ..."`."""
    compared = section["processor_ratios" if was_shared(section) else "ratios"]
    engines = {
        "PyTorch": ("bare forward, PyTorch folded", "default, core install"),
        "ONNX Runtime": ("bare forward, ONNX Runtime", "default, with ONNX Runtime"),
    }
    return " and ".join(f"{percent(compared[bare][own])} with {name}" for name, (bare, own) in engines.items())


def training_speed_table(result: Json) -> TextTable:
    """Images a second of each part of training, from `scripts/benchmark.py --sections training`."""
    before = ", version before"
    rows = {name: row for name, row in result["contenders"].items() if "error" not in row}
    cells = []
    for name, row in rows.items():
        if name.endswith(before):
            continue
        older = rows.get(name + before)
        ratio = result["ratios"].get(f"{name} over version before")
        cells.append(
            [
                name,
                f"{row['images_per_second']:.1f}",
                UNDEFINED if older is None else f"{older['images_per_second']:.1f}",
                UNDEFINED if ratio is None else f"{ratio:.2f}",
            ]
        )
    return TextTable(["", "images a second", "version before", "times as fast"], cells)


def start_up_table(result: Json) -> TextTable:
    """Seconds until the score of one photograph is there, from `scripts/benchmark.py --sections start_up`."""
    cells = [
        [name, f"{row['first_line_seconds']:.2f}", f"{row['beyond_imports']:.2f}", f"{row['whole_seconds']:.2f}"]
        for name, row in result["programs"].items()
    ]
    return TextTable(["", "first line", "beyond the imports", "end"], cells)


def fleet_table(section: Json, *, photographs: int = 100_000_000, cores: int = 3_200) -> TextTable:
    """Hours that a hundred million photographs take on many cores, from `scripts/benchmark.py --sections scoring`.

    As if each core did what one did when the rate was measured.
    """
    names = [name for name in section["contenders"] if name.startswith(("default", "fast")) and "one at a" not in name]
    cells = []
    for name in names:
        rate = section["contenders"][name]["images_per_second"] / section["threads"]
        cells.append([name, f"{rate:.2f}", f"{photographs / (rate * cores) / 3600:.1f}"])
    return TextTable(["", "photographs a second and core", f"hours on {cores:,} cores"], cells)


def decoding_table(result: Json) -> TextTable:
    """Shift of scores and time when the JPEG decoder shrinks, from `compare_decoding.py`."""
    cells = [
        [
            edge,
            f"{one['mean_shift']:.4f}",
            f"{one['mean_absolute_shift']:.4f}",
            f"{one['largest_shift']:.4f}",
            f"{one['over_whole']:.2f}",
        ]
        for edge, one in result["shortest_edges"].items()
    ]
    headings = ["shortest edge", "mean shift", "mean absolute shift", "largest shift", "times as fast to read"]
    return TextTable(headings, cells)


def learners_table(learners: Json) -> TextTable:
    """What fewer learners give, from `scripts/choose_learners.py`."""
    cells = [
        [
            str(len(one["learners"])),
            ", ".join(one["names"]),
            plcc_srocc(one),
            f"{2 * one['interval_radius']:.3f}",
            f"{one['macs'] / 1e9:.2f}",
        ]
        for one in learners["curve"]
    ]
    headings = ["learners", "which", "PLCC / SROCC", "width of the interval", "billion multiply-adds"]
    return TextTable(headings, cells)


def correlations(figures: Json) -> Json:
    """PLCC and SROCC alone, of figures with intervals or without."""
    chosen = {name: figures[name] for name in ("plcc", "srocc")}
    return {name: value["value"] if isinstance(value, dict) else value for name, value in chosen.items()}
