"""What every image quality data set has in common: one schema, one notion of a split, one set of checks.

A concrete data set is a subclass of [`IQADatasetBuilder`] that states its facts as class attributes and turns the
files that its publisher distributes into a list of [`IQARecord`]. Everything else happens here: the images are
checked, the opinion scores are turned into `quality` in [0, 1] with higher better, and the splits are cut.

The builders are `datasets.GeneratorBasedBuilder`s that live in a package. They are the successors of data set
loading *scripts*, which `datasets` refuses since version 4.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import PIL.Image
from PIL import UnidentifiedImageError

# Splits drawn by us follow Ghadiyaram & Bovik (LIVE-C, 2016) and nearly everyone after them: 80 % training, 20 % test.
TEST_FRACTION = 0.2
# Part of the training images that is held back for choosing epochs, weights and learners.
VALIDATION_FRACTION = 0.1
NUM_RANDOM_SPLITS = 10

PARTS = ("train", "validation", "test")

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


class IQADatasetError(ValueError):
    """A data set's files are missing, damaged or not what the publisher distributes. The message says which file."""


@dataclass(frozen=True, kw_only=True)
class IQARecord:
    """One rated image, as its publisher describes it.

    Args:
        image_id: The image's name in the publisher's label file, unique within the data set.
        image_path: Where the image lies on this machine.
        mos: The opinion score as published (a DMOS stays a DMOS here).
        mos_std: Standard deviation of the individual opinions on the same scale, where published.
        reference_id: The pristine image that this one was made from; images that share it share their content.
        part: `"train"`, `"validation"` or `"test"` in the official split, where there is one.
    """

    image_id: str
    image_path: Path
    mos: float
    mos_std: float | None = None
    reference_id: str | None = None
    part: str | None = None


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

    Splits: `train`, `validation` and `test` are disjoint, and `train_full` is `train+validation`. A data set without an
    official split has ten of each, `train_0` to `test_9`, where the name without a number means number 0.

    Raises:
        IQADatasetError: A file is missing, damaged or not as published; nothing is left in the cache.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = IQADatasetConfig

    title: ClassVar[str]
    summary: ClassVar[str]
    homepage: ClassVar[str]
    license: ClassVar[str]
    citation: ClassVar[str]
    mos_range: ClassVar[tuple[float, float]]
    higher_is_better: ClassVar[bool] = True
    num_images: ClassVar[int | None]
    has_official_split: ClassVar[bool] = False
    # Relative paths that show that a folder is this data set's; the first one is named when it is not.
    layout: ClassVar[tuple[str, ...]]

    def __init__(
        self, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None, **kwargs: Any
    ) -> None:
        self._cache_root = Path(cache_dir).expanduser() if cache_dir is not None else None
        root = Path(data_dir).expanduser().absolute() if data_dir is not None else self._download()
        self.root = self._find_root(root)
        super().__init__(
            data_dir=str(root),
            cache_dir=None if self._cache_root is None else str(self._cache_root),
            # `datasets` caches by the folder's path alone. The fingerprint keeps a folder that has changed since from
            # being served from the cache as it was.
            hash=_fingerprint(self.root),
            **kwargs,
        )

    # What a subclass provides.

    def _read_records(self) -> list[IQARecord]:
        """Reads the publisher's label files under `self.root`."""
        raise NotImplementedError

    def _download(self) -> Path:
        """Downloads the data set and returns its folder; for sets whose publisher allows it."""
        raise IQADatasetError(
            f"{self.title} cannot be downloaded automatically. Get it from {self.homepage}, unpack it, and pass the "
            "folder as data_dir."
        )

    # What all share.

    @classmethod
    def split_names(cls) -> list[str]:
        """Names of all the splits, the composed `train_full` included."""
        if cls.has_official_split:
            return ["train_full", *PARTS]
        numbered = [f"{part}_{seed}" for seed in range(NUM_RANDOM_SPLITS) for part in ("train_full", *PARTS)]
        return ["train_full", *PARTS, *numbered]

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

    def quality(self, mos: float) -> float:
        """Maps a published score from `mos_range` to [0, 1] with higher better."""
        low, high = self.mos_range
        quality = (mos - low) / (high - low)
        return quality if self.higher_is_better else 1.0 - quality

    def read_records(self) -> list[IQARecord]:
        """All the rated images in the order of the label files, checked.

        Raises:
            IQADatasetError: An image is missing, truncated or no image; a score is not a number in `mos_range`; an
                image is listed twice; or the number of images is not the published one.
        """
        records = self._read_records()
        seen: set[str] = set()
        low, high = self.mos_range
        for record in records:
            if record.image_id in seen:
                raise IQADatasetError(f"{self.title}: {record.image_id!r} is listed twice in the label files.")
            seen.add(record.image_id)
            # Written this way round so that NaN is refused as well.
            if not low <= record.mos <= high:
                raise IQADatasetError(
                    f"{self.title}: the score of {record.image_id!r} is {record.mos}, outside the published range "
                    f"[{low:g}, {high:g}]; the label file is damaged or belongs to another data set."
                )
        if self.num_images is not None and len(records) != self.num_images and not self.config.allow_partial:
            raise IQADatasetError(
                f"{self.title} has {self.num_images} images, but the label files in {self.root} list {len(records)}; "
                "get the missing ones, or pass allow_partial=True to use the files as they are."
            )
        if not records:
            raise IQADatasetError(f"{self.title}: the label files in {self.root} list no images.")
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

    @classmethod
    def split_indices(cls, records: Sequence[IQARecord]) -> dict[str, list[int]]:
        """Positions in `records` that belong to each split (`train_full` not included, as it is a sum).

        Which split an image is in follows from the names of the images alone (see [`hashed_cut`]), so it is the same
        on every machine. Images with a common `reference_id` are never torn apart, unless the publisher does so.
        """
        name = cls.__module__.rsplit(".", 1)[-1]
        groups = [record.reference_id or record.image_id for record in records]
        if cls.has_official_split:
            parts = [record.part for record in records]
            if "validation" not in parts:
                training = [group for group, part in zip(groups, parts, strict=True) if part == "train"]
                held_back = hashed_cut(training, VALIDATION_FRACTION, key=f"{name}/validation/0")
                parts = [
                    "validation" if part == "train" and group in held_back else part
                    for group, part in zip(groups, parts, strict=True)
                ]
            return {part: [i for i, own in enumerate(parts) if own == part] for part in PARTS}
        indices: dict[str, list[int]] = {}
        for seed in range(NUM_RANDOM_SPLITS):
            test = hashed_cut(groups, TEST_FRACTION, key=f"{name}/test/{seed}")
            training = [group for group in groups if group not in test]
            validation = hashed_cut(training, VALIDATION_FRACTION, key=f"{name}/validation/{seed}")
            for part in PARTS:
                indices[f"{part}_{seed}"] = [
                    i
                    for i, group in enumerate(groups)
                    if part == ("test" if group in test else "validation" if group in validation else "train")
                ]
        return indices

    def _find_root(self, data_dir: Path) -> Path:
        """The folder that holds the layout: `data_dir` or, as archives bring a folder of their own, one inside it."""
        if not data_dir.is_dir():
            raise IQADatasetError(f"{self.title}: the folder {data_dir} does not exist.")
        candidates = [data_dir, *sorted(path for path in data_dir.iterdir() if path.is_dir())]
        for candidate in candidates:
            if all((candidate / name).exists() for name in self.layout):
                return candidate
        missing = [name for name in self.layout if not (data_dir / name).exists()]
        raise IQADatasetError(
            f"{self.title}: {', '.join(repr(name) for name in missing)} not found in {data_dir}; data_dir must be the "
            f"unpacked data set from {self.homepage}."
        )


