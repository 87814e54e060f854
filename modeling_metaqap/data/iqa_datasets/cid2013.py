"""CID2013: 474 photographs of 8 scenes from 79 cameras."""

import re
from pathlib import Path
from typing import Any

from ...errors import DataError
from .base import IQADatasetBuilder, IQARecord
from .files import FileIndex, parse_score, read_sheets

# Image set, scene and device: IS_III_C05_D14 lies in IS3/co5.
_NAME = re.compile(r"(IS_(?P<set>I|II|III|IV|V|VI)_(?P<scene>C(?P<number>\d\d))_D\d\d)(\.jpe?g)?", re.IGNORECASE)
_SETS = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


class CID2013(IQADatasetBuilder):
    """CID2013 (Virtanen et al., 2015), layout `IS1/co1/` to `IS6/co8/` and the workbook with the scores.

    The scores are those realigned over the six image sets, some of which are below zero; the range from -10 to 100,
    which `quality` refers to, is ours. `reference_id` is the photographed scene. There is no official split; ours keep
    each scene's photographs together, so the test split holds two of eight scenes.
    """

    title = "CID2013"
    summary = "474 photographs of 8 scenes from 79 cameras and phones, rated in a laboratory in 6 image sets."
    homepage = "https://zenodo.org/record/2647033"
    license = "see the home page"
    citation = """@article{virtanen2015cid2013,
  title   = {{CID2013}: A database for evaluating no-reference image quality assessment algorithms},
  author  = {Virtanen, Toni and Nuutinen, Mikko and Vaahteranoksa, Mikko and Oittinen, Pirkko and
             H{\\"a}kkinen, Jukka},
  journal = {IEEE Transactions on Image Processing},
  volume  = {24},
  number  = {1},
  pages   = {390--402},
  year    = {2015},
  doi     = {10.1109/TIP.2014.2378061},
}"""
    mos_range = (-10.0, 100.0)
    num_images = 474
    layout = ("IS1", "IS2", "IS3", "IS4", "IS5", "IS6")

    def _read_records(self) -> list[IQARecord]:
        workbooks = sorted(self.root.glob("*.xlsx"))
        for path in workbooks:
            for sheet in read_sheets(path, title=self.title):
                records = self._read_sheet(sheet, path)
                if records:
                    return records
        raise DataError(
            f"{self.title}: no .xlsx file in {self.root} has a sheet with the images' names (IS_I_C01_D01, ...) and a "
            f"column 'MOS'; looked in {', '.join(path.name for path in workbooks) or 'none'}."
        )

    def _read_sheet(self, sheet: list[tuple[Any, ...]], path: Path) -> list[IQARecord]:
        """The images that a sheet rates: none where it has no score column, or no names of images."""
        images = FileIndex(self.root)
        records: list[IQARecord] = []
        score_column: int | None = None
        for cells in sheet:
            names = [_NAME.fullmatch(str(cell).strip()) for cell in cells]
            match = next((name for name in names if name), None)
            if match is None:
                # A header. The plain MOS of one image set cannot be compared with another's, so the realigned wins.
                titles = [str(cell).casefold() for cell in cells]
                candidates = [i for i, text in enumerate(titles) if re.search(r"\bmos\b", text)]
                realigned = [i for i in candidates if re.search(r"re-?aligned", titles[i])]
                score_column = next(iter(realigned + candidates), score_column)
            elif score_column is not None:
                name = f"{match[1].upper()}.jpg"
                folder = f"IS{_SETS[match['set'].upper()]}/co{int(match['number'])}"
                records.append(
                    IQARecord(
                        image_id=name,
                        image_path=images[f"{folder}/{name}"],
                        mos=parse_score(cells[score_column], what=name, path=path, title=self.title),
                        reference_id=match["scene"].upper(),
                    )
                )
        return records
