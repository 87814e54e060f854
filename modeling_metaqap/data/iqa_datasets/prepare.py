"""Writing a data set as Parquet with a dataset card: the form that travels to the Hub and can be streamed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils import tqdm
from huggingface_hub import DatasetCardData

from ...errors import DataError
from .base import FEATURES, NUM_RANDOM_SPLITS, SPLITS, TEST_FRACTION, VALIDATION_FRACTION, IQADatasetBuilder
from .files import new_folder
from .loading import IQA_DATASETS, SPLITS_FILE

# A reader of one row loads one row group, a streaming reader holds a few of them, and the writer one.
_ROW_GROUP_BYTES = 4 << 20
_SHARD_BYTES = 400 << 20

_CARD = """---
{front_matter}
---

# {title} in the MetaQAP schema

{description}

- Publisher: {homepage}
- Licence: {license}
- {counts}

## Columns

| column | type | meaning |
|---|---|---|
| `image` | image | the publisher's file, byte for byte |
| `image_id` | string | its name in the publisher's label file |
| `mos` | float | opinion score as published, in [{low:g}, {high:g}], {direction} |
| `mos_std` | float or null | standard deviation of the opinions, on the same scale |
| `quality` | float | `mos` brought to [0, 1], higher is better |
| `reference_id` | string or null | pristine image or scene; images that share it share their content |

## Splits

{splits}

## Loading

```python
from datasets import load_dataset

dataset = load_dataset("parquet", data_dir="path/to/this/folder/data", split="test")

# The same, with the composed and numbered splits as well:
from modeling_metaqap import load_iqa_dataset

dataset = load_iqa_dataset("{name}", data_dir="path/to/this/folder", split="train_full")
```

## Citation

```bibtex
{citation}
```
"""

_OFFICIAL = "`train`, `validation` and `test` are the publisher's."
_OFFICIAL_WITHOUT_VALIDATION = """`test` is the publisher's. `validation` is {validation:.0%} of the publisher's
training images, picked by the SHA-256 of `{name}/validation/0`, a line feed and the id, and `train` is the rest."""
_SEEDED = """The publisher gives no split. {count} are cut by a rule on the ids, the same on every machine. Contents
(ids, where there are none) are ordered by the SHA-256 of `{name}/test/NUMBER`, a line feed and the content, and the
first {test:.0%} are `test`. Of the others, {validation:.0%} are `validation`, by `{name}/validation/NUMBER`. No
content crosses a split.

The Parquet files hold split number 0; `splits.json` lists the ids of all {count}."""


def prepare_parquet(
    name: str,
    output: str | Path,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> dict[str, int]:
    """Writes a data set into a new folder: `data/*.parquet`, `splits.json` and the dataset card `README.md`.

    The images are copied byte for byte. [`load_iqa_dataset`] reads the folder as it reads the publisher's files, and
    so does `datasets.load_dataset`, which can also stream it.

    Args:
        name: A key of `IQA_DATASETS`.
        output: Folder to write, which must not exist yet or be empty; it appears only when it is complete.
        data_dir, cache_dir, options: As for [`load_iqa_dataset`].

    Returns:
        Number of images in `train`, `validation` and `test`.

    Raises:
        DataError: There is no data set of that name, files are missing, damaged or not as published, or `output` is
            not empty.
    """
    if name not in IQA_DATASETS:
        raise DataError(f"There is no data set {name!r}; choose from {', '.join(sorted(IQA_DATASETS))}.")
    output = Path(output).expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is not empty; choose another folder, or delete it first.")
    builder = IQA_DATASETS[name](data_dir=data_dir, cache_dir=cache_dir, **options)
    builder.download_and_prepare()
    splits = {split: builder.as_dataset(split=split) for split, size in _sizes(builder).items() if size}
    counts = {}
    with new_folder(output) as folder:
        (folder / "data").mkdir()
        for split_name in SPLITS:
            split = splits.get(split_name if builder.has_official_split else f"{split_name}_0")
            counts[split_name] = 0 if split is None else len(split)
            if split is not None:
                _write_shards(split, folder / "data", split_name)
        ids = {split: splits[split]["image_id"][:] if split in splits else [] for split in builder.split_names}
        scale = builder.mos_range if builder.higher_is_better else None
        (folder / SPLITS_FILE).write_text(json.dumps({"name": name, "splits": ids, "raters_scale": scale}))
        (folder / "README.md").write_text(dataset_card(builder, counts))
    return counts


def dataset_card(builder: IQADatasetBuilder, counts: dict[str, int]) -> str:
    """Dataset card with front matter, given the number of images in each split."""
    total = sum(counts.values())
    front_matter = DatasetCardData(
        pretty_name=builder.title,
        license="other",
        tags=["image-quality-assessment", "no-reference-iqa", "metaqap"],
        size_categories=next(label for limit, label in _SIZES if total < limit),
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": split_name, "path": f"data/{split_name}-*.parquet"}
                    for split_name in SPLITS
                    if counts[split_name]
                ],
            }
        ],
    )
    template = _SEEDED
    if builder.has_official_split:
        template = _OFFICIAL_WITHOUT_VALIDATION if builder.cuts_validation else _OFFICIAL
    low, high = builder.mos_range
    return _CARD.format(
        front_matter=front_matter.to_yaml(),
        title=builder.title,
        name=builder.name,
        description=builder.info.description,
        homepage=builder.homepage or "none",
        license=builder.license,
        counts=", ".join(f"{count:,} {split_name}" for split_name, count in counts.items()) + " images",
        low=low,
        high=high,
        direction="higher is better" if builder.higher_is_better else "lower is better",
        splits=template.format(
            name=builder.name, count=NUM_RANDOM_SPLITS, test=TEST_FRACTION, validation=VALIDATION_FRACTION
        ),
        citation=builder.citation,
    )


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _sizes(builder: IQADatasetBuilder) -> dict[str, int]:
    return {split: info.num_examples or 0 for split, info in builder.info.splits.items()}


def _write_shards(dataset: datasets.Dataset, folder: Path, split_name: str) -> None:
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    paths = [Path(image["path"]) for image in dataset["image"]]
    sizes = [path.stat().st_size for path in paths]
    shards = list(_consecutive(sizes, _SHARD_BYTES))
    with tqdm(total=len(paths), unit=" images", desc=f"Writing {split_name}") as progress:
        for number, shard in enumerate(shards):
            file = folder / f"{split_name}-{number:05d}-of-{len(shards):05d}.parquet"
            # The schema's metadata tell `datasets` that the column holds images.
            with pq.ParquetWriter(file, FEATURES.arrow_schema) as writer:
                for group in _consecutive(sizes[shard.start : shard.stop], _ROW_GROUP_BYTES):
                    rows = range(shard.start + group.start, shard.start + group.stop)
                    columns = dataset[rows.start : rows.stop]
                    columns["image"] = [{"bytes": paths[row].read_bytes(), "path": paths[row].name} for row in rows]
                    writer.write_table(pa.table(columns, schema=FEATURES.arrow_schema))
                    progress.update(len(rows))


def _consecutive(sizes: Sequence[int], limit: int) -> Iterator[range]:
    """Cuts a sequence into runs whose sizes add up to at most `limit`, or that have one member."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield range(start, index)
            start, total = index, 0
        total += size
    yield range(start, len(sizes))
