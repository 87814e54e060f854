r"""Copy the best-rated photographs of a data set's training images into a folder, as sources of distorted images.

    metaqap select-pristine --dataset biq2021 --split train --data-dir path/to/BIQ2021 --count 700 \
        --output-dir data/pristine/train
    metaqap distort-set --pristine-dir data/pristine/train --output-dir data/distorted/train --per-image 25

The rule: the `count` images of highest opinion score; of equal ones those whose image id comes first. The files are
copied as they are, under their image ids. The test split is refused.
"""

import argparse
from pathlib import Path
from typing import Any

from ..errors import MetaQAPError
from .program import AddOption, Program


def best_rated(dataset: Any, count: int) -> list[int]:
    """Positions of the `count` best-rated images, best first.

    Raises:
        MetaQAPError: if there are not as many.
    """
    if not 1 <= count <= len(dataset):
        raise MetaQAPError(f"The split has {len(dataset)} images; {count} of them cannot be chosen.")
    quality, ids = dataset["quality"], dataset["image_id"]
    return sorted(range(len(dataset)), key=lambda index: (-quality[index], ids[index]))[:count]


def _options(add: AddOption) -> None:
    add("--dataset", required=True, metavar="NAME", help="with the opinion scores")
    add("--split", default="train", help="images to choose from: train (default) or validation")
    add(
        "--data_dir",
        help="what the publisher distributes or what `metaqap prepare` made of it; downloaded where the publisher "
        "allows it if left out",
    )
    add("--cache_dir", help="where the prepared data set is kept")
    add("--count", type=int, required=True, help="how many photographs")
    add("--output_dir", type=Path, required=True, help="new folder for them")


def _run(args: argparse.Namespace) -> None:
    import datasets
    from rich.console import Console

    from ..data.iqa_datasets import load_training_split

    dataset = load_training_split(args.dataset, split=args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    chosen = best_rated(dataset.remove_columns("image"), args.count)
    if args.output_dir.is_dir() and any(args.output_dir.iterdir()):
        raise MetaQAPError(f"{args.output_dir} is not empty; choose another `output_dir`.")
    raw = dataset.cast_column("image", datasets.Image(decode=False))
    for index in chosen:
        row = raw[index]
        stored = row["image"]
        target = args.output_dir / row["image_id"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes())
    lowest = dataset[chosen[-1]]["quality"]
    Console(stderr=True).print(
        f"Copied the {args.count} best-rated of {len(dataset)} images, quality {lowest:.3f} and above."
    )


PROGRAM = Program(command="select-pristine", script="select_pristine", description=__doc__, options=_options, run=_run)
