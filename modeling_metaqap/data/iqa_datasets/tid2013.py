"""TID2013: 25 pristine images with 24 distortions at 5 levels each."""

from ...errors import DataError
from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, require_same_length

_LABEL_FILE = "mos_with_names.txt"
_DEVIATION_FILE = "mos_std.txt"


class TID2013(IQADatasetBuilder):
    """TID2013 (Ponomarenko et al., 2015), layout `mos_with_names.txt`, `mos_std.txt` and `distorted_images/`.

    The case of the images' names differs between label file, disk and release. There is no official split; ours keep
    each pristine image's versions together.
    """

    title = "TID2013"
    summary = "3,000 versions of 25 images with 24 synthetic distortions at 5 levels, rated in 971 experiments."
    homepage = "http://www.ponomarenko.info/tid2013.htm"
    license = "see the home page"
    citation = """@article{ponomarenko2015image,
  title   = {Image database {TID2013}: Peculiarities, results and perspectives},
  author  = {Ponomarenko, Nikolay and Jin, Lina and Ieremeiev, Oleg and Lukin, Vladimir and Egiazarian, Karen and
             Astola, Jaakko and Vozel, Benoit and Chehdi, Kacem and Carli, Marco and Battisti, Federica and
             Kuo, C.-C. Jay},
  journal = {Signal Processing: Image Communication},
  volume  = {30},
  pages   = {57--77},
  year    = {2015},
  doi     = {10.1016/j.image.2014.10.009},
}"""
    mos_range = (0.0, 9.0)
    num_images = 3_000
    layout = (_LABEL_FILE, _DEVIATION_FILE, "distorted_images")

    def _read_records(self) -> list[IQARecord]:
        path, deviation_path = self.root / _LABEL_FILE, self.root / _DEVIATION_FILE
        labels = [line.split() for line in path.read_text().splitlines() if line.strip()]
        deviations = deviation_path.read_text().split()
        require_same_length({_LABEL_FILE: labels, _DEVIATION_FILE: deviations}, path=self.root, title=self.title)
        images = FileIndex(self.root / "distorted_images")
        records = []
        for label, deviation in zip(labels, deviations, strict=True):
            if len(label) != 2:
                raise DataError(f"{self.title}: {' '.join(label)!r} in {path} is not a score and a name.")
            score, name = label
            records.append(
                IQARecord(
                    image_id=name,
                    image_path=images[name],
                    mos=parse_score(score, what=name, path=path, title=self.title),
                    mos_std=parse_score(deviation, what=name, path=deviation_path, title=self.title),
                    reference_id=name.split("_")[0].upper(),
                )
            )
        return records
