"""CSIQ: 30 pristine images with 6 distortions at 4 to 5 levels each."""

from ...errors import DataError
from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_table

_LABEL_FILE = "csiq.DMOS.xlsx"
# Name of the distortion in the workbook -> folder and abbreviation in the file's name.
_DISTORTIONS = {
    "noise": "AWGN",
    "awgn": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
    "jpeg2000": "jpeg2000",
}


class CSIQ(IQADatasetBuilder):
    """Categorical Subjective Image Quality (Larson & Chandler, 2010), layout `csiq.DMOS.xlsx` and `dst_imgs/`.

    The scores are DMOS: 0 is indistinguishable from the pristine image, 1 the worst. There is no official split; ours
    keep each pristine image's versions together.
    """

    title = "CSIQ"
    summary = "866 versions of 30 images with 6 synthetic distortions at 4 to 5 levels, rated by 35 people."
    homepage = "https://s2.smu.edu/~eclarson/csiq.html"
    license = "not stated by the publisher"
    citation = """@article{larson2010most,
  title   = {Most apparent distortion: full-reference image quality assessment and the role of strategy},
  author  = {Larson, Eric C. and Chandler, Damon M.},
  journal = {Journal of Electronic Imaging},
  volume  = {19},
  number  = {1},
  pages   = {011006},
  year    = {2010},
  doi     = {10.1117/1.3267105},
}"""
    mos_range = (0.0, 1.0)
    higher_is_better = False
    num_images = 866
    layout = (_LABEL_FILE, "dst_imgs")

    def _read_records(self) -> list[IQARecord]:
        images = FileIndex(self.root / "dst_imgs")
        path = self.root / _LABEL_FILE
        records = []
        for row in read_table(path, columns=("image", "dst_type", "dst_lev", "dmos_std", "dmos"), title=self.title):
            image, distortion, level = (_text(row[column]) for column in ("image", "dst_type", "dst_lev"))
            if distortion.lower() not in _DISTORTIONS:
                raise DataError(f"{self.title}: {path} names the unknown distortion {distortion!r}.")
            folder = _DISTORTIONS[distortion.lower()]
            name = f"{image}.{folder}.{level}.png"
            records.append(
                IQARecord(
                    image_id=name,
                    image_path=images[f"{folder}/{name}"],
                    mos=parse_score(row["dmos"], what=name, path=path, title=self.title),
                    mos_std=parse_score(row["dmos_std"], what=name, path=path, title=self.title),
                    reference_id=image,
                )
            )
        return records


def _text(cell: object) -> str:
    """An image called 1600 is a number in the workbook."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
