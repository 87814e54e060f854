"""A folder of pictures that explain scores, one for each image, in sub-folders as the images lie in theirs."""

import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..data.atomic import save_picture
from ..data.names import shown_name
from ..errors import MetaQAPError
from .pictures import explanation_picture
from .record_files import cannot_write
from .records import ScoreRecord
from .scorer import Scorer


class ExplanationFolder:
    """Draws each record's quality map and likeliest distortions.

    The picture of `photos/a.jpg` is `FOLDER/photos/a.jpg.png`: the path from the working directory, or the whole path
    of an image outside of it. So images of the same name in different folders have different pictures, and the same
    command replaces its own pictures only.

    Args:
        folder: where the pictures go; it is made if need be.
        scorer: with the PyTorch engine; reads the photographs again.
        keep: paths of images that must not be overwritten. A picture that would gets a number in its name.

    Raises:
        MetaQAPError: if the folder cannot be made, or the scorer's engine gives no quality maps.
    """

    def __init__(self, folder: Path, scorer: Scorer, *, keep: Iterable[str] = ()):
        self.folder, self.scorer = folder, scorer
        self.labels = scorer.model.config.distortion_labels or []
        #: Images without a picture, each with the reason.
        self.missing: list[str] = []
        self._taken = {Path(path).resolve() for path in keep}
        _make(folder)

    def write(self, record: ScoreRecord) -> ScoreRecord:
        """Write the picture of a record that has a quality map, and return the record without the map.

        Thousands of maps would fill the memory. A record of an image that could not be read gets no picture, and one
        whose picture cannot be made is told in `missing`.

        Raises:
            MetaQAPError: if the picture cannot be written.
        """
        if record.error is not None:
            return record
        quality_map, record.quality_map = record.quality_map, None
        try:
            pixels = self.scorer.read(record.path).pixels
        except MetaQAPError as error:  # the file has gone since it was scored, say
            self.missing.append(f"{shown_name(record.path)}: {error}")
            return record
        picture = explanation_picture(pixels, replace(record, quality_map=quality_map), self.labels)
        target = self._target(record.path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture, target)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise cannot_write(target, error) from error
            self.missing.append(f"{shown_name(record.path)}: its name is too long")
        return record

    def _target(self, path: str) -> Path:
        """Where the picture of this image goes: a file that is neither an image to keep nor another's picture."""
        relative = Path(os.path.relpath(path))
        if ".." in relative.parts or relative.is_absolute():
            relative = Path(*Path(path).absolute().parts[1:])
        target, number = self.folder / f"{relative}.png", 1
        while target.resolve() in self._taken:
            number += 1
            target = self.folder / f"{relative}-{number}.png"
        self._taken.add(target.resolve())
        return target


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


__all__ = ["ExplanationFolder"]
