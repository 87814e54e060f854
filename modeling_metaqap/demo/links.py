"""Where the page leads to: the code, the model card and the paper."""

import os
from pathlib import Path

from .. import DEFAULT_CHECKPOINT
from ..checkpoint_places import checkpoint_folder
from ..errors import MetaQAPError
from ..fusion.adapted_card import PAPER

_HUB = "https://huggingface.co"

# Lies in a Space beside the code, see `make space`.
_SHIPPED_CARD = "modeling_metaqap/publishing/hub_card/README.md"


def page_links(checkpoint: str | Path) -> dict[str, str]:
    """Addresses by their names on the page; those that are not known are left out.

    The variables METAQAP_CODE_URL and METAQAP_CARD_URL say them. Otherwise code and card are those of the Space that
    this runs in, and the card that of the checkpoint, if it is a Hub id.

    Raises:
        MetaQAPError: for a variable that is no web address.
    """
    space = os.environ.get("SPACE_ID")
    code = f"{_HUB}/spaces/{space}/tree/main" if space else None
    card = None
    if checkpoint_folder(checkpoint) is None:
        card = f"{_HUB}/{checkpoint}"
    elif space and Path(checkpoint) == DEFAULT_CHECKPOINT:
        card = f"{_HUB}/spaces/{space}/blob/main/{_SHIPPED_CARD}"
    links = {
        "Code": _address("METAQAP_CODE_URL") or code,
        "Model card": _address("METAQAP_CARD_URL") or card,
        "Paper": PAPER,
    }
    return {name: address for name, address in links.items() if address}


def _address(variable: str) -> str | None:
    address = os.environ.get(variable)
    if address and not address.startswith(("https://", "http://")):
        raise MetaQAPError(f"{variable} must be a web address, not {address!r}.")
    return address


__all__ = ["PAPER", "page_links"]
