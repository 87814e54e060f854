"""The folder of an evaluation: results, tables, predictions and plots."""

from collections.abc import Sequence
from pathlib import Path

from .evaluating import Measurement
from .plots import plot_matrix, plot_scatter
from .results_files import file_stem, merge_results, read_results, write_predictions, write_results
from .tables import results_markdown


def write_report(measurements: Sequence[Measurement], output_dir: Path, results: Path) -> None:
    """Writes `results.md`, `predictions/` and `plots/` into a folder, and the rows into a results file.

    Args:
        measurements: what was measured.
        output_dir: made if it is missing.
        results: JSON file; keeps its rows, and a row about the same checkpoint, data set and split is replaced.

    Raises:
        MetaQAPError: if `results` is another kind of file.
        OSError: if something cannot be written.
    """
    rows = merge_results(read_results(results), [measurement.row for measurement in measurements])
    write_results(results, rows)
    (output_dir / "plots").mkdir(parents=True, exist_ok=True)
    (output_dir / "results.md").write_text(results_markdown(rows))
    for measurement in measurements:
        stem = file_stem(measurement.row)
        write_predictions(output_dir / "predictions" / f"{stem}.csv", measurement)
        plot_scatter(measurement, output_dir / "plots" / f"scatter-{stem}.png")
    if len({(row["dataset"], row["split"]) for row in rows}) > 1:
        plot_matrix(rows, output_dir / "plots" / "srocc.png")


__all__ = ["write_report"]
