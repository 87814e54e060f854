"""Copy the best-rated photographs of a data set's training images into a folder, as sources of distorted images.

    python scripts/select_pristine.py --dataset biq2021 --split train --data_dir path/to/BIQ2021 --count 700 \
        --output_dir data/pristine/train
    python scripts/distort.py --pristine_dir data/pristine/train --output_dir data/distorted/train --per_image 25

The rule: the `count` images of highest opinion score; of equal ones those whose image id comes first. The files are
copied as they are, under their image ids. The test split is refused.
"""

import argparse
from pathlib import Path

import datasets
from rich.console import Console

from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence

console = Console(stderr=True)


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
    if args.output_dir.is_dir() and any(args.output_dir.iterdir()):
        raise MetaQAPError(f"{args.output_dir} is not empty; choose another --output_dir.")
    raw = dataset.cast_column("image", datasets.Image(decode=False))
    for index in chosen:
        row = raw[index]
        stored = row["image"]
        target = args.output_dir / row["image_id"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes())
    lowest = dataset[chosen[-1]]["quality"]
    console.print(f"Copied the {args.count} best-rated of {len(dataset)} images, quality {lowest:.3f} and above.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--count", type=int, required=True, help="how many photographs")
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for them")
    args = parser.parse_args(arguments)
    with exit_with_sentence("select_pristine"):
        copy_best(args)


if __name__ == "__main__":
    main()
