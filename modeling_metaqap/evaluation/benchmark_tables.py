"""What each section of the benchmark has measured, as a table for the terminal."""

from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.table import Table

from ..data.distorted.pseudo_mos import METRIC_SETS, METRICS
from ..data.distortions import DISTORTIONS
from .tables import TextTable


def show_distortions(result: dict[str, Any]) -> Table:
    rates = result["images_per_second"]
    cells = [[name, DISTORTIONS[name].family, f"{rate:.1f}"] for name, rate in rates.items()]
    cells.append(["median", "", f"{result['median_images_per_second']:.1f}"])
    table = TextTable(["distortion", "family", "images/s"], cells).rich(title="Distorted images per second and core")
    table.caption = f"The slowest, {result['slowest']}, takes {result['slowest_over_median']:.1f} x the median."
    return table


def show_pseudo_mos(result: dict[str, Any]) -> Table:
    sizes = result["sides"]
    cells = [[name, *(f"{row['milliseconds'][name]:.1f}" for row in sizes.values())] for name in METRICS]
    for kind in METRIC_SETS:
        rates = (f"{row[f'{kind}_images_per_second']:.1f}" for row in sizes.values())
        cells.append([f"{kind}: pseudo-MOS per second", *rates])
    headings = ["metric", *(f"{side} px" for side in sizes)]
    return TextTable(headings, cells).rich(title="Milliseconds per image on one core")


def show_inference(result: dict[str, Any]) -> Table:
    side = result["side"]
    cells = [
        [name, f"{row['crops_per_second']:.2f}", f"{row['over_torch']:.2f} x"]
        for name, row in result["engines"].items()
    ]
    title = f"{result['checkpoint']}: crops of {side} x {side} on {result['threads']} thread"
    table = TextTable(["engine", "crops/s", "beside PyTorch"], cells).rich(title=title)
    table.caption = (
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['macs'] / 1e9:.2f} G multiply-adds for one crop, "
        f"{result['weights_megabytes']:.1f} MB of weights, {result['peak_memory_megabytes']:.0f} MB peak memory, "
        f"{result['turns']} turns"
    )
    return table


#: What `race` measures of a contender.
_RATES = ("images/s", "images/s of a processor")


def _rates(row: dict[str, Any]) -> list[str]:
    return [f"{row['images_per_second']:.2f}", f"{row['images_per_processor_second']:.2f}"]


def show_scoring(result: dict[str, Any]) -> Table:
    cells = []
    for name, row in result["contenders"].items():
        if name == "matrix product":
            continue
        if "error" in row:
            cells.append([name, "did not run", "", "", ""])
            continue
        share = f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else ""
        cells.append([name, *_rates(row), share, f"{row['peak_memory_megabytes']:.0f}"])
    width, height = result["size"]
    title = f"Photographs of {width} x {height} from file to score, {result['threads']} threads"
    table = TextTable(["", *_RATES, "of the peak", "MB at most"], cells).rich(title=title)
    table.caption = f"median of {result['turns']} turns; the peak is that of a product of large matrices"
    return table


def show_distributed(result: dict[str, Any]) -> Table:
    cells = [
        [name, f"{row['images_per_second']:.2f}", f"{row['start_up_seconds']:.1f}"]
        for name, row in result["contenders"].items()
    ]
    width, height = result["size"]
    title = f"Photographs of {width} x {height} from file to score, on {result['workers']} cores"
    table = TextTable(["", "images/s", "s to start"], cells).rich(title=title)
    table.caption = f"Ray {result['ray_over_one_process']:.1%} of one process, median of {result['turns']} turns"
    return table


def show_training(result: dict[str, Any]) -> Group:
    size = f"{result['batch_size']} crops of {result['crop_size']} px"
    cells = [[name, f"{rate:.2f}"] for name, rate in result["images_per_second"].items()]
    title = f"Training {result['backbone']} on {size}, {result['threads']} thread"
    table = TextTable(["loop", "images/s"], cells).rich(title=title)
    table.caption = f"{result['over_timm']:.1%} of the bare loop, median of {result['turns']} turns"
    return Group(table, _show_with_reading(result["with_reading"]))


def _show_with_reading(result: dict[str, Any]) -> Table:
    cells = [
        [name, "did not run", "", ""]
        if "error" in row
        else [name, *_rates(row), f"{row['peak_memory_megabytes']:.0f}"]
        for name, row in result["contenders"].items()
    ]
    reading = f"{result['processes_that_read']} processes that read" if result["processes_that_read"] else "reading"
    title = f"With {reading}, {result['threads']} threads on as many cores"
    table = TextTable(["", *_RATES, "MB at most"], cells).rich(title=title)
    shown = (f"{name} {value:.2f}" for name, value in result["ratios"].items() if value is not None)
    table.caption = f"{'; '.join(shown)}; median of {result['turns']} turns"
    return table


def show_start_up(result: dict[str, Any]) -> Table:
    columns = (
        "first_line_seconds",
        "beyond_imports",
        "whole_seconds",
        "processor_seconds",
        "processor_seconds_beyond_imports",
    )
    cells = [[name, *(f"{row[column]:.2f}" for column in columns)] for name, row in result["programs"].items()]
    title = f"Seconds to the score of one photograph, {result['threads']} threads"
    headings = ["", "first line", "beyond the imports", "end", "of a processor", "of it beyond the imports"]
    table = TextTable(headings, cells).rich(title=title)
    table.caption = f"median of {result['turns']} turns"
    return table


TABLES: dict[str, Callable[[dict[str, Any]], Table | Group]] = {
    "distortions": show_distortions,
    "inference": show_inference,
    "pseudo_mos": show_pseudo_mos,
    "scoring": show_scoring,
    "training": show_training,
    "distributed": show_distributed,
    "start_up": show_start_up,
}

__all__ = ["TABLES"]
