"""KADID-10k: 81 pristine photographs with 25 distortions at 5 levels each."""

from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_csv

_LABEL_FILE = "dmos.csv"


class KADID10k(IQADatasetBuilder):
    """KADID-10k (Lin et al., 2019), layout `dmos.csv` and `images/`.

    The scores run from 1 to 5 and higher is better, although their column is called `dmos`. Likewise the column `var`
    holds standard deviations: an image with a mean of 4.57 is given .496, and that is the deviation of 13 times 4 and
    17 times 5. There is no official split; ours keep each pristine image's versions together.
    """

    title = "KADID-10k"
    summary = "10,125 versions of 81 photographs with 25 synthetic distortions at 5 levels, each rated by 30 people."
    homepage = "https://database.mmsp-kn.de/kadid-10k-database.html"
    license = "pristine images under the Pixabay licence; see the home page"
    citation = """@inproceedings{lin2019kadid,
  title     = {{KADID-10k}: A large-scale artificially distorted {IQA} database},
  author    = {Lin, Hanhe and Hosu, Vlad and Saupe, Dietmar},
  booktitle = {International Conference on Quality of Multimedia Experience},
  pages     = {1--3},
  year      = {2019},
  doi       = {10.1109/QoMEX.2019.8743252},
}"""
    mos_range = (1.0, 5.0)
    num_images = 10_125
    layout = (_LABEL_FILE, "images")

    def _read_records(self) -> list[IQARecord]:
        images = FileIndex(self.root / "images")
        path = self.root / _LABEL_FILE
        return [
            IQARecord(
                image_id=row["dist_img"],
                image_path=images[row["dist_img"]],
                mos=parse_score(row["dmos"], what=row["dist_img"], path=path, title=self.title),
                mos_std=parse_score(row["var"], what=row["dist_img"], path=path, title=self.title),
                reference_id=row["ref_img"],
            )
            for row in read_csv(path, columns=("dist_img", "ref_img", "dmos", "var"), title=self.title)
        ]
