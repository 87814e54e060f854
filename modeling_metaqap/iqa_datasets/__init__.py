"""Public image quality data sets in one schema.

```python
>>> from modeling_metaqap.iqa_datasets import load_iqa_dataset

>>> dataset = load_iqa_dataset("biq2021", data_dir="path/to/BIQ2021", split="validation")
>>> dataset[0]["quality"]  # in [0, 1], higher is better
```
"""

import re
from pathlib import Path
from typing import Any

import datasets

from .base import FEATURES, IQADatasetBuilder, IQADatasetError
from .biq2021 import BIQ2021

IQA_DATASETS: dict[str, type[IQADatasetBuilder]] = {
    "biq2021": BIQ2021,
}

# One term of a split such as "train[:100]+validation": a name and, possibly, a slice in the notation of `datasets`.
_TERM = re.compile(r"(?P<name>(?P<part>[a-z_]+?)(_(?P<seed>\d+))?)(?P<slice>\[.*\])?")


class TestSplitError(ValueError):
    """Training code asked for images that results are published on."""

    __test__ = False  # Not a test case, though pytest would think so by the name.


def load_iqa_dataset(
    name: str,
    *,
    split: str,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    decode: bool = True,
    **options: Any,
) -> datasets.Dataset:
    """Loads one split of a public image quality data set. Training code uses [`load_training_split`] instead.

    Args:
        name: A key of `IQA_DATASETS`, such as `"biq2021"`.
        split: `"train"`, `"validation"`, `"test"`, `"train_full"` (= train + validation) or `"all"`; for a data set
            without an official split also one of ten numbered ones such as `"test_3"`, where `"test"` means
            `"test_0"`. Slices and sums work as in `datasets`: `"train[:100]"`, `"validation+test"`.
        data_dir: The unpacked data set as its publisher distributes it; `None` downloads it where the publisher
            allows that.
        cache_dir: Where the Arrow files (and downloads) are kept; the cache of `datasets` by default.
        decode: Whether the column `image` gives PIL images; with `False` it gives `{"path": ..., "bytes": ...}`.
        options: The builder's own options, such as `allow_partial=True`.

    Returns:
        A data set with the columns `image` (PIL image, upright), `image_id` (str), `mos` (float, as published),
        `mos_std` (float or None), `quality` (float in [0, 1], higher is better) and `reference_id` (str or None).

    Raises:
        ValueError: There is no data set or split of that name.
        IQADatasetError: Files are missing, damaged or not as published.
    """
    if name not in IQA_DATASETS:
        raise ValueError(f"There is no data set {name!r}; choose from {', '.join(sorted(IQA_DATASETS))}.")
    builder_class = IQA_DATASETS[name]
    spec = _canonical_split(builder_class, split)
    builder = builder_class(data_dir=data_dir, cache_dir=cache_dir, **options)
    builder.download_and_prepare()
    dataset = builder.as_dataset(split=spec)
    return dataset if decode else dataset.cast_column("image", datasets.Image(decode=False))


def load_training_split(name: str, *, split: str, **kwargs: Any) -> datasets.Dataset:
    """Loads a split for training or model selection; like [`load_iqa_dataset`], but the test split is out of reach.

    Raises:
        TestSplitError: `split` holds test images, or mixes numbered splits, of which one's training images are
            another's test images.
    """
    terms = _parse_split(split)
    if any(part in {"test", "all"} for part, _, _ in terms):
        raise TestSplitError(
            f"The split {split!r} of {name} holds test images, which training and model selection must not see; use "
            "'train', 'validation' or 'train_full', and measure with scripts/evaluate.py."
        )
    if len({seed or "0" for _, seed, _ in terms}) > 1:
        raise TestSplitError(
            f"The split {split!r} of {name} mixes differently numbered splits, so it holds test images of each; use "
            "one number throughout."
        )
    return load_iqa_dataset(name, split=split, **kwargs)


def _parse_split(split: str) -> list[tuple[str, str | None, str]]:
    """Part, number and slice of each term of a split: `"train_3[:9]"` gives `[("train", "3", "[:9]")]`."""
    terms = []
    for term in split.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{split!r} is not a split; write for instance 'train', 'train[:100]' or 'train+test'.")
        terms.append((match["part"], match["seed"], match["slice"] or ""))
    return terms


def _canonical_split(builder_class: type[IQADatasetBuilder], split: str) -> str:
    """Writes a split in terms of the splits that the builder generates."""
    names = [*builder_class.split_names(), "all"]
    parts_of = {"train_full": ("train", "validation"), "all": ("train", "validation", "test")}
    terms = []
    for part, seed, slice_ in _parse_split(split):
        if (part if seed is None else f"{part}_{seed}") not in names:
            known = ", ".join(name for name in names if not name[-1].isdigit())
            numbered = "" if builder_class.has_official_split else ", or one of ten numbered ones such as 'train_0'"
            raise ValueError(f"There is no split {split!r} of {builder_class.title}; choose from {known}{numbered}.")
        if slice_ and part in parts_of:
            raise ValueError(f"{part!r} cannot be sliced; slice {' and '.join(parts_of[part])} instead.")
        suffix = "" if builder_class.has_official_split else f"_{seed or 0}"
        terms += [f"{one}{suffix}{slice_}" for one in parts_of.get(part, (part,))]
    return "+".join(terms)


__all__ = [
    "FEATURES",
    "IQA_DATASETS",
    "IQADatasetBuilder",
    "IQADatasetError",
    "TestSplitError",
    "load_iqa_dataset",
    "load_training_split",
]
