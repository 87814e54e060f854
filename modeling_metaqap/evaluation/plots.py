"""Plots of measurements: scatter, residuals, and one matrix over checkpoints and data sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inference.records import interval_title
from .baselines.scorer import BASELINES
from .evaluating import Measurement
from .metrics import MIN_IMAGES, LogisticFit, fit_logistic
from .tables import HEADINGS, UNDEFINED, FloatArray, Row, format_figure, srocc_matrix, title

_INK, _ACCENT, _GRID = "#1f2933", "#c2410c", "#d9dee3"


_POINTS, _BAND = "#2b6cb0", "#e3ebf4"


def plot_scatter(measurement: Measurement, path: Path) -> None:
    """Predicted quality and opinion score of each image, with the logistic fit.

    Predictions on the scale of the opinions also have the line where both are equal, and around it the prediction
    interval: points outside of the band are the images whose opinion it does not hold.
    """
    figure, axes = _canvas(5.4, 5.0)
    name = title(measurement.row)
    is_baseline = measurement.row["checkpoint"] in BASELINES
    if not is_baseline:
        _identity(axes, measurement)
    _points(axes, measurement.predictions, measurement.qualities)
    fit = _fit(measurement)
    if fit is not None:
        line = np.linspace(measurement.predictions.min(), measurement.predictions.max(), 400)
        axes.plot(line, fit(line), color=_ACCENT, linewidth=2, label="logistic fit")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", frameon=False, fontsize=9)
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

    Predictions that are all the same, or fewer than `MIN_IMAGES`, cannot be fitted and stay as they are.
    """
    fit = _fit(measurement)
    fitted = measurement.predictions if fit is None else fit(measurement.predictions)
    return fitted, measurement.qualities - fitted


def _fit(measurement: Measurement) -> LogisticFit | None:
    if len(measurement.predictions) < MIN_IMAGES or np.ptp(measurement.predictions) == 0:
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


def _identity(axes: Axes, measurement: Measurement) -> None:
    """The line where prediction and opinion are equal, with the interval around it where there is one."""
    ends = np.array([min(0.0, measurement.predictions.min()), max(1.0, measurement.predictions.max())])
    interval = measurement.row.get("interval")
    if interval is not None:
        radius = interval["width"] / 2
        label = interval_title(interval["calibrated_for"])
        if "narrowest" in interval:
            label += ", mean width"
        axes.fill_between(ends, ends - radius, ends + radius, color=_BAND, linewidth=0, label=label)
    axes.plot(ends, ends, color=_INK, linewidth=1.2, linestyle="--", label="prediction = opinion")


def _describe(axes: Axes, measurement: Measurement) -> None:
    row = measurement.row
    split = row["splits"][0]["split"] if "splits" in row else row["split"]
    figures = row["splits"][0] if "splits" in row else row
    parts = [f"n {len(measurement.image_ids):,}"]
    parts += [f"{HEADINGS[name]} {format_figure({'value': figures[name]['value']})}" for name in ("plcc", "srocc")]
    axes.set_title(f"{row['dataset']}, {split}\n", loc="left", fontsize=11, color=_INK)
    axes.text(0, 1.02, ", ".join(parts), transform=axes.transAxes, fontsize=9, color=_INK)


__all__ = ["fitted_and_residuals", "plot_matrix", "plot_residuals", "plot_scatter"]
