"""Bring an image quality data set into the one schema: Parquet files with a dataset card.

    metaqap prepare koniq10k --data-dir path/to/koniq10k --output-dir data/koniq10k
    metaqap prepare folder --data-dir path/to/photographs --csv ratings.csv --mos-range 1 5 --output-dir data/mine

The output can be used in place of the publisher's files everywhere (`--data-dir`), and `datasets.load_dataset` reads
or streams it. With `--push-to-hub` it is uploaded as well, into a private repository unless `--public` says otherwise:
whether you may pass the images on is for their publisher's licence to say.
"""

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.dataset_names import DATASET_NAMES
from ..data.rating_options import RatingOptions, add_rating_options
from ..errors import MetaQAPError
from .program import AddOption, Program


def builder_option(text: str) -> tuple[str, Any]:
    """`"resolution=512x384"` -> `("resolution", "512x384")`; a value that is JSON is read as such."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _options(add: AddOption) -> None:
    add("name", choices=DATASET_NAMES, metavar="NAME", help=", ".join(DATASET_NAMES))
    add(
        "--data_dir",
        help="what the publisher distributes, unpacked or as archives; downloaded where the publisher allows it if "
        "left out",
    )
    add_rating_options(add)
    add("--output_dir", required=True, type=Path, help="folder to write, which must not exist yet")
    add("--cache_dir", help="where downloads and intermediate files are kept")
    add(
        "--option",
        action="append",
        default=[],
        type=builder_option,
        metavar="NAME=VALUE",
        help="an option of the data set's builder, such as resolution=512x384 or allow_partial=true",
    )
    add("--push_to_hub", metavar="REPO", help="upload to this dataset repository")
    add("--public", action="store_true", help="make the repository public")


def _builder_options(args: argparse.Namespace) -> dict[str, Any]:
    ratings, others = RatingOptions.of(vars(args)).of_dataset(args.name), dict(args.option)
    if twice := [name for name in ratings if name in others]:
        raise MetaQAPError(f"`{twice[0]}` is given twice; leave it out of `option`.")
    return ratings | others


def push_to_hub(folder: Path, repository: str, *, public: bool) -> str:
    """Upload a prepared data set; the address of its repository."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    url = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
    api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    return str(url)


def _peak_memory() -> int:
    """Bytes of memory that this process has used at most; an `ImportError` on Windows, which does not say."""
    import resource

    # In KiB, save on macOS, where it is in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..data.iqa_datasets.prepare import prepare_parquet

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    start = time.perf_counter()
    counts = prepare_parquet(
        args.name, args.output_dir, data_dir=args.data_dir, cache_dir=args.cache_dir, **_builder_options(args)
    )
    seconds = time.perf_counter() - start
    images = ", ".join(f"{count} {split}" for split, count in counts.items())
    wrote = f"Wrote {images} images to {args.output_dir} in {seconds:.0f} s"
    with suppress(ImportError):
        wrote += f", with at most {_peak_memory() / 1e9:.2f} GB of memory"
    console.print(f"{wrote}.", markup=False, soft_wrap=True)
    if args.push_to_hub:
        url = push_to_hub(args.output_dir, args.push_to_hub, public=args.public)
        console.print(f"Uploaded to {url}", markup=False, soft_wrap=True)


PROGRAM = Program(command="prepare", script="prepare_dataset", description=__doc__, options=_options, run=_run)
