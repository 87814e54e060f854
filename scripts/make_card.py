"""Write the model card and `.eval_results/*.yaml` of the shipped checkpoint from the measured results.

    python scripts/make_card.py

Reads `results.json`, `published.json`, `cost.json` and `template.md` in hub_card/ and the checkpoint's files; every
number in the card comes from them. `make card` does the same; a test fails while the committed card is another one.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.publishing.model_card import card_files, write_card

HUB_CARD = Path(__file__).parents[1] / "hub_card"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    parser.add_argument("--sources", type=Path, default=HUB_CARD, help="folder of template and results (hub_card/)")
    parser.add_argument("--repo_id", help="Hub id that the card's examples name")
    parser.add_argument("--output", type=Path, help="folder to write (that of the sources)")
    args = parser.parse_args()
    output = args.output or args.sources
    try:
        files = card_files(args.checkpoint, args.sources, repo_id=args.repo_id)
        write_card(files, output)
    except (MetaQAPError, OSError) as error:
        Console(stderr=True).print(f"make_card: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    for name in files:
        print(output / name)


if __name__ == "__main__":
    main()
