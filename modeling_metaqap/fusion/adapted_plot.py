"""The learning curve of an adaptation as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_INK, _LINE, _GRID = "#1f2933", "#2b6cb0", "#d9dee3"


def plot_learning_curve(record: dict[str, Any], path: Path) -> None:
    """Draw the rank correlation over the number of ratings: would more of them help?

    Args:
        record: of an `Adaptation`.
        path: of the picture.
    """
    before, *points = record["learning_curve"]
    figure = Figure(figsize=(6.0, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    sizes = [point["n"] for point in points]
    sroccs = [point["srocc"] for point in points]
    # No rank correlation is above 1.
    spreads = [
        [point["srocc_sd"] for point in points],
        [min(point["srocc_sd"], 1 - point["srocc"]) for point in points],
    ]
    axes.axhline(before["srocc"], color=_INK, linewidth=1.2, linestyle="--", label="without ratings")
    axes.errorbar(
        sizes,
        sroccs,
        yerr=spreads,
        color=_LINE,
        marker="o",
        capsize=3,
        linewidth=2,
        label="adapted, ± 1 deviation",
    )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, position: ""))
    axes.set_xlabel("ratings that it was adapted to")
    axes.set_ylabel("SROCC on ratings that were left out")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


__all__ = ["plot_learning_curve"]
