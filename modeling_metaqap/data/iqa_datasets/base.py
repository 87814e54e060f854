"""What every image quality data set has in common: one schema, one notion of a split, one set of checks.

A concrete data set is a subclass of [`IQADatasetBuilder`] that states its facts as class attributes and turns the
files that its publisher distributes into a list of [`IQARecord`]. Everything else happens here: the images are
checked, the opinion scores are turned into `quality` in [0, 1] with higher better, and the splits are cut.

The builders are `datasets.GeneratorBasedBuilder`s that live in a package. They are the successors of data set
loading *scripts*, which `datasets` refuses since version 4.
"""

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock

from ...errors import DataError
from .files import (
    ARCHIVE_SUFFIXES,
    LABEL_SUFFIXES,
    check_image,
    download_file,
    fingerprint,
    folder_sha256,
    new_folder,
    unpack,
)

# Splits drawn by us follow Ghadiyaram & Bovik (LIVE-C, 2016) and nearly everyone after them: 80 % training, 20 % test.
TEST_FRACTION = 0.2
# Part of the training images that is held back for choosing epochs, weights and learners.
VALIDATION_FRACTION = 0.1
NUM_RANDOM_SPLITS = 10

SPLITS = ("train", "validation", "test")
# Splits that are sums of others.
COMPOSED_SPLITS = {"train_full": ("train", "validation"), "all": ("train", "validation", "test")}

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "image_id": datasets.Value("string"),
        "mos": datasets.Value("float64"),
        "mos_std": datasets.Value("float64"),
        "quality": datasets.Value("float64"),
        "reference_id": datasets.Value("string"),
    }
)


@dataclass(frozen=True, kw_only=True)
class IQARecord:
    """One rated image, as its publisher describes it.

    Args:
        image_id: The image's name in the publisher's label file, unique within the data set.
        image_path: Where the image lies on this machine.
        mos: The opinion score as published (a DMOS stays a DMOS here).
        mos_std: Standard deviation of the individual opinions on the same scale, where published.
        reference_id: The image's content: the pristine image it was made from, or the scene it shows.
        split: `"train"`, `"validation"` or `"test"` in the official split, where there is one.
    """

    image_id: str
    image_path: Path
    mos: float
    mos_std: float | None = None
    reference_id: str | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Download:
    """An archive that the publisher lets anybody download.

    Args:
        url: Where it is. It should name one version for good.
        content_sha256: [`folder_sha256`] of what is in the archive's single top folder.
    """

    url: str
    content_sha256: str


@dataclass
class IQADatasetConfig(datasets.BuilderConfig):
    """Options that every builder takes.

    Args:
        allow_partial: Accept fewer images than the publisher distributes, for trying things out on a handful of
            images. The images that the label files do list must still be there.
    """

    allow_partial: bool = False


