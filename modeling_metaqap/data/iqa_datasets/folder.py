"""Anybody's own rated images: a folder and a CSV file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..rating_options import RatingOptions
from .base import SPLITS, IQADatasetBuilder, IQADatasetConfig, IQARecord
from .files import FileIndex
from .rating_tables import find_csv, read_table

_SPLITS = {name: name for name in SPLITS} | {"training": "train", "valid": "validation", "val": "validation"}


@dataclass
class FolderConfig(IQADatasetConfig):
    """Options of a user's own folder.

    Args:
        csv: The CSV file, relative to the working directory or else to `data_dir`; by default the only one in
            `data_dir`.
        image_column: Column with the images' paths relative to `data_dir`; by default the first of `file_name`,
            `image_name`, `image_id`, `image`, `filename`, `name` and `path`.
        mos_column: Column with the opinion scores; by default the first of `mos`, `dmos`, `score`, `quality` and
            `rating`.
        mos_range: Lowest and highest score that a rater could give, which become quality 0 and 1; by default 0 and 1,
            if all scores lie there.
        lower_is_better: `True` for scores of which lower ones are better, such as DMOS.
    """

    csv: str | None = None
    image_column: str | None = None
    mos_column: str | None = None
    mos_range: tuple[float, float] | None = None
    lower_is_better: bool = False


class Folder(IQADatasetBuilder):
    """A folder of images and a CSV file with a row for each image, or for each rating with a column `rater`.

    The columns `mos_std` (or `std`, `sd`), `reference_id` (or `reference`, `ref_img`) and `split` (or `set`, with the
    values `train`, `validation` and `test`) are used where they exist. Without `split`, ten 80/20 splits are cut, in
    which images with a common `reference_id` stay together. Rows without a rating are left out.
    """

    BUILDER_CONFIG_CLASS = FolderConfig

    title = "folder"
    summary = "A user's own images and opinion scores."
    homepage = ""
    license = "the user's own"
    citation = ""
    num_images = None
    layout = ()

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        csv: str | Path | None = None,
        image_column: str | None = None,
        mos_column: str | None = None,
        mos_range: tuple[float, float] | None = None,
        lower_is_better: bool = False,
        **options: Any,
    ) -> None:
        if data_dir is None:
            raise DataError("The data set 'folder' needs `data_dir`, the folder with your images and CSV file.")
        chosen = RatingOptions(image_column=image_column, mos_column=mos_column, mos_range=mos_range)
        self._table = read_table(find_csv(Path(data_dir).expanduser().absolute(), csv), chosen)
        self.mos_range = self._table.mos_range
        self.higher_is_better = not lower_is_better
        self.has_official_split = self._table.has_splits
        splits = {_SPLITS.get((image.split or "").casefold()) for image in self._table.images}
        self.cuts_validation = "validation" not in splits
        super().__init__(
            data_dir=data_dir,
            csv=str(self._table.path),
            image_column=image_column,
            mos_column=mos_column,
            mos_range=self.mos_range,
            lower_is_better=lower_is_better,
            **options,
        )

    def _fingerprint(self) -> str:
        # The label file may lie elsewhere.
        return hashlib.sha256(super()._fingerprint().encode() + self._table.path.read_bytes()).hexdigest()

    def _read_records(self) -> list[IQARecord]:
        images = FileIndex(self.root)
        return [
            IQARecord(
                image_id=image.name,
                image_path=images[image.name],
                mos=image.mos,
                mos_std=image.mos_std,
                reference_id=image.reference_id,
                split=None if image.split is None else self._split_of(image.split, image.name),
            )
            for image in self._table.images
        ]

    def _split_of(self, text: str, name: str) -> str:
        if text.casefold() not in _SPLITS:
            raise DataError(
                f"{self._table.path} puts {name!r} into the split {text!r}; use train, validation or test."
            )
        return _SPLITS[text.casefold()]
