"""BIQ2021: 12,000 photographs with laboratory opinion scores."""

from .base import Download, IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_csv

_LABEL_FILES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


class BIQ2021(IQADatasetBuilder):
    """BIQ2021 (Ahmed & Asif, 2022), read from its repository's layout or downloaded from there.

    The official split has 10,000 training and 2,000 test images. `validation` is a fixed 1,000 of the official
    training images and `train` the other 9,000; `train_full` is all 10,000.

    Subsets 1 and 2 (`ss01`, `ss02` in the image's name) hold several shots of one scene. The publisher gives no scene
    ids, so `reference_id` is null, and one scene can stand on both sides of any split, the official one included.
    """

    title = "BIQ2021"
    summary = (
        "12,000 photographs with authentic and post-processing distortions, each rated by 30 people in a laboratory; "
        "subsets 1 and 2 hold several shots of one scene, for which no scene ids are published."
    )
    homepage = "https://github.com/nisarahmedrana/BIQ2021"
    license = "not stated by the publisher"
    citation = """@article{ahmed2022biq2021,
  title   = {{BIQ2021}: a large-scale blind image quality assessment database},
  author  = {Ahmed, Nisar and Asif, Shahzad},
  journal = {Journal of Electronic Imaging},
  volume  = {31},
  number  = {5},
  pages   = {053010},
  year    = {2022},
  doi     = {10.1117/1.JEI.31.5.053010},
}"""
    mos_range = (0.0, 1.0)
    num_images = 12_000
    has_official_split = True
    cuts_validation = True
    layout = (*_LABEL_FILES.values(), "Images")
    # The archive is made anew for each request, so what is inside of it has the checksum.
    download = Download(
        url="https://github.com/nisarahmedrana/BIQ2021/archive/62c7b40c036b68ee280626409699aa5c1a37fe57.zip",
        content_sha256="1141f276a341075787962642b8ce2fc16656213b9a2e51f1978037f1b50e5943",
    )

    def _read_records(self) -> list[IQARecord]:
        # One file's name differs in case from the label file's, and the training labels have two empty columns more.
        images = FileIndex(self.root / "Images")
        records = []
        for split, label_file in _LABEL_FILES.items():
            path = self.root / label_file
            for row in read_csv(path, columns=("Image Name", "MOS"), title=self.title):
                name = row["Image Name"]
                mos = parse_score(row["MOS"], what=name, path=path, title=self.title)
                records.append(IQARecord(image_id=name, image_path=images[name], mos=mos, split=split))
        return records
