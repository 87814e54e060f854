"""Anybody's own rated images: a folder and a CSV file."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from .base import SPLITS, IQADatasetBuilder, IQADatasetConfig, IQARecord
from .files import FileIndex, parse_score, read_csv

#: Names under which a column is recognised, the first one first, in any case.
IMAGE_COLUMNS = ("file_name", "image_name", "image name", "image_id", "image", "filename", "name", "path")
MOS_COLUMNS = ("mos", "dmos", "score", "quality", "rating")
STD_COLUMNS = ("mos_std", "std", "sd")
REFERENCE_COLUMNS = ("reference_id", "reference", "ref_img")
SPLIT_COLUMNS = ("split", "set")
_SPLITS = {name: name for name in SPLITS} | {"training": "train", "valid": "validation", "val": "validation"}


def known_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column that has the first of some names that there is, in any case."""
    folded = {column.casefold(): column for column in columns}
    return next((folded[name] for name in names if name in folded), None)


@dataclass
class FolderConfig(IQADatasetConfig):
    """Options of a user's own folder.

    Args:
        labels: The CSV file, relative to `data_dir` or absolute; by default the only one in `data_dir`.
        image_column: Column with the images' paths relative to `data_dir`; by default the first of `file_name`,
            `image_name`, `image_id`, `image`, `filename`, `name` and `path`.
        mos_column: Column with the opinion scores; by default the first of `mos`, `dmos`, `score`, `quality` and
            `rating`.
        mos_range: Lowest and highest score that a rater could give, which become quality 0 and 1.
        higher_is_better: `False` for scores of which lower ones are better, such as DMOS.
    """

    labels: str | None = None
    image_column: str | None = None
    mos_column: str | None = None
    mos_range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True


class Folder(IQADatasetBuilder):
    """A folder of images and a CSV file with a row per image.

    The columns `mos_std` (or `std`, `sd`), `reference_id` (or `reference`, `ref_img`) and `split` (or `set`, with the
    values `train`, `validation` and `test`) are used where they exist. Without `split`, ten 80/20 splits are cut, in
    which images with a common `reference_id` stay together.
    """

    BUILDER_CONFIG_CLASS = FolderConfig

    title = "folder"
    summary = "A user's own images and opinion scores."
    homepage = ""
    license = "the user's own"
    citation = ""
    num_images = None
    layout = ()
    _range_hint = "say with `mos_range` which lowest and highest score a rater could give"

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        labels: str | Path | None = None,
        mos_range: tuple[float, float] = (0.0, 1.0),
        higher_is_better: bool = True,
        **options: Any,
    ) -> None:
        if data_dir is None:
            raise DataError("The data set 'folder' needs `data_dir`, the folder with your images and CSV file.")
        low, high = mos_range
        if not low < high:
            raise DataError(f"`mos_range` must be the lowest and the highest score, not ({low:g}, {high:g}).")
        self.mos_range = (float(low), float(high))
        self.higher_is_better = higher_is_better
        self._labels = self._find_labels(Path(data_dir).expanduser().absolute(), labels)
        self._rows = read_csv(self._labels, columns=(), title=self.title)
        self._columns = list(self._rows[0] if self._rows else {})
        self._split_column = known_column(self._columns, SPLIT_COLUMNS)
        self.has_official_split = self._split_column is not None
        splits = (
            {_SPLITS.get(row[self._split_column].casefold()) for row in self._rows} if self._split_column else set()
        )
        self.cuts_validation = "validation" not in splits
        super().__init__(
            data_dir=data_dir,
            labels=str(self._labels),
            mos_range=self.mos_range,
            higher_is_better=higher_is_better,
            **options,
        )

    def _find_labels(self, data_dir: Path, labels: str | Path | None) -> Path:
        if not data_dir.is_dir():
            raise DataError(f"The folder {data_dir} does not exist.")
        if labels is not None:
            path = data_dir / Path(labels).expanduser()
            if not path.is_file():
                raise DataError(f"The label file {path} does not exist.")
            return path
        found = sorted(path for path in data_dir.iterdir() if path.suffix.lower() == ".csv")
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise DataError(f"{data_dir} must hold one CSV file (found: {names}); name the one with the scores.")
        return found[0]

    def _fingerprint(self) -> str:
        # The label file may lie elsewhere.
        return hashlib.sha256(super()._fingerprint().encode() + self._labels.read_bytes()).hexdigest()

    def _column(self, option: str, names: tuple[str, ...]) -> str:
        chosen = getattr(self.config, option)
        column = known_column(self._columns, names) if chosen is None else chosen
        if column not in self._columns:
            what = f"no column {chosen!r}" if chosen else f"none of the columns {', '.join(names)}"
            raise DataError(
                f"{self._labels} has {what}; choose `{option}` from {', '.join(self._columns) or 'nothing'}."
            )
        return str(column)

    def _read_records(self) -> list[IQARecord]:
        image_column, mos_column = (
            self._column("image_column", IMAGE_COLUMNS),
            self._column("mos_column", MOS_COLUMNS),
        )
        std_column, reference_column = (
            known_column(self._columns, STD_COLUMNS),
            known_column(self._columns, REFERENCE_COLUMNS),
        )
        images = FileIndex(self.root)
        records = []
        for row in self._rows:
            name = row[image_column].replace("\\", "/")
            deviation = row[std_column] if std_column else ""
            records.append(
                IQARecord(
                    image_id=name,
                    image_path=images[name],
                    mos=parse_score(row[mos_column], what=name, path=self._labels, title=self.title),
                    mos_std=parse_score(deviation, what=name, path=self._labels, title=self.title)
                    if deviation
                    else None,
                    reference_id=(row[reference_column] or None) if reference_column else None,
                    split=self._split_of(row[self._split_column], name) if self._split_column else None,
                )
            )
        return records

    def _split_of(self, text: str, name: str) -> str:
        if text.casefold() not in _SPLITS:
            raise DataError(f"{self._labels} puts {name!r} into the split {text!r}; use train, validation or test.")
        return _SPLITS[text.casefold()]
