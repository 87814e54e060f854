"""Tables of measured figures, and the sentences beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from ..inference.records import percent
from .baselines.scorer import BASELINES
from .metrics import MIN_IMAGES

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


@dataclass(frozen=True)
class TextTable:
    """A table for a page and for a terminal.

    Args:
        headings: one for each column.
        rows: cells, as many as there are headings in each row. The first column stands to the left, the others to the
            right.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown, with a line break at the end."""
        lines = [self.headings, ["---", *["---:"] * (len(self.headings) - 1)], *self.rows]
        escaped = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
        return "".join(f"| {line} |\n" for line in escaped)

    def rich(self, *, title: str | None = None) -> Table:
        """The table for `rich.console.Console.print`; brackets in cells are text, not markup."""
        table = Table(title=title)
        for number, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


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
    return TextTable(["", *HEADINGS.values()], cells).markdown()


def interval_sentence(row: Row) -> str | None:
    """What the prediction interval held, for people; None for a method without one."""
    held = row.get("interval")
    if held is None:
        return None
    width = f"{held['width']:.3f} wide"
    if "narrowest" in held:
        width += f" on average ({held['narrowest']:.3f} to {held['widest']:.3f})"
    return (
        f"The {percent(held['calibrated_for'])} interval of {title(row)} is {width} and holds the "
        f"opinion scores of {100 * held['coverage']:.1f} % of these {_images(row)}."
    )


def few_images_sentence(row: Row) -> str | None:
    """That there are too few images for correlations; None where there are enough."""
    if row["n"] >= MIN_IMAGES:
        return None
    return (
        f"{row['n']} images are too few for a correlation, which would be 1 or -1 whatever they are. There must be "
        f"{MIN_IMAGES} at least, and figures to rely on need some dozens."
    )


def learners_sentence(row: Row) -> str | None:
    """What an ensemble's learners and their plain mean reached by themselves; None for what is no ensemble."""
    learners = row.get("learners")
    if learners is None:
        return None
    figures = ", ".join(f"{name} {plcc_srocc(alone)}" for name, alone in learners.items())
    return f"The learners of {title(row)} by themselves on these {_images(row)}, PLCC / SROCC: {figures}."


def _images(row: Row) -> str:
    return f"{row['n']:,} images" if "median_of" not in row else f"images (median of {row['median_of']} splits)"


def sentences(row: Row) -> list[str]:
    """What else there is to say of a row beside its figures."""
    return [
        sentence
        for sentence in (few_images_sentence(row), interval_sentence(row), learners_sentence(row))
        if sentence is not None
    ]


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
        sections.append(f"## SROCC across data sets\n\n{TextTable(['', *columns], cells).markdown()}")
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


__all__ = [
    "TextTable",
    "few_images_sentence",
    "format_figure",
    "interval_sentence",
    "learners_sentence",
    "plcc_srocc",
    "results_markdown",
    "results_table",
    "sentences",
    "srocc_matrix",
    "title",
]
