"""The report on a folder of rated images: figures, predictions, plots and the worst disagreements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .evaluating import Measurement
from .plots import fitted_and_residuals, plot_residuals, plot_scatter
from .results_files import write_predictions, write_results
from .tables import TextTable, results_table, sentences, title


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
        sections += ["## Worst disagreements\n", TextTable(headings, cells).markdown()]
    (output / "report.md").write_text("\n".join(sections), encoding="utf-8")


__all__ = ["Disagreement", "worst_disagreements", "write_folder_report"]
