"""Loading any data set by name, from the publisher's files or from prepared Parquet."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import datasets

from ...errors import DataError, TestSplitError
from ..rating_options import FOLDER, OPTION_NAMES, RatingOptions
from .base import COMPOSED_SPLITS, FEATURES, NUM_RANDOM_SPLITS, SPLITS, IQADatasetBuilder
from .biq2021 import BIQ2021
from .cid2013 import CID2013
from .csiq import CSIQ
from .flive import FLIVE
from .folder import Folder
from .kadid10k import KADID10k
from .koniq10k import KonIQ10k
from .live import LIVE
from .livec import LIVEC
from .rating_tables import find_csv, read_table
from .spaq import SPAQ
from .tid2013 import TID2013

IQA_DATASETS: dict[str, type[IQADatasetBuilder]] = {
    "biq2021": BIQ2021,
    "cid2013": CID2013,
    "csiq": CSIQ,
    "flive": FLIVE,
    "folder": Folder,
    "kadid10k": KADID10k,
    "koniq10k": KonIQ10k,
    "live": LIVE,
    "livec": LIVEC,
    "spaq": SPAQ,
    "tid2013": TID2013,
}

# In a prepared folder, beside `data/*.parquet`: the data set's name and, by split, the ids of its images.
SPLITS_FILE = "splits.json"

# Everything but what training may see; a composed split that is added one day is held out until it is named here.
HELD_OUT_SPLITS = {*SPLITS, *COMPOSED_SPLITS} - {"train", "validation", "train_full"}

# One term of a split such as "train[:100]+validation": a name and, possibly, a slice in the notation of `datasets`.
_TERM = re.compile(r"(?P<kind>[a-z_]+?)(_(?P<number>\d+))?(?P<slice>\[(-?\d+%?)?:(-?\d+%?)?\])?")


def load_iqa_dataset(
    name: str,
    *,
    split: str,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    decode: bool = True,
    **options: Any,
) -> datasets.Dataset:
    """Loads one split of an image quality data set. Training code uses [`load_training_split`] instead.

    Args:
        name: A key of `IQA_DATASETS`, such as `"biq2021"`.
        split: `"train"`, `"validation"`, `"test"`, `"train_full"` (= train + validation) or `"all"`; for a data set
            without an official split also one of ten numbered ones such as `"test_3"`, where `"test"` means
            `"test_0"`. Slices and sums work as in `datasets`: `"train[:100]"`, `"validation+test"`.
        data_dir: What the publisher distributes, unpacked or as archives, or the Parquet folder that
            `metaqap prepare` made of it; `None` downloads the data set where the publisher allows that.
        cache_dir: Where the Arrow files (and downloads) are kept; the cache of `datasets` by default.
        decode: Whether the column `image` gives PIL images; with `False` it gives `{"path": ..., "bytes": ...}`, one
            of which is the undecoded image.
        options: The builder's own options, such as `allow_partial=True`, or for a folder of your own those of
            [`RatingOptions`]; a Parquet folder was made with its own.

    Returns:
        A data set with the columns `image` (PIL image, upright), `image_id` (str), `mos` (float, as published),
        `mos_std` (float or None), `quality` (float in [0, 1], higher is better) and `reference_id` (str or None).

    Raises:
        DataError: There is no data set or split of that name, files are missing, damaged or not as published, or a
            Parquet folder is to be read with other ratings than those it was made with.
    """
    if name not in IQA_DATASETS:
        raise DataError(f"There is no data set {name!r}; choose from {', '.join(sorted(IQA_DATASETS))}.")
    _parse_split(split)
    prepared = _prepared_folder(data_dir, options)
    if prepared is not None:
        dataset = _load_prepared(name, split, prepared, cache_dir)
    else:
        builder = IQA_DATASETS[name](data_dir=data_dir, cache_dir=cache_dir, **options)
        spec = _builder_split(split, builder.split_names, title=builder.title)
        with nullcontext() if data_dir is None else _without_bars():
            builder.download_and_prepare()
        # What the Arrow files point to can be gone although they are still cached; this brings it back.
        _ = builder.root
        lengths = {kind: info.num_examples or 0 for kind, info in builder.info.splits.items()}
        if not sum(stop - start for _, start, stop in _ranges(spec, lengths)):
            raise DataError(f"{builder.title} has no images in the split {split!r}.")
        dataset = builder.as_dataset(split=spec)
    return dataset if decode else dataset.cast_column("image", datasets.Image(decode=False))


@contextmanager
def _without_bars() -> Iterator[None]:
    """`datasets` shows a bar for each split, up to thirty of them, for what takes seconds."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def split_names(
    name: str, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None, **options: Any
) -> list[str]:
    """Names of the disjoint splits of a data set: three official ones, or ten numbered ones of each kind.

    Args and errors are those of [`load_iqa_dataset`].
    """
    if name not in IQA_DATASETS:
        raise DataError(f"There is no data set {name!r}; choose from {', '.join(sorted(IQA_DATASETS))}.")
    prepared = _prepared_folder(data_dir, options)
    if prepared is not None:
        return list(_prepared_splits(name, prepared))
    return IQA_DATASETS[name](data_dir=data_dir, cache_dir=cache_dir, **options).split_names


