"""Write the model card and `.eval_results/*.yaml` of the shipped checkpoint from the measured results.

    python scripts/make_card.py

Reads `results.json`, `published.json`, `cost.json` and `template.md` in hub_card/ and the checkpoint's files; every
number in the card comes from them. `make card` does the same; a test fails while the committed card is another one.
The picture `examples.jpg` is drawn anew if it was drawn by another checkpoint.
"""

import argparse
from pathlib import Path

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.publishing.card_picture import draw_picture, has_picture
from modeling_metaqap.publishing.model_card import card_files, write_card

ROOT = Path(__file__).parents[1]
HUB_CARD = ROOT / "modeling_metaqap" / "publishing" / "hub_card"
EXAMPLES = {
    "A sharp photograph": ROOT / "space" / "examples" / "coffee.jpg",
    "the same, crushed by JPEG": ROOT / "space" / "examples" / "coffee_crushed.jpg",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    parser.add_argument("--card_dir", type=Path, default=HUB_CARD, help="folder of template and results (hub_card/)")
    parser.add_argument("--repo_id", help="Hub id that the card's examples name")
    parser.add_argument("--output_dir", type=Path, help="folder to write (that of template and results)")
    args = parser.parse_args()
    output = args.output_dir or args.card_dir
    with exit_with_sentence("make_card"):
        if not has_picture(args.checkpoint, args.card_dir):
            draw_picture(args.checkpoint, args.card_dir, EXAMPLES)
        files = card_files(args.checkpoint, args.card_dir, repo_id=args.repo_id)
        write_card(files, output)
    for name in files:
        print(output / name)


if __name__ == "__main__":
    main()
