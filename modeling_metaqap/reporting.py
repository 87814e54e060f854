"""What is made of measurements: one JSON file and, from it, Markdown tables; and the plots beside them."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .atomic import write_atomically
from .baselines import BASELINES
from .evaluation import EvaluationError, Measurement
from .metrics import LogisticFit, fit_logistic

Row = dict[str, Any]
FloatArray = npt.NDArray[np.float64]

#: Figures by their name in the rows, with the heading that the field gives them.
HEADINGS = {
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic",
    "srocc": "SROCC",
    "krocc": "KROCC",
    "rmse": "RMSE",
}
UNDEFINED = "–"

_LEGEND = """\
PLCC is the correlation of the raw scores, "PLCC, logistic" the one after the four-parameter logistic mapping that most
papers report. BRISQUE and PIQE rate distortion; their scores are negated, so that higher is better for every row, and
have no RMSE, as they are not on the scale of opinions. In brackets: 95 % bootstrap intervals over images; in
parentheses: lowest and highest over the splits, where the figure is the median over several.
"""

#: What tables call the place that is of the same sources as the training images, beside sources that were left out.
HOME = "validation split"

_INK, _ACCENT, _GRID = "#1f2933", "#c2410c", "#d9dee3"
_POINTS = "#2b6cb0"


# Files.


def read_results(path: Path) -> list[Row]:
    """Rows of a results file; none if it does not exist.

    Raises:
        EvaluationError: It is not a results file.
    """
    try:
        rows = json.loads(path.read_text())["results"]
        return [row for row in rows if _key(row)]
    except FileNotFoundError:
        return []
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is not a results file; move it away or name another one.") from error


def merge_results(rows: Sequence[Row], new: Iterable[Row]) -> list[Row]:
    """`rows` with the new ones: in the place of a row about the same checkpoint, data set and split, or at the end."""
    merged = {_key(row): row for row in rows}
    merged |= {_key(row): row for row in new}
    return list(merged.values())


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as JSON, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps({"results": rows}, indent=2, allow_nan=False) + "\n").encode())


def write_predictions(path: Path, measurement: Measurement) -> None:
    """One line for each image: id, predicted quality and opinion score as quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = (measurement.image_ids, measurement.predictions.tolist(), measurement.qualities.tolist())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "prediction", "quality"])
        writer.writerows(zip(*columns, strict=True))


def file_stem(row: Row) -> str:
    """`"best-livec-test_0"`: the start of the names of a row's files."""
    return re.sub(r"[^\w.+-]+", "-", f"{row['checkpoint']}-{row['dataset']}-{row['split']}").strip("-.")


def _key(row: Row) -> tuple[str, str, str]:
    return row["checkpoint"], row["dataset"], row["split"]


# Tables.


def title(row: Row) -> str:
    """The method's name as the field writes it."""
    return BASELINES[row["checkpoint"]].title if row["checkpoint"] in BASELINES else str(row["checkpoint"])


def format_figure(figure: dict[str, float | None], *, digits: int = 3) -> str:
    """`"0.856 [0.843, 0.868]"`, or `"0.856 (0.843 to 0.868)"` for the median over splits."""
    if figure["value"] is None:
        return UNDEFINED
    text = f"{figure['value']:.{digits}f}"
    if figure.get("low") is not None:
        return f"{text} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    if figure.get("min") is not None:
        return f"{text} ({figure['min']:.{digits}f} to {figure['max']:.{digits}f})"
    return text


def plcc_srocc(figures: Mapping[str, float | None] | None) -> str:
    """`"0.856 / 0.843"`; what is not defined or not measured is a dash."""
    if figures is None:
        return UNDEFINED
    return " / ".join(format_figure({"value": figures[name]}) for name in ("plcc", "srocc"))


def results_table(rows: Sequence[Row]) -> str:
    """Markdown table of one data set's and split's rows, the highest SROCC first."""
    ordered = sorted(rows, key=lambda row: -np.inf if row["srocc"]["value"] is None else row["srocc"]["value"])
    cells = [[title(row), *(format_figure(row[name]) for name in HEADINGS)] for row in reversed(ordered)]
    return markdown_table(["", *HEADINGS.values()], cells)


def interval_sentence(row: Row) -> str | None:
    """What the 90 % prediction interval held, for people; None for a method without one."""
    held = row.get("interval")
    if held is None:
        return None
    images = f"{row['n']:,} images" if "median_of" not in row else f"images (median of {row['median_of']} splits)"
    return (
        f"The 90 % interval of {title(row)} is {held['width']:.3f} wide and holds the opinion scores of "
        f"{100 * held['coverage']:.1f} % of these {images}."
    )


