"""LIVE In the Wild Image Quality Challenge Database: 1,162 photographs from mobile devices."""

import re

from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_mat, require_same_length

# The images t1.bmp to t7.bmp were shown to the raters for practice; everyone leaves them out.
_PRACTICE_IMAGE = re.compile(r"t\d+\.bmp", re.IGNORECASE)


class LIVEC(IQADatasetBuilder):
    """LIVE In the Wild Challenge ("LIVE-C", "CLIVE"; Ghadiyaram & Bovik, 2016), layout `ChallengeDB_release`.

    The seven practice images are left out, as is customary. There is no official split.
    """

    title = "LIVE In the Wild Challenge"
    summary = "1,162 photographs with authentic distortions from mobile devices, rated by over 8,100 people online."
    homepage = "https://live.ece.utexas.edu/research/ChallengeDB/index.html"
    license = "free for research with the copyright notice of The University of Texas at Austin; see the home page"
    citation = """@article{ghadiyaram2016massive,
  title   = {Massive online crowdsourced study of subjective and objective picture quality},
  author  = {Ghadiyaram, Deepti and Bovik, Alan C.},
  journal = {IEEE Transactions on Image Processing},
  volume  = {25},
  number  = {1},
  pages   = {372--387},
  year    = {2016},
  doi     = {10.1109/TIP.2015.2500021},
}"""
    mos_range = (0.0, 100.0)
    num_images = 1_162
    layout = (
        "Data/AllImages_release.mat",
        "Data/AllMOS_release.mat",
        "Data/AllStdDev_release.mat",
        "Images",
    )

    def _read_records(self) -> list[IQARecord]:
        columns = {}
        for variable in ("AllImages_release", "AllMOS_release", "AllStdDev_release"):
            path = self.root / "Data" / f"{variable}.mat"
            (columns[variable],) = read_mat(path, variables=[variable], title=self.title)
        require_same_length(columns, path=self.root / "Data", title=self.title)
        images = FileIndex(self.root / "Images")
        return [
            IQARecord(
                image_id=name,
                image_path=images[name],
                mos=parse_score(mos, what=name, path=self.root / self.layout[1], title=self.title),
                mos_std=parse_score(std, what=name, path=self.root / self.layout[2], title=self.title),
            )
            for name, mos, std in zip(*columns.values(), strict=True)
            if not _PRACTICE_IMAGE.fullmatch(name)
        ]
