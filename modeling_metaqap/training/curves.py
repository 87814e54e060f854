"""The curves of a run as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss over the steps and the figures on the validation split over the epochs.

    Args:
        rows: of the log, see `RunFolder.rows`.
        path: of the PNG file.
    """
    training = [row for row in rows if "loss" in row]
    validation = [row for row in rows if "epoch" in row and "validation_srocc" in row]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([row["step"] for row in training], [row["loss"] for row in training], color="#4a5568", linewidth=1)
    left.set(xlabel="step", ylabel="training loss")
    names = [name for name in validation[0] if name.startswith("validation_")] if validation else []
    for name in names:
        values = [row[name] for row in validation]
        right.plot([row["epoch"] for row in validation], values, marker="o", markersize=4, label=_label(name))
    right.set(xlabel="epoch", ylabel="on the validation split")
    right.xaxis.get_major_locator().set_params(integer=True)
    if names:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=120)


def _label(name: str) -> str:
    words = name.removeprefix("validation_").replace("_", " ")
    return words.replace("plcc", "PLCC").replace("srocc", "SROCC")


__all__ = ["plot_curves"]
