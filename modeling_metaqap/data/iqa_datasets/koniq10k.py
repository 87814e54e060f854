"""KonIQ-10k: 10,073 photographs from YFCC100M."""

import math
from dataclasses import dataclass

from ...errors import DataError
from .base import IQADatasetBuilder, IQADatasetConfig, IQARecord
from .files import FileIndex, parse_score, read_csv

_LABEL_FILE = "koniq10k_distributions_sets.csv"
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_RATINGS = (1, 2, 3, 4, 5)


@dataclass
class KonIQ10kConfig(IQADatasetConfig):
    """Options of KonIQ-10k.

    Args:
        resolution: Which of the two published versions of the images to read, `"1024x768"` or `"512x384"`.
    """

    resolution: str = "1024x768"


class KonIQ10k(IQADatasetBuilder):
    """KonIQ-10k (Hosu et al., 2020) with its official split into 7,058 / 1,000 / 2,015 images.

    `mos` is the published score, for which each rater's ratings were standardised. The published deviation belongs to
    the ratings of 1 to 5 instead; `mos_std` is that of the published counts of those ratings, stretched to 0 to 100.
    """

    BUILDER_CONFIG_CLASS = KonIQ10kConfig

    title = "KonIQ-10k"
    summary = "10,073 photographs with authentic distortions, each rated by about 120 people online."
    homepage = "https://database.mmsp-kn.de/koniq-10k-database.html"
    license = "images under the Creative Commons licences of their photographers (YFCC100M); see the home page"
    citation = """@article{hosu2020koniq,
  title   = {{KonIQ-10k}: An ecologically valid database for deep learning of blind image quality assessment},
  author  = {Hosu, Vlad and Lin, Hanhe and Sziranyi, Tamas and Saupe, Dietmar},
  journal = {IEEE Transactions on Image Processing},
  volume  = {29},
  pages   = {4041--4056},
  year    = {2020},
  doi     = {10.1109/TIP.2020.2967829},
}"""
    mos_range = (0.0, 100.0)
    num_images = 10_073
    has_official_split = True
    layout = (_LABEL_FILE,)

    def _read_records(self) -> list[IQARecord]:
        folder = self.root / self.config.resolution
        if not folder.is_dir():
            raise DataError(
                f"{self.title}: the folder {folder} does not exist; get the images in that size, or pass "
                "resolution='512x384' or '1024x768', whichever you have."
            )
        images = FileIndex(folder)
        path = self.root / _LABEL_FILE
        columns = ("image_name", "MOS", "set", *(f"c{rating}" for rating in _RATINGS))
        records = []
        for row in read_csv(path, columns=columns, title=self.title):
            name = row["image_name"]
            if row["set"] not in _SPLITS:
                raise DataError(f"{self.title}: {name!r} in {path} belongs to the unknown set {row['set']!r}.")
            mos, *counts = (
                parse_score(row[column], what=name, path=path, title=self.title)
                for column in ("MOS", *(f"c{rating}" for rating in _RATINGS))
            )
            records.append(
                IQARecord(
                    image_id=name,
                    image_path=images[name],
                    mos=mos,
                    mos_std=_deviation(counts),
                    split=_SPLITS[row["set"]],
                )
            )
        return records


def _deviation(counts: list[float]) -> float | None:
    """Standard deviation of ratings of 1 to 5, of which there are so many each, on a scale of 0 to 100."""
    total = sum(counts)
    if total < 2:
        return None
    mean = sum(rating * count for rating, count in zip(_RATINGS, counts, strict=True)) / total
    squares = sum(count * (rating - mean) ** 2 for rating, count in zip(_RATINGS, counts, strict=True))
    return 25 * math.sqrt(squares / (total - 1))
