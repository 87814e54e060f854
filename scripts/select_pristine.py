"""Copy the best-rated photographs of a data set's training images into a folder, as sources of distorted images.

    python scripts/select_pristine.py --dataset biq2021 --split train --data_dir path/to/BIQ2021 --count 700 \
        --output data/pristine/train
    python scripts/distort.py --pristine data/pristine/train --output data/distorted/train --per-image 25

The rule: the `count` images of highest opinion score; of equal ones those whose image id comes first. The files are
copied as they are, under their image ids. The test split is refused.
"""

import argparse
import sys
from pathlib import Path

import datasets
from rich.console import Console

from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.errors import DataError, TestSplitError

console = Console(stderr=True)


class MetaQAPError(ValueError):
    """A choice that cannot be made; the message says why."""


def best_rated(dataset: datasets.Dataset, count: int) -> list[int]:
    """Positions of the `count` best-rated images, best first.

    Raises:
        MetaQAPError: if there are not as many.
    """
    if not 1 <= count <= len(dataset):
        raise MetaQAPError(f"The split has {len(dataset)} images; {count} of them cannot be chosen.")
    quality, ids = dataset["quality"], dataset["image_id"]
    return sorted(range(len(dataset)), key=lambda index: (-quality[index], ids[index]))[:count]


def copy_best(args: argparse.Namespace) -> None:
    dataset = load_training_split(args.dataset, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    chosen = best_rated(dataset.remove_columns("image"), args.count)
    if args.output.is_dir() and any(args.output.iterdir()):
        raise MetaQAPError(f"{args.output} is not empty; choose another --output.")
    raw = dataset.cast_column("image", datasets.Image(decode=False))
    for index in chosen:
        row = raw[index]
        stored = row["image"]
        target = args.output / row["image_id"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes())
    lowest = dataset[chosen[-1]]["quality"]
    console.print(f"Copied the {args.count} best-rated of {len(dataset)} images, quality {lowest:.3f} and above.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--count", type=int, required=True, help="how many photographs")
    parser.add_argument("--output", type=Path, required=True, help="new folder for them")
    try:
        copy_best(parser.parse_args(arguments))
    except (MetaQAPError, DataError, TestSplitError, OSError) as error:
        console.print(f"select_pristine: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
