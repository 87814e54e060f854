"""What the commands that score photographs have in common: which ones, how many, and how far it is."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..data.image_files import read_list
from ..data.image_places import FoundPlaces, kind_of, search_places
from ..errors import MetaQAPError

if TYPE_CHECKING:
    from ..inference.records import ScoreRecord
    from ..inference.scorer import Scorer


def places_to_score(paths: Sequence[str], *, recursive: bool, null: bool) -> FoundPlaces:
    """What a user typed as places, with the list on standard input for `-`.

    Args:
        paths: see `search_places`.
        recursive: also search sub-folders.
        null: the list is separated by NUL bytes.

    Raises:
        MetaQAPError: for what does not exist or holds no images.
    """
    places, unread = search_places([path for path in paths if path != "-"], recursive=recursive)
    if "-" in paths:
        listed = read_list(sys.stdin.buffer, separator=b"\0" if null else b"\n")
        places = list(dict.fromkeys(places + listed))
    if not places:
        raise MetaQAPError("There are no images to score: standard input is empty.")
    return FoundPlaces(places, unread)


def number_of_images(places: Iterable[str]) -> int | None:
    """How many images these places hold; None with archives and tables, which nobody has counted."""
    kinds = list(map(kind_of, places))
    return None if any(kind.holds_many for kind in kinds) else len(kinds)


def run_of(scorer: "Scorer", checkpoint: str, *, learners: int | None) -> dict[str, str]:
    """What scores are made with, by name."""
    from ..inference.sharing import describe_run
    from ..lineage import weights_sha256

    weights = weights_sha256(checkpoint) or checkpoint
    engine = scorer.engine
    return describe_run(weights, engine=engine.name, dtype=engine.dtype, learners=learners, scale=scorer.scale)


def with_progress(
    records: "Iterable[ScoreRecord]", *, done: int = 0, total: int | None, doing: str = "scoring"
) -> "Iterator[ScoreRecord]":
    """The records as they come, with a bar in a terminal.

    Args:
        records: of the images that are left to do.
        done: how many images are done already.
        total: how many there are with these; None if that is not known.
        doing: what is done to them.
    """
    from .printing import scoring_progress

    with scoring_progress(done=done, total=total, doing=doing) as advance:
        for record in records:
            yield record
            advance(1)


__all__ = ["number_of_images", "places_to_score", "run_of", "with_progress"]
