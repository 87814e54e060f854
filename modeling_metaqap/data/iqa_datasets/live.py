"""LIVE Image Quality Assessment Database, release 2: 29 pristine images with 5 distortions."""

from .base import IQADatasetBuilder, IQARecord
from .files import parse_score, read_mat, require_same_length

# The label files list the images in this order.
_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


class LIVE(IQADatasetBuilder):
    """LIVE release 2 (Sheikh et al., 2006), layout `databaserelease2`, with the realigned DMOS.

    The 203 copies of pristine images among the distorted ones are left out. Realignment gives scores from -2.6 to
    111.8; the range from -5 to 115, which `quality` refers to, is ours. There is no official split; ours keep each
    pristine image's versions together.
    """

    title = "LIVE release 2"
    summary = "779 versions of 29 images with 5 synthetic distortions, rated by 20 to 29 people each."
    homepage = "https://live.ece.utexas.edu/research/quality/subjective.htm"
    license = "free for research with the copyright notice of The University of Texas at Austin; see the home page"
    citation = """@article{sheikh2006statistical,
  title   = {A statistical evaluation of recent full reference image quality assessment algorithms},
  author  = {Sheikh, Hamid R. and Sabir, Muhammad F. and Bovik, Alan C.},
  journal = {IEEE Transactions on Image Processing},
  volume  = {15},
  number  = {11},
  pages   = {3440--3451},
  year    = {2006},
  doi     = {10.1109/TIP.2006.881959},
}"""
    mos_range = (-5.0, 115.0)
    higher_is_better = False
    num_images = 779
    layout = ("dmos_realigned.mat", "refnames_all.mat", *_FOLDERS)

    def _read_records(self) -> list[IQARecord]:
        path, names_path = self.root / "dmos_realigned.mat", self.root / "refnames_all.mat"
        scores, pristine = read_mat(path, variables=["dmos_new", "orgs"], title=self.title)
        (references,) = read_mat(names_path, variables=["refnames_all"], title=self.title)
        names = [f"{folder}/img{number}.bmp" for folder, count in _FOLDERS.items() for number in range(1, count + 1)]
        columns = {"images": names, "dmos_new": scores, "orgs": pristine, "refnames_all": references}
        require_same_length(columns, path=self.root, title=self.title)
        return [
            IQARecord(
                image_id=name,
                image_path=self.root / name,
                mos=parse_score(score, what=name, path=path, title=self.title),
                reference_id=reference,
            )
            for name, score, is_pristine, reference in zip(*columns.values(), strict=True)
            if not is_pristine
        ]
