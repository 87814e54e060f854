"""BIQ2021: 12,000 photographs with laboratory opinion scores."""

import csv
from pathlib import Path
from typing import ClassVar

from .base import FileIndex, IQADatasetBuilder, IQADatasetError, IQARecord, parse_score

_LABEL_FILES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


class BIQ2021(IQADatasetBuilder):
    """BIQ2021 (Ahmed & Asif, Journal of Electronic Imaging 31(5), 2022).

    The official split has 10,000 training and 2,000 test images. `validation` is a fixed 1,000 of the official training
    images and `train` the other 9,000; `train_full` is all 10,000.

    Subsets 1 and 2 (`ss01`, `ss02` in the image's name) hold several shots of one scene. The publisher gives no scene
    ids, so `reference_id` is null, and one scene can stand on both sides of any split, the official one included.
    """

    title: ClassVar[str] = "BIQ2021"
    summary: ClassVar[str] = (
        "12,000 photographs with authentic and post-processing distortions, each rated by 30 people in a laboratory; "
        "subsets 1 and 2 hold several shots of one scene, for which no scene ids are published."
    )
    homepage: ClassVar[str] = "https://github.com/nisarahmedrana/BIQ2021"
    license: ClassVar[str] = "not stated by the publisher"
    citation: ClassVar[str] = """@article{ahmed2022biq2021,
  title   = {{BIQ2021}: a large-scale blind image quality assessment database},
  author  = {Ahmed, Nisar and Asif, Shahzad},
  journal = {Journal of Electronic Imaging},
  volume  = {31},
  number  = {5},
  pages   = {053010},
  year    = {2022},
  doi     = {10.1117/1.JEI.31.5.053010},
}"""
    mos_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    num_images: ClassVar[int | None] = 12_000
    has_official_split: ClassVar[bool] = True
    layout: ClassVar[tuple[str, ...]] = (*_LABEL_FILES.values(), "Images")

    def _read_records(self) -> list[IQARecord]:
        images = FileIndex(self.root / "Images")
        return [
            IQARecord(image_id=image_id, image_path=images[image_id], mos=mos, part=part)
            for part, label_file in _LABEL_FILES.items()
            for image_id, mos in self._read_labels(self.root / label_file)
        ]

    def _read_labels(self, path: Path) -> list[tuple[str, float]]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
        # The training file has two more, empty columns.
        if not rows or rows[0][:2] != ["Image Name", "MOS"]:
            raise IQADatasetError(f"{self.title}: {path} does not begin with the columns 'Image Name' and 'MOS'.")
        labels = []
        for row in rows[1:]:
            if not any(row):
                continue
            name, score = (row + [""])[:2]
            labels.append((name, parse_score(score, what=name, path=path, title=self.title)))
        return labels
