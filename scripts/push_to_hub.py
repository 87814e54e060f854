"""Put together the folder that goes to the Hub, try it out, and on request upload it as one commit.

    python scripts/push_to_hub.py you/metaqap-lite            # list the files, score a photograph, upload nothing
    python scripts/push_to_hub.py you/metaqap-lite --push     # the same, then upload

The trial runs in a fresh process that can import torch, timm and transformers and nothing else of what is installed,
without a network. The card is written anew for the repository's name, from results of exactly these weights.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.publishing.hub import assemble, publish, try_out

ROOT = Path(__file__).parents[1]

console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def run(args: argparse.Namespace, folder: Path) -> None:
    files = assemble(args.checkpoint, folder, card_dir=args.card_dir, repo_id=args.repo_id, onnx=args.onnx)
    table = Table(title=f"Files for {args.repo_id}", title_justify="left")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for file in files:
        table.add_row(str(file), f"{(folder / file).stat().st_size:,}")
    table.add_section()
    table.add_row(f"{len(files)} files", f"{sum((folder / file).stat().st_size for file in files):,}")
    console.print(table)
    trial = try_out(folder, args.photo)
    console.print(
        f"In a fresh process with torch, timm and transformers alone, {args.photo.name}: {trial.quality:.4f}"
    )
    if not args.push:
        console.print("Nothing was uploaded; add --push to do so.")
        return
    commit = publish(folder, args.repo_id, private=args.private, message=args.message)
    console.print(f"Uploaded as one commit: {commit.commit_url}", soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", help="such as you/metaqap-lite")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--push", action="store_true", help="upload after the trial")
    what.add_argument("--dry_run", action="store_true", help="upload nothing (the default)")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    parser.add_argument("--card_dir", type=Path, default=ROOT / "hub_card", help="template and results (hub_card/)")
    parser.add_argument("--onnx", action="store_true", help="include the files of `metaqap export`")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--message", default="Upload MetaQAP checkpoint", help="of the commit")
    parser.add_argument("--photo", type=Path, default=ROOT / "space" / "examples" / "coffee.jpg", help="to score")
    parser.add_argument("--output_dir", type=Path, help="new folder in which to keep what is put together")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    with exit_with_sentence("push_to_hub"), tempfile.TemporaryDirectory() as temporary:
        run(args, args.output_dir or Path(temporary))


if __name__ == "__main__":
    main()
