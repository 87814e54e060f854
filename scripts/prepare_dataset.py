"""Bring a public image quality data set into the one schema: Parquet files with a dataset card.

    python scripts/prepare_dataset.py koniq10k --data_dir path/to/koniq10k --output_dir data/koniq10k
    python scripts/prepare_dataset.py folder --data_dir my_photos --output_dir data/mine --option mos_range=[1,5]

The output can be used in place of the publisher's files everywhere (`--data_dir`), and `datasets.load_dataset` reads
or streams it. With `--push_to_hub` it is uploaded as well, into a private repository unless `--public` says otherwise:
whether you may pass the images on is for their publisher's licence to say.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
from rich.console import Console

from modeling_metaqap.data.iqa_datasets import IQA_DATASETS
from modeling_metaqap.data.iqa_datasets.prepare import prepare_parquet
from modeling_metaqap.errors import exit_with_sentence

console = Console(width=None if sys.stdout.isatty() else 140)


def builder_option(text: str) -> tuple[str, Any]:
    """`"mos_range=[1,5]"` -> `("mos_range", [1, 5])`; what is not JSON is taken as a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def push_to_hub(folder: Path, repository: str, *, public: bool) -> str:
    api = huggingface_hub.HfApi()
    url = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
    api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    return str(url)


def run(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    counts = prepare_parquet(
        args.name, args.output_dir, data_dir=args.data_dir, cache_dir=args.cache_dir, **dict(args.option)
    )
    seconds = time.perf_counter() - start
    # In KiB, save on macOS, where it is in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    images = ", ".join(f"{count} {split}" for split, count in counts.items())
    console.print(
        f"Wrote {images} images to {args.output_dir} in {seconds:.0f} s, with at most {peak:.2f} GB of memory.",
        highlight=False,
        soft_wrap=True,
    )
    if args.push_to_hub:
        url = push_to_hub(args.output_dir, args.push_to_hub, public=args.public)
        console.print(f"Uploaded to {url}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(IQA_DATASETS), metavar="NAME", help=", ".join(sorted(IQA_DATASETS)))
    parser.add_argument(
        "--data_dir",
        help="what the publisher distributes, unpacked or as archives; downloaded where the publisher allows it if "
        "left out",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="folder to write, which must not exist yet")
    parser.add_argument("--cache_dir", help="where downloads and intermediate files are kept")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=builder_option,
        metavar="NAME=VALUE",
        help="an option of the data set's builder, such as resolution=512x384 or allow_partial=true",
    )
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload to this dataset repository")
    parser.add_argument("--public", action="store_true", help="make the repository public")
    args = parser.parse_args()
    with exit_with_sentence("prepare_dataset"):
        run(args)


if __name__ == "__main__":
    main()