def parts_sentence(row: Row) -> str | None:
    """What an ensemble's learners and their plain mean reached by themselves; None for what is no ensemble."""
    parts = row.get("parts")
    if parts is None:
        return None

    told = ", ".join(f"{name} {plcc_srocc(figures)}" for name, figures in parts.items())
    return f"The parts of {title(row)} by themselves, PLCC / SROCC: {told}."


def sentences(row: Row) -> list[str]:
    """What else there is to say of a row beside its figures."""
    return [sentence for sentence in (interval_sentence(row), parts_sentence(row)) if sentence is not None]


def results_markdown(rows: Sequence[Row]) -> str:
    """All the tables: one for each data set and split and, for several, the matrix of SROCC."""
    sections = ["# Results\n"]
    for dataset, split in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        chosen = [row for row in rows if (row["dataset"], row["split"]) == (dataset, split)]
        first = chosen[0]
        number = (
            f"median of {first['median_of']} splits, n {first['n']:,}" if "median_of" in first else f"n {first['n']:,}"
        )
        sections.append(f"## {dataset}, {split} ({number})\n\n{results_table(chosen)}")
        sections += [f"{sentence}\n" for row in chosen for sentence in sentences(row)]
    names, columns, values = srocc_matrix(rows)
    if len(columns) > 1:
        cells = [
            [name, *(UNDEFINED if np.isnan(value) else f"{value:.3f}" for value in line)]
            for name, line in zip(names, values, strict=True)
        ]
        sections.append(f"## SROCC across data sets\n\n{markdown_table(['', *columns], cells)}")
    return "\n".join([*sections, _LEGEND])


def srocc_matrix(rows: Sequence[Row]) -> tuple[list[str], list[str], FloatArray]:
    """Names of the methods and of the data sets with their splits, and the SROCC of each pair, NaN where unknown."""
    labels = {row["checkpoint"]: title(row) for row in rows}
    columns = list(dict.fromkeys((row["dataset"], row["split"]) for row in rows))
    values = np.full((len(labels), len(columns)), np.nan)
    for row in rows:
        place = list(labels).index(row["checkpoint"]), columns.index((row["dataset"], row["split"]))
        values[place] = np.nan if row["srocc"]["value"] is None else row["srocc"]["value"]
    return list(labels.values()), [f"{dataset} {split}" for dataset, split in columns], values


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, the first column to the left and the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    escaped = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in escaped)


# A user's own folder.


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An image of which model and raters think differently.

    Args:
        prediction: Predicted quality.
        fitted: The same on the scale of the opinions, by the logistic fit.
        quality: Opinion score as quality.
    """

    image_id: str
    prediction: float
    fitted: float
    quality: float

    @property
    def residual(self) -> float:
        """Above 0 where the raters liked it better than the model."""
        return self.quality - self.fitted


def worst_disagreements(measurement: Measurement, number: int) -> list[Disagreement]:
    """The images with the largest residuals after the logistic fit, in either direction, the worst first."""
    fitted, residuals = fitted_and_residuals(measurement)
    return [
        Disagreement(
            image_id=measurement.image_ids[row],
            prediction=float(measurement.predictions[row]),
            fitted=float(fitted[row]),
            quality=float(measurement.qualities[row]),
        )
        for row in np.argsort(-np.abs(residuals), kind="stable")[:number]
    ]


def write_folder_report(measurement: Measurement, disagreements: Sequence[Disagreement], output: Path) -> None:
    """Writes results.json, predictions.csv, scatter.png, residuals.png and report.md, which shows all of it."""
    row = measurement.row
    write_results(output / "results.json", [row])
    write_predictions(output / "predictions.csv", measurement)
    plot_scatter(measurement, output / "scatter.png")
    plot_residuals(measurement, output / "residuals.png")
    cells = [
        [
            one.image_id,
            *(f"{value:.3f}" for value in (one.prediction, one.fitted, one.quality)),
            f"{one.residual:+.3f}",
        ]
        for one in disagreements
    ]
    sections = [
        f"# {title(row)} on {row['dataset']}\n",
        f"{row['n']:,} images; 95 % bootstrap intervals over images, seed {row['seed']}. Opinion scores were brought "
        "to quality in [0, 1], higher better.\n",
        results_table([row]),
        *(f"{sentence}\n" for sentence in sentences(row)),
        "![Predicted quality and opinion scores](scatter.png)\n",
        "![Residuals of the logistic fit](residuals.png)\n",
    ]
    if cells:
        headings = ["image", "predicted", "fitted", "rated", "rated less fitted"]
        sections += ["## Worst disagreements\n", markdown_table(headings, cells)]
    (output / "report.md").write_text("\n".join(sections), encoding="utf-8")


# Plots.


def plot_scatter(measurement: Measurement, path: Path) -> None:
    """Predicted quality and opinion score of each image, with the logistic fit."""
    figure, axes = _canvas(5.4, 5.0)
    _points(axes, measurement.predictions, measurement.qualities)
    fit = _fit(measurement)
    if fit is not None:
        line = np.linspace(measurement.predictions.min(), measurement.predictions.max(), 400)
        axes.plot(line, fit(line), color=_ACCENT, linewidth=2, label="logistic fit")
        axes.legend(loc="lower right", frameon=False)
    name = title(measurement.row)
    is_baseline = measurement.row["checkpoint"] in BASELINES
    axes.set_xlabel(f"{name} score, negated" if is_baseline else f"quality predicted by {name}")
    axes.set_ylabel("opinion score as quality")
    axes.set_ylim(-0.03, 1.03)
    _describe(axes, measurement)
    figure.savefig(path)


def plot_residuals(measurement: Measurement, path: Path) -> None:
    """How far each image's opinion score lies from the fitted prediction: where, and in which direction, it errs."""
    figure, axes = _canvas(5.4, 4.2)
    fitted, residuals = fitted_and_residuals(measurement)
    _points(axes, fitted, residuals)
    axes.axhline(0, color=_ACCENT, linewidth=1.5)
    bound = max(1.1 * float(np.abs(residuals).max()), 0.05)
    axes.set_ylim(-bound, bound)
    axes.set_xlabel("fitted quality")
    axes.set_ylabel("opinion score less fitted quality")
    _describe(axes, measurement)
    figure.savefig(path)


