"""SPAQ: 11,125 photographs from 66 smartphones."""

from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_table

_LABEL_FILE = "Annotations/MOS and Image attribute scores.xlsx"


class SPAQ(IQADatasetBuilder):
    """Smartphone Photography Attribute and Quality (Fang et al., 2020), layout `TestImage/` and `Annotations/`.

    There is no official split. The images are large, many over 10 megapixels.
    """

    title = "SPAQ"
    summary = "11,125 photographs from 66 smartphones, rated by over 600 people in a laboratory."
    homepage = "https://github.com/h4nwei/SPAQ"
    license = "not stated by the publisher"
    citation = """@inproceedings{fang2020perceptual,
  title     = {Perceptual quality assessment of smartphone photography},
  author    = {Fang, Yuming and Zhu, Hanwei and Zeng, Yan and Ma, Kede and Wang, Zhou},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {3677--3686},
  year      = {2020},
}"""
    mos_range = (0.0, 100.0)
    num_images = 11_125
    layout = (_LABEL_FILE, "TestImage")

    def _read_records(self) -> list[IQARecord]:
        images = FileIndex(self.root / "TestImage")
        path = self.root / _LABEL_FILE
        return [
            IQARecord(
                image_id=str(row["Image name"]),
                image_path=images[str(row["Image name"])],
                mos=parse_score(row["MOS"], what=str(row["Image name"]), path=path, title=self.title),
            )
            for row in read_table(path, columns=("Image name", "MOS"), title=self.title)
        ]
