"""FLIVE: 39,810 photographs from several public sources."""

from ...errors import DataError
from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_csv

_LABEL_FILE = "labels_image.csv"
_TEST_FILE = "labels640.csv"
_VALIDATION_FILE = "labels=640_padded.csv"


class FLIVE(IQADatasetBuilder):
    """FLIVE, the pictures of "From Patches to Pictures" (PaQ-2-PiQ; Ying et al., 2020), layout `database/`.

    The official split: the test images are the ones larger than 640 pixels (`labels640.csv`), and the validation
    images are marked by `is_valid` in `labels=640_padded.csv`. Patches are not read.
    """

    title = "FLIVE"
    summary = "39,810 photographs with authentic distortions, each rated by about 35 people online."
    homepage = "https://github.com/niu-haoran/FLIVE_Database"
    license = "images under the terms of their sources; not stated for the labels; see the home page"
    citation = """@inproceedings{ying2020patches,
  title     = {From patches to pictures ({PaQ-2-PiQ}): Mapping the perceptual space of picture quality},
  author    = {Ying, Zhenqiang and Niu, Haoran and Gupta, Praful and Mahajan, Dhruv and Ghadiyaram, Deepti and
               Bovik, Alan C.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {3575--3585},
  year      = {2020},
}"""
    mos_range = (0.0, 100.0)
    num_images = 39_810
    has_official_split = True
    layout = (_LABEL_FILE, _TEST_FILE, _VALIDATION_FILE)

    def _read_records(self) -> list[IQARecord]:
        split_of = {
            row["name_image"]: "validation"
            for row in read_csv(self.root / _VALIDATION_FILE, columns=("name_image", "is_valid"), title=self.title)
            if row["is_valid"].lower() in {"true", "1", "1.0"}
        }
        for row in read_csv(self.root / _TEST_FILE, columns=("name_image",), title=self.title):
            split_of[row["name_image"]] = "test"
        images = FileIndex(self.root)
        path = self.root / _LABEL_FILE
        records = [
            IQARecord(
                image_id=row["name"],
                image_path=images[row["name"]],
                mos=parse_score(row["mos"], what=row["name"], path=path, title=self.title),
                split=split_of.pop(row["name"], "train"),
            )
            for row in read_csv(path, columns=("name", "mos"), title=self.title)
        ]
        if split_of:
            raise DataError(
                f"{self.title}: {len(split_of)} images of the official split, such as {next(iter(split_of))!r}, are "
                f"missing in {path}."
            )
        return records