def plot_matrix(rows: Sequence[Row], path: Path) -> None:
    """SROCC of every method on every data set as a heat map."""
    names, columns, values = srocc_matrix(rows)
    figure, axes = _canvas(2.6 + 1.15 * len(columns), 1.5 + 0.5 * len(names))
    axes.grid(False)
    # One scale for all such pictures, so that they can be compared.
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), [column.replace(" ", "\n", 1) for column in columns])
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    for (row, column), value in np.ndenumerate(values):
        text = UNDEFINED if np.isnan(value) else f"{value:.3f}"
        colour = "white" if value < 0.6 else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour)
    colours = figure.colorbar(image, ax=axes, pad=0.03)
    colours.set_label("SROCC")
    colours.outline.set_visible(False)
    figure.savefig(path)


def fitted_and_residuals(measurement: Measurement) -> tuple[FloatArray, FloatArray]:
    """(n,) predictions on the scale of the opinions, by the logistic fit, and the opinion scores less these.

    Predictions that are all the same cannot be fitted and stay as they are.
    """
    fit = _fit(measurement)
    fitted = measurement.predictions if fit is None else fit(measurement.predictions)
    return fitted, measurement.qualities - fitted


def _fit(measurement: Measurement) -> LogisticFit | None:
    if np.ptp(measurement.predictions) == 0:
        return None
    return fit_logistic(measurement.predictions, measurement.qualities)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _points(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    # Thousands of points have to show where they are dense, a few dozen to be seen at all.
    alpha = float(np.clip(120 / len(x), 0.25, 0.8))
    size = float(np.clip(8000 / len(x), 9, 36))
    axes.scatter(x, y, s=size, alpha=alpha, color=_POINTS, edgecolors="none")


def _describe(axes: Axes, measurement: Measurement) -> None:
    row = measurement.row
    split = row["splits"][0]["split"] if "splits" in row else row["split"]
    figures = row["splits"][0] if "splits" in row else row
    parts = [f"n {len(measurement.image_ids):,}"]
    parts += [f"{HEADINGS[name]} {format_figure({'value': figures[name]['value']})}" for name in ("plcc", "srocc")]
    axes.set_title(f"{row['dataset']}, {split}\n", loc="left", fontsize=11, color=_INK)
    axes.text(0, 1.02, ", ".join(parts), transform=axes.transAxes, fontsize=9, color=_INK)


__all__ = [
    "HOME",
    "Disagreement",
    "file_stem",
    "fitted_and_residuals",
    "format_figure",
    "interval_sentence",
    "markdown_table",
    "merge_results",
    "parts_sentence",
    "plcc_srocc",
    "plot_matrix",
    "plot_residuals",
    "plot_scatter",
    "read_results",
    "results_markdown",
    "results_table",
    "sentences",
    "srocc_matrix",
    "title",
    "worst_disagreements",
    "write_folder_report",
    "write_predictions",
    "write_results",
]
