"""What the Adapt tab does: uploaded photographs and ratings -> a checkpoint in a zip archive. No Gradio in here.

Needs what `metaqap adapt` needs besides the demo, so whoever imports it learns at once what is missing.
"""

import csv
import io
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.rating_options import RatingOptions
from ..data.ratings import Ratings, rated_names, read_ratings
from ..errors import MetaQAPError
from ..fusion.adapting import FEWEST, Adaptation, AdaptationSettings, adapt_to_ratings
from ..inference.scorer import Scorer
from ..lineage import weights_sha256
from .limits import Limits
from .unpacking import Upload, unpack_uploads

# Is needed to save the learning curve, minutes after the upload.
import_module("..fusion.adapted_plot", __package__)

#: What the checkpoint is called, in its zip archive and in its card.
NAME = "my-metaqap"

# Of the file of ratings. Each row is filled up to as many cells as the first one has.
_MAX_CSV_BYTES, _MAX_CELLS = 10_000_000, 1_000_000

# Photographs between two looks at the clock.
_TOGETHER = 8

# Beside the photographs, for what is made of them.
_SPARE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Adapted:
    """What came of an upload.

    Attributes:
        record: of the `Adaptation`.
        left_out: of each photograph that cannot be read, its name and the reason.
    """

    record: dict[str, Any]
    left_out: dict[str, str]


