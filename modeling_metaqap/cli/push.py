"""Put together the folder that goes to the Hub, try it out, and on request upload it as one commit.

    metaqap push you/metaqap-lite
    metaqap push you/metaqap-lite --push

The first lists the files, scores a photograph and uploads nothing; the second then uploads. The trial runs in a fresh
process that can import torch, timm and transformers and nothing else of what is installed, without a network. The card
is written anew for the repository's name, from results of exactly these weights.
"""

import argparse
import tempfile
from pathlib import Path

from .. import DEFAULT_CHECKPOINT
from ..errors import MetaQAPError
from .program import AddOption, Program

_PACKAGE = Path(__file__).parents[1]


def _options(add: AddOption) -> None:
    add("repo_id", help="such as you/metaqap-lite")
    add("--push", action="store_true", help="upload after the trial")
    add("--dry_run", action="store_true", help="upload nothing (the default)")
    add("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    add(
        "--card_dir",
        type=Path,
        default=_PACKAGE / "publishing" / "hub_card",
        help="folder with the results.json of these weights (those of the shipped ones)",
    )
    add("--space", help="Hub id of a Space with the demo, for the card")
    add("--source", help="web address of the source code, for the card")
    add("--onnx", action="store_true", help="include the files of `metaqap export`")
    add("--private", action="store_true", help="make a new repository private")
    add("--message", default="Upload MetaQAP checkpoint", help="of the commit")
    photo = _PACKAGE / "inference" / "photographs" / "coffee.jpg"
    add("--photo", type=Path, default=photo, help="to score (one that ships with the package)")
    add("--output_dir", type=Path, help="new folder in which to keep what is put together")


def _run(args: argparse.Namespace) -> None:
    if args.push and args.dry_run:
        raise MetaQAPError("Choose one of `push` and `dry_run`.")
    with tempfile.TemporaryDirectory() as temporary:
        _assemble_and_try(args, args.output_dir or Path(temporary))


def _assemble_and_try(args: argparse.Namespace, folder: Path) -> None:
    from rich.table import Table

    from ..publishing.hub import assemble, publish, try_out
    from .printing import console, silence_libraries

    silence_libraries()
    links = {"Demo": f"https://huggingface.co/spaces/{args.space}"} if args.space else {}
    if args.source:
        if not args.source.startswith(("https://", "http://")):
            raise MetaQAPError(f"The source must be a web address, not {args.source!r}.")
        links["Source"] = args.source
    files = assemble(
        args.checkpoint, folder, card_dir=args.card_dir, repo_id=args.repo_id, onnx=args.onnx, links=links
    )
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


PROGRAM = Program(command="push", script="push_to_hub", description=__doc__, options=_options, run=_run)