def raters_scale(
    name: str, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None, **options: Any
) -> tuple[float, float] | None:
    """Lowest and highest score that the raters of a data set could give, which quality 0 and 1 stand for.

    Args and errors are those of [`load_iqa_dataset`].

    Returns:
        None for scores of which lower ones are better, and for a folder that was prepared before this was noted.
    """
    if name not in IQA_DATASETS:
        raise DataError(f"There is no data set {name!r}; choose from {', '.join(sorted(IQA_DATASETS))}.")
    prepared = _prepared_folder(data_dir, options)
    if prepared is not None:
        scale = json.loads((prepared / SPLITS_FILE).read_text()).get("raters_scale")
        return None if scale is None else (float(scale[0]), float(scale[1]))
    if name == FOLDER and data_dir is not None:
        ratings = RatingOptions.of(options)
        table = read_table(find_csv(Path(data_dir).expanduser().absolute(), ratings.csv), ratings)
        return None if ratings.lower_is_better else table.mos_range
    return IQA_DATASETS[name].mos_range if IQA_DATASETS[name].higher_is_better else None


def load_training_split(name: str, *, split: str, **kwargs: Any) -> datasets.Dataset:
    """Loads a split for training or model selection; like [`load_iqa_dataset`], but the test split is out of reach.

    Raises:
        TestSplitError: `split` holds test images, or mixes numbered splits, of which one's training images are
            another's test images.
    """
    terms = _parse_split(split)
    if any(kind in HELD_OUT_SPLITS for kind, _, _ in terms):
        raise TestSplitError(
            f"The split {split!r} of {name} holds test images, which training and model selection must not see; use "
            "'train', 'validation' or 'train_full', and measure with `metaqap evaluate-set`."
        )
    if len({number or "0" for _, number, _ in terms}) > 1:
        raise TestSplitError(
            f"The split {split!r} of {name} mixes differently numbered splits, so it holds test images of each; use "
            "one number throughout."
        )
    return load_iqa_dataset(name, split=split, **kwargs)


def _prepared_folder(data_dir: str | Path | None, options: Mapping[str, Any]) -> Path | None:
    """The folder, if it is one that `metaqap prepare` wrote; None for what a publisher distributes."""
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if folder is None or not (folder / SPLITS_FILE).is_file():
        return None
    if given := [name for name in OPTION_NAMES if name in options]:
        raise DataError(f"{folder} was prepared with its own ratings and their scale; leave out `{given[0]}`.")
    return folder


def _load_prepared(name: str, split: str, folder: Path, cache_dir: str | Path | None) -> datasets.Dataset:
    """Loads a split from a folder that `metaqap prepare` wrote."""
    ids_of = _prepared_splits(name, folder)
    spec = _builder_split(split, list(ids_of), title=IQA_DATASETS[name].title)
    files = {kind: sorted(str(path) for path in (folder / "data").glob(f"{kind}-*.parquet")) for kind in SPLITS}
    tables = datasets.load_dataset(
        "parquet",
        data_files={kind: paths for kind, paths in files.items() if paths},
        features=FEATURES,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
    everything = datasets.concatenate_datasets(list(tables.values()))
    row_of = {image_id: row for row, image_id in enumerate(everything["image_id"])}
    rows: list[int] = []
    for kind, start, stop in _ranges(spec, {kind: len(ids) for kind, ids in ids_of.items()}):
        ids = ids_of[kind][start:stop]
        missing = [image_id for image_id in ids if image_id not in row_of]
        if missing:
            raise DataError(f"{folder} lacks {len(missing)} images of {split!r}, such as {missing[0]!r}.")
        rows += [row_of[image_id] for image_id in ids]
    if not rows:
        raise DataError(f"{folder} has no images in the split {split!r}.")
    return everything.select(rows)


def _prepared_splits(name: str, folder: Path) -> dict[str, list[str]]:
    """The ids of each split's images in a prepared folder."""
    try:
        contents = json.loads((folder / SPLITS_FILE).read_text())
        ids_of: dict[str, list[str]] = contents["splits"]
        found = contents["name"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise DataError(f"{folder / SPLITS_FILE} is damaged; run `metaqap prepare` again.") from None
    if found != name:
        raise DataError(f"{folder} holds the data set {found!r}, not {name!r}.")
    return ids_of


def _parse_split(split: str) -> list[tuple[str, str | None, str]]:
    """Kind, number and slice of each term of a split: `"train_3[:9]"` gives `[("train", "3", "[:9]")]`."""
    terms = []
    for term in split.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise DataError(f"{split!r} is not a split; write for instance 'train', 'train[:100]' or 'train+test'.")
        terms.append((match["kind"], match["number"], match["slice"] or ""))
    return terms


def _ranges(split: str, lengths: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Name, first and end row of each term of a split, given the splits' lengths."""
    terms = datasets.ReadInstruction.from_spec(split).to_absolute(dict(lengths))
    return [
        (term.splitname, term.from_ or 0, lengths[term.splitname] if term.to is None else term.to) for term in terms
    ]


def _builder_split(split: str, split_names: Sequence[str], *, title: str) -> str:
    """Writes a split in terms of a builder's: without composed ones, and with numbers if the builder has them."""
    numbered = "train_0" in split_names
    terms = []
    for kind, number, slice_ in _parse_split(split):
        suffix = f"_{number or 0}" if numbered else "" if number is None else f"_{number}"
        names = [f"{one}{suffix}" for one in COMPOSED_SPLITS.get(kind, (kind,))]
        if not set(names) <= set(split_names):
            hint = f"; add a number up to _{NUM_RANDOM_SPLITS - 1} for another than the first" if numbered else ""
            raise DataError(
                f"There is no split {split!r} of {title}; choose from {', '.join([*SPLITS, *COMPOSED_SPLITS])}{hint}."
            )
        if slice_ and len(names) > 1:
            raise DataError(f"{kind!r} cannot be sliced; slice {' and '.join(COMPOSED_SPLITS[kind])} instead.")
        terms += [f"{name}{slice_}" for name in names]
    return "+".join(terms)