class IQADatasetBuilder(datasets.GeneratorBasedBuilder):
    """Base of all builders.

    Every split has the columns `image` (`datasets.Image`: a PIL image, already turned upright by its EXIF
    orientation), `image_id` (str), `mos` (float, as published), `mos_std` (float or null), `quality` (float in [0, 1],
    higher is better) and `reference_id` (str or null). Images are never re-encoded: the Arrow files point to the
    publisher's files, and Parquet files hold those files' bytes.

    Splits: `train`, `validation` and `test` are disjoint. A data set without an official split has ten of each,
    `train_0` to `test_9`. [`load_iqa_dataset`] adds composed ones and lets the number 0 be left out.

    Args:
        data_dir: Folder with what the publisher distributes, unpacked or as archives (.zip, .tar.gz, ...), or one such
            archive; `None` downloads it where the publisher allows that.
        cache_dir: Where the Arrow files, downloads and unpacked archives are kept; by default the cache of `datasets`.
        options: The configuration's fields, such as `allow_partial`.

    Raises:
        DataError: A file is missing, damaged or not as published; nothing is left in the cache.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = IQADatasetConfig

    title: str
    summary: str
    homepage: str
    license: str
    citation: str
    mos_range: tuple[float, float]
    higher_is_better: bool = True
    num_images: int | None
    has_official_split: bool = False
    # Whether the official split lacks a validation split, so that we cut one from its training images.
    cuts_validation: bool = False
    # Relative paths that show that a folder is this data set's, and that are named where they are missing.
    layout: tuple[str, ...]
    download: Download | None = None

    def __init__(
        self, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None, **options: Any
    ) -> None:
        known = {field.name for field in dataclasses.fields(self.BUILDER_CONFIG_CLASS)}
        known -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
        if unknown := sorted(set(options) - known):
            raise DataError(f"{self.title} has no option {unknown[0]!r}; its options are {', '.join(sorted(known))}.")
        self._data_dir = None if data_dir is None else Path(data_dir).expanduser().absolute()
        cache = Path(datasets.config.HF_DATASETS_CACHE if cache_dir is None else cache_dir).expanduser()
        # Beside the Arrow files, which `datasets` keeps in folders with the builders' names.
        self._files_dir = cache / "metaqap" / type(self).__module__.rsplit(".", 1)[-1]
        super().__init__(
            data_dir=None if self._data_dir is None else str(self._data_dir),
            cache_dir=None if cache_dir is None else str(cache),
            # `datasets` caches by the folder's path alone. The fingerprint keeps a folder that has changed since from
            # being served from the cache as it was.
            hash=self._fingerprint()[:32],
            **options,
        )

    # What a subclass provides.

    def _read_records(self) -> list[IQARecord]:
        """Reads the publisher's label files under `self.root`."""
        raise NotImplementedError

    # What all share.

    @functools.cached_property
    def root(self) -> Path:
        """The folder that holds the layout; downloaded or unpacked on first use, if need be."""
        if self._data_dir is None:
            if self.download is None:
                raise DataError(
                    f"{self.title} cannot be downloaded automatically. Get it from {self.homepage} and pass the "
                    "folder as data_dir."
                )
            return self._find_root(self._downloaded(self.download))
        archives = self._archives
        if not archives:
            return self._find_root(self._data_dir)
        folder = self._files_dir / self._fingerprint()[:32]
        with self._lock():
            if not folder.is_dir():
                with new_folder(folder) as content:
                    for archive in archives:
                        unpack(archive, content)
                    # Label files often lie beside the archives with the images.
                    for path in archives[0].parent.iterdir():
                        if path.suffix.lower() in LABEL_SUFFIXES:
                            shutil.copy(path, content)
        return self._find_root(folder, described=f"the archives in {archives[0].parent}")

    @functools.cached_property
    def _archives(self) -> list[Path]:
        """Archives to unpack: `data_dir` itself or, where the layout is not found in it, those in it."""
        if self._data_dir is None:
            return []
        if self._data_dir.is_file() and self._data_dir.name.lower().endswith(ARCHIVE_SUFFIXES):
            return [self._data_dir]
        if not self._data_dir.is_dir():
            raise DataError(f"{self.title}: the folder {self._data_dir} does not exist.")
        if self._holding_layout(self._data_dir) is not None:
            return []
        return sorted(path for path in self._data_dir.iterdir() if path.name.lower().endswith(ARCHIVE_SUFFIXES))

    def _holding_layout(self, folder: Path) -> Path | None:
        """`folder` or, as archives often bring a folder of their own, the first one inside it with the layout."""
        candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        return next((path for path in candidates if all((path / name).exists() for name in self.layout)), None)

    def _find_root(self, folder: Path, *, described: str | None = None) -> Path:
        root = self._holding_layout(folder)
        if root is None:
            missing = ", ".join(repr(name) for name in self.layout if not (folder / name).exists())
            raise DataError(
                f"{self.title}: {missing} not found in {described or folder}; data_dir must be what {self.homepage} "
                "distributes."
            )
        return root

    def _fingerprint(self) -> str:
        if self._data_dir is None:
            return hashlib.sha256(repr(self.download).encode()).hexdigest()
        if not self._archives:
            return fingerprint(self.root)
        # Reading gigabytes only to see that nothing has changed would take longer than everything else.
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._archives]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _downloaded(self, download: Download) -> Path:
        folder = self._files_dir / download.content_sha256[:32]
        with self._lock():
            if not folder.is_dir():
                archive = download_file(download.url, folder.with_name(f"{folder.name}.zip"), sha256=None)
                try:
                    with new_folder(folder) as content:
                        unpack(archive, content)
                        tops = list(content.iterdir())
                        found = folder_sha256(tops[0]) if len(tops) == 1 else "no single folder"
                        if found != download.content_sha256:
                            raise DataError(
                                f"{self.title}: the files from {download.url} have the checksum {found} instead of "
                                f"{download.content_sha256}: they are damaged or were changed. They were deleted."
                            )
                finally:
                    archive.unlink()
        return folder

    def _lock(self) -> FileLock:
        self._files_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self._files_dir / "files.lock")

    def _info(self) -> datasets.DatasetInfo:
        low, high = self.mos_range
        direction = "higher is better" if self.higher_is_better else "lower is better (DMOS)"
        return datasets.DatasetInfo(
            description=f"{self.title}: {self.summary} Opinion scores lie in [{low:g}, {high:g}], {direction}.",
            citation=self.citation,
            homepage=self.homepage,
            license=self.license,
            features=FEATURES,
        )

    @property
    def split_names(self) -> list[str]:
        """Names of the splits that the builder cuts."""
        if self.has_official_split:
            return list(SPLITS)
        return [f"{split}_{number}" for number in range(NUM_RANDOM_SPLITS) for split in SPLITS]

    def quality(self, mos: float) -> float:
        """Maps a published score from `mos_range` to [0, 1] with higher better."""
        low, high = self.mos_range
        quality = (mos - low) / (high - low)
        return quality if self.higher_is_better else 1.0 - quality

    def read_records(self) -> list[IQARecord]:
        """All the rated images in the order of the label files, checked.

        Raises:
            DataError: An image is missing, truncated or no image; a score is not a number in `mos_range`; an
                image is listed twice; or the number of images is not the published one.
        """
        records = self._read_records()
        if not records:
            raise DataError(f"{self.title}: the label files in {self.root} list no images.")
        seen: set[str] = set()
        low, high = self.mos_range
        for record in records:
            if record.image_id in seen:
                raise DataError(f"{self.title}: {record.image_id!r} is listed twice in the label files.")
            seen.add(record.image_id)
            # Written this way round so that NaN is refused as well.
            if not low <= record.mos <= high:
                raise DataError(
                    f"{self.title}: the score of {record.image_id!r} is {record.mos:g}, outside the range [{low:g}, "
                    f"{high:g}]; the label file is damaged or belongs to another data set."
                )
        if self.num_images is not None and len(records) != self.num_images and not self.config.allow_partial:
            raise DataError(
                f"{self.title} has {self.num_images} images, but the label files in {self.root} list {len(records)}; "
                "get the missing ones, or pass allow_partial=True to use the files as they are."
            )
        for record in records:
            check_image(record.image_path, title=self.title)
        return records

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        # All the checking is done before the first row is written, and outside of the generator, whose errors
        # `datasets` hides behind one of its own.
        records = self.read_records()
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"records": [records[index] for index in indices]})
            for name, indices in self.split_indices(records).items()
        ]

    def _generate_examples(self, records: Sequence[IQARecord]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(records):
            yield (
                index,
                {
                    "image": str(record.image_path),
                    "image_id": record.image_id,
                    "mos": record.mos,
                    "mos_std": record.mos_std,
                    "quality": self.quality(record.mos),
                    "reference_id": record.reference_id,
                },
            )

    def split_indices(self, records: Sequence[IQARecord]) -> dict[str, list[int]]:
        """Positions in `records` that belong to each split in `split_names`.

        Which split an image is in follows from the names of the images alone (see [`hashed_cut`]), so it is the same
        on every machine. Images with a common `reference_id` are never torn apart, unless the publisher does so.
        """
        groups = [record.reference_id or record.image_id for record in records]
        if self.has_official_split:
            split_of_record = [record.split for record in records]
            if self.cuts_validation:
                split_of_record = self._hold_back_validation(groups, split_of_record, number=0)
            return {name: [i for i, split in enumerate(split_of_record) if split == name] for name in SPLITS}
        indices = {}
        for number in range(NUM_RANDOM_SPLITS):
            test = hashed_cut(groups, TEST_FRACTION, key=f"{self.name}/test/{number}")
            split_of_record = ["test" if group in test else "train" for group in groups]
            split_of_record = self._hold_back_validation(groups, split_of_record, number=number)
            for name in SPLITS:
                indices[f"{name}_{number}"] = [i for i, split in enumerate(split_of_record) if split == name]
        return indices

    def _hold_back_validation(
        self, groups: Sequence[str], split_of_record: Sequence[str | None], *, number: int
    ) -> list[str | None]:
        training = [group for group, split in zip(groups, split_of_record, strict=True) if split == "train"]
        held_back = hashed_cut(training, VALIDATION_FRACTION, key=f"{self.name}/validation/{number}")
        return [
            "validation" if split == "train" and group in held_back else split
            for group, split in zip(groups, split_of_record, strict=True)
        ]


def hashed_order(names: Iterable[str], *, key: str) -> list[str]:
    """The distinct names in an order that looks random and follows from them and the key alone.

    They are sorted by the SHA-256 of `"{key}\\n{name}"`.
    """
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{key}\n{name}".encode()).digest())


def hashed_cut(names: Iterable[str], fraction: float, *, key: str) -> set[str]:
    """Picks a fixed, random-looking share of names.

    The first ones in [`hashed_order`] are taken: as many as `fraction` of the distinct names, rounded, but at least
    one of several. Neither the order of the names nor the machine, Python or NumPy version matters.

    Args:
        names: Names to pick from; duplicates count once.
        fraction: Share to pick, in (0, 1).
        key: Names the draw; another key gives an independent draw.
    """
    ordered = hashed_order(names, key=key)
    size = max(round(fraction * len(ordered)), 1 if len(ordered) > 1 else 0)
    return set(ordered[:size])