def hashed_cut(names: Iterable[str], fraction: float, *, key: str) -> set[str]:
    """Picks a fixed, random-looking share of names.

    The distinct names are ordered by the SHA-256 of `"{key}\\n{name}"`, and the first ones are taken: as many as
    `fraction` of them, rounded. Neither the order of the names nor the machine, Python or NumPy version matters.

    Args:
        names: Names to pick from; duplicates count once.
        fraction: Share to pick, in [0, 1].
        key: Names the draw; another key gives an independent draw.
    """
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(f"{key}\n{name}".encode()).digest())
    return set(ordered[: round(fraction * len(ordered))])


def check_image(path: Path, *, title: str) -> None:
    """Makes sure that a file is a complete image.

    Fast enough for tens of thousands of files: a JPEG that ends in its end-of-image marker and a PNG that ends in its
    last chunk are taken as complete; only others are decoded.

    Raises:
        IQADatasetError: The file is missing, empty, truncated, or no image.
    """
    try:
        with path.open("rb") as file, PIL.Image.open(file) as image:
            file.seek(-min(12, os.fstat(file.fileno()).st_size), os.SEEK_END)
            tail = file.read()
            complete = {"JPEG": tail.endswith(b"\xff\xd9"), "PNG": tail[-8:-4] == b"IEND"}.get(
                image.format or "", False
            )
            if not complete:
                file.seek(0)
                image.load()
    except FileNotFoundError:
        raise IQADatasetError(f"{title}: the image {path} is listed in the label files but does not exist.") from None
    except UnidentifiedImageError:
        raise IQADatasetError(f"{title}: {path} is not an image file; replace it with the published one.") from None
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise IQADatasetError(f"{title}: the image {path} is damaged ({error}); get it again.") from None


class FileIndex:
    """Finds files of a folder by name, forgiving a difference in case as between a label file and the disk.

    Args:
        folder: Folder whose direct children are looked up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        self._exact = set(names)
        self._folded: dict[str, list[str]] = {}
        for name in names:
            self._folded.setdefault(name.casefold(), []).append(name)

    def __getitem__(self, name: str) -> Path:
        """Path of the file called `name`; a path that does not exist where there is none."""
        if name not in self._exact:
            alike = self._folded.get(name.casefold(), [])
            if len(alike) == 1:
                return self.folder / alike[0]
        return self.folder / name


def parse_score(text: str | None, *, what: str, path: Path, title: str) -> float:
    """Reads a number from a label file.

    Raises:
        IQADatasetError: `text` is no number; the message says whose (`what`) and in which file.
    """
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise IQADatasetError(f"{title}: the score of {what!r} in {path} is {text!r}, not a number.") from None


def _fingerprint(root: Path) -> str:
    """Hash of the names and sizes of all the files under `root`, and of what the small ones that are no images hold."""
    digest = hashlib.sha256()
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            size = path.stat().st_size
            digest.update(f"{path.relative_to(root).as_posix()}\n{size}\n".encode())
            if path.suffix.lower() in {".csv", ".txt", ".mat", ".xlsx"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
