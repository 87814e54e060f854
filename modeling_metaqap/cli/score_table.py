"""Scores as people read them: rows of a table, printed one by one as they come."""

from rich.console import Console
from rich.text import Text

from ..data.names import shown_name
from ..inference.records import ScoreRecord, interval_title, scale_title
from ..inference.wording import distortion_title, looks_like


class ScoreTable:
    """Prints records as rows, so that the first is seen before the last is there.

    The path comes last: it alone may be of any length, so the columns are known beforehand. Where standard output is
    no terminal, the cells are separated by tabs and there is no heading, as programs such as `sort` and `cut` want it.

    Args:
        console: standard output.
        coverage: of the interval; None for scores without one.
        distortions: names that records may have, those of a checkpoint.
        scale: of the scores.
    """

    def __init__(
        self,
        console: Console,
        *,
        coverage: float | None,
        distortions: list[str],
        scale: tuple[float, float] = (0.0, 1.0),
    ):
        self.console = console
        heading = "quality" if scale == (0.0, 1.0) else f"quality, {scale_title(scale)}"
        self._columns = {heading: len(heading)}
        if coverage is not None:
            self._columns[interval_title(coverage)] = 14
        if distortions:
            self._columns["looks like"] = max(len(distortion_title(name)) for name in distortions) + len(" (100%)")
        self._is_first = True

    def print(self, record: ScoreRecord) -> None:
        """Print a row."""
        cells = self._cells(record)
        path = Text(shown_name(record.path))  # as `Text`, so that brackets are not taken for markup
        if record.error is not None:
            path.append(f": {record.error}", style="red")
        elif record.warning is not None:
            path.append(f": {record.warning}", style="yellow")
        if not self.console.is_terminal:
            print(*cells, path.plain, sep="\t", file=self.console.file)  # rich makes spaces of tabs
            return
        if self._is_first:
            self._line(Text(self._padded(list(self._columns)) + "image", style="bold"))
            self._is_first = False
        self._line(Text(self._padded(cells)) + path)

    def _cells(self, record: ScoreRecord) -> list[str]:
        cells = ["error" if record.quality is None else f"{record.quality:.3f}"]
        for column in list(self._columns)[1:]:
            if column == "looks like":
                likeness = looks_like(record)
                cells.append(f"{likeness} ({record.distortion_probability:.0%})" if likeness else "")
            elif record.quality_low is not None:
                cells.append(f"{record.quality_low:.2f} to {record.quality_high:.2f}")
            else:
                cells.append("")
        return cells

    def _padded(self, cells: list[str]) -> str:
        widths = list(self._columns.values())
        first = cells[0].rjust(widths[0])  # numbers below each other
        return "  ".join([first, *(cell.ljust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)), ""])

    def _line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)


__all__ = ["ScoreTable"]