class Adapter:
    """Adapts the checkpoint of the demo to the ratings of a visitor, within limits. Nothing of an upload is kept.

    Args:
        scorer: of the checkpoint, with its limit of pixels. Its scores are what is known before the ratings.
        checkpoint: folder or Hub id.
        limits: of ratings, bytes and seconds.
        settings: of `adapt`; default `AdaptationSettings()`.

    Raises:
        MetaQAPError: if fewer ratings are allowed than adapting takes.
    """

    #: Photographs that it takes at least.
    fewest = FEWEST

    def __init__(
        self, scorer: Scorer, checkpoint: str | Path, limits: Limits, *, settings: AdaptationSettings | None = None
    ):
        if limits.max_ratings < FEWEST:
            raise MetaQAPError(
                f"The limit max_ratings must be 0, which leaves the Adapt tab out, or at least {FEWEST}, got "
                f"{limits.max_ratings}."
            )
        self.limits = limits
        self._scorer = scorer
        self._settings = settings
        self._started_from = weights_sha256(checkpoint)

    def adapt(
        self,
        uploads: Sequence[Upload],
        output: Path,
        *,
        options: RatingOptions,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Adapted:
        """Write an adapted checkpoint to a zip archive.

        Args:
            uploads: photographs and a CSV file, or zip archives of them.
            output: the archive to write.
            options: how the CSV file is to be read; which file it is follows from the uploads.
            on_progress: gets the numbers of photographs that are read and of all.

        Raises:
            MetaQAPError: for what cannot be used or is over a limit, in one sentence without a path of the server.
        """
        left_out: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="metaqap-adapt-") as temporary:
            folder = Path(temporary).resolve() / "photographs"
            folder.mkdir()
            try:
                ratings = self._read(uploads, folder, options)
                adaptation = adapt_to_ratings(
                    self._scorer,
                    ratings,
                    started_from=self._started_from,
                    settings=self._settings,
                    cache_dir=Path(temporary) / "features",
                    together=_TOGETHER,
                    on_progress=self._in_time(on_progress),
                    on_unreadable=lambda path, reason: left_out.update({str(path.relative_to(folder)): reason}),
                )
                _save(adaptation, Path(temporary) / NAME, output)
            except MetaQAPError as error:
                said = str(error).replace(f"{folder}/", "").replace(str(folder), "the upload")
                if left_out:
                    name, reason = next(iter(left_out.items()))
                    said += f" Of the photographs {len(left_out)} cannot be read, such as {name}: {reason}."
                raise MetaQAPError(said) from error
            except OSError as error:
                # Whatever the file is called, the visitor has not named it.
                raise MetaQAPError(
                    f"The server cannot keep these files: {error.strerror or 'no reason given'}."
                ) from error
        return Adapted(adaptation.record, left_out)

    def _read(self, uploads: Sequence[Upload], folder: Path, options: RatingOptions) -> Ratings:
        if not uploads:
            raise MetaQAPError("Please choose photographs and a CSV file with their ratings first.")
        if shutil.disk_usage(folder).free < self.limits.max_unpacked + _SPARE_BYTES:
            raise MetaQAPError("The server has no room for more photographs now; try again in an hour.")
        files = unpack_uploads(uploads, folder, max_bytes=self.limits.max_bytes, max_total=self.limits.max_unpacked)
        table = _only_table(files)
        _refuse_large(table)
        names = rated_names(table, image_column=options.image_column)
        if len(names) > self.limits.max_ratings:
            raise MetaQAPError(
                f"{table.name} rates {len(names):,} photographs; this server adapts to {self.limits.max_ratings:,} at "
                "most, and `metaqap adapt` on your own machine to any number."
            )
        if outside := [name for name in sorted(names) if ".." in PurePosixPath(name).parts]:
            raise MetaQAPError(f"{table.name} names a photograph outside of the upload: {outside[0][:80]}.")
        return read_ratings(_folder_of(names, table, files), replace(options, csv=table))

    def _in_time(self, on_progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
        end = time.monotonic() + self.limits.max_adapt_seconds

        def watch(done: int, total: int) -> None:
            if time.monotonic() > end:
                raise MetaQAPError(
                    f"Only {done:,} of the {total:,} photographs could be read in the "
                    f"{self.limits.max_adapt_seconds:,} seconds that this server gives; choose fewer or smaller ones."
                )
            on_progress(done, total)

        return watch


def _only_table(files: Sequence[Path]) -> Path:
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    if len(tables) == 1:
        return tables[0]
    found = f"{len(tables)} CSV files, {', '.join(path.name for path in tables[:3])}" if tables else "no CSV file"
    raise MetaQAPError(f"The upload has {found}; it takes the photographs and one CSV file with their ratings.")


def _refuse_large(table: Path) -> None:
    """Refuse a file that would take much memory once it is read."""
    size = table.stat().st_size
    if size > _MAX_CSV_BYTES:
        raise MetaQAPError(f"{table.name} has more than {_MAX_CSV_BYTES:,} bytes; keep the columns that matter.")
    text = table.read_text(encoding="utf-8-sig", errors="replace")
    try:
        columns = max(len(next(csv.reader(io.StringIO(text, newline=""), delimiter=sign), [])) for sign in ",;\t")
    except csv.Error:
        return  # is said when it is read
    if columns * (text.count("\n") + text.count("\r") + 1) > _MAX_CELLS:
        raise MetaQAPError(f"{table.name} has more than {_MAX_CELLS:,} cells; keep the columns that matter.")


def _folder_of(names: set[str], table: Path, files: Sequence[Path]) -> Path:
    """The folder that the names are relative to: that of the CSV file, unless more of the photographs are elsewhere.

    An archive of a folder has that folder in it, and the CSV file often lies beside it.
    """
    wanted = {name.casefold() for name in names}
    found = Counter(
        parent for file in files for parent in file.parents if file.relative_to(parent).as_posix().casefold() in wanted
    )
    return max([table.parent, *found], key=lambda folder: found[folder])


def _save(adaptation: Adaptation, checkpoint: Path, output: Path) -> None:
    """Write a checkpoint into a zip archive, in a folder of its name."""
    adaptation.save(checkpoint)
    # Weights do not get smaller.
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
            archive.write(path, f"{checkpoint.name}/{path.relative_to(checkpoint).as_posix()}")


__all__ = ["NAME", "Adapted", "Adapter"]
