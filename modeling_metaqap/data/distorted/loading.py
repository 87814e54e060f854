"""Reads distorted images and their pseudo opinion scores from the Parquet files that `building` writes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets

from ...errors import DataError
from ..distortions import DISTORTION_NAMES

SETTINGS_FILE = "settings.json"


def features(metrics: Sequence[str]) -> datasets.Features:
    """The columns of the data set."""
    return datasets.Features(
        {
            "image": datasets.Image(),
            "distortion": datasets.ClassLabel(names=list(DISTORTION_NAMES)),
            "level": datasets.Value("int8"),
            "pseudo_mos": datasets.Value("float32"),
            "reference_id": datasets.Value("string"),
            "metrics": {name: datasets.Value("float32") for name in metrics},
        }
    )


def load_distorted(directory: str | Path, *, cache_dir: str | None = None) -> datasets.Dataset:
    """Read a complete data set that `build` has made.

    Returns:
        Rows of `image`, `quality` (the pseudo opinion score, in [0, 1], higher is better), `distortion` (the position
        in `DISTORTION_NAMES`), `level` and `reference_id`.

    Raises:
        DataError: There is no such data set, or parts of it are missing.
    """
    directory = Path(directory)
    if not (directory / SETTINGS_FILE).is_file():
        raise DataError(f"There is no distorted data set in {directory}; make one with `metaqap distort-set`.")
    settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    total = -(-settings["photographs"] // settings["images_per_part"])
    files = sorted(str(path) for path in directory.glob("part-*.parquet"))
    done = len(files) + len(list(directory.glob("part-*.empty")))
    if done < total or not files:
        raise DataError(
            f"{directory} holds {done} of {total} parts; run `metaqap distort-set` with the same settings again to "
            "make the others."
        )
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache_dir)
    if table.features["distortion"].names != list(DISTORTION_NAMES):
        raise DataError(f"{directory} was made with other distortions; make it anew with `metaqap distort-set`.")
    return table.rename_column("pseudo_mos", "quality").remove_columns("metrics")


def refuse_shared(learned: datasets.Dataset, unseen: datasets.Dataset) -> None:
    """Raise `DataError` if images to learn from and images to validate on were made from the same photographs."""
    if shared := set(learned["reference_id"]) & set(unseen["reference_id"]):
        raise DataError(
            f"The distorted images to learn from and those to validate on share {len(shared)} pristine photographs, "
            f"such as {min(shared)}; make them from different ones."
        )


def rows_without(distorted: datasets.Dataset, photographs: Iterable[str]) -> list[int]:
    """Numbers of the distorted images that were not made from these photographs, told by their ids.

    Raises:
        DataError: All of them were.
    """
    hidden = set(photographs)
    rows = [row for row, name in enumerate(distorted["reference_id"]) if name not in hidden]
    if not rows:
        raise DataError(f"All {len(distorted)} distorted images were made from photographs of the other split.")
    return rows


__all__ = ["features", "load_distorted"]
