"""The model card's picture: examples, their maps of local quality, and their scores."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..data.atomic import write_atomically
from ..inference.pictures import explanation_picture
from ..inference.scorer import Scorer
from ..lineage import weights_sha256

#: The picture, and beside it what it shows and by which checkpoint it was drawn.
PICTURE, PICTURE_FILE = "examples.jpg", "examples.json"


def has_picture(checkpoint: str | Path, card_dir: str | Path) -> bool:
    """Whether there is a picture that was drawn by these weights with this configuration."""
    file = Path(card_dir) / PICTURE_FILE
    if not file.exists():
        return False
    drawn = json.loads(file.read_text())
    return all(drawn.get(name) == digest for name, digest in _digests(checkpoint).items())


def _digests(checkpoint: str | Path) -> dict[str, str | None]:
    """Of the weights, and of the configuration, where the interval is that the picture shows."""
    config = Path(checkpoint) / "config.json"
    return {
        "weights_sha256": weights_sha256(checkpoint),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.exists() else None,
    }


def draw_picture(checkpoint: str | Path, card_dir: str | Path, photographs: Mapping[str, Path]) -> None:
    """Score photographs and draw them below each other.

    Args:
        checkpoint: folder.
        card_dir: where the picture goes.
        photographs: by their titles.

    Raises:
        MetaQAPError: for a checkpoint that cannot be used.
    """
    scorer = Scorer(checkpoint, device="cpu")
    records = list(scorer.score(photographs.values(), quality_map=True))
    rows = []
    for path, record in zip(photographs.values(), records, strict=True):
        record.path = path.name
        rows.append(explanation_picture(scorer.read(path).pixels, record, scorer.model.config.distortion_labels or []))
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    write_atomically(Path(card_dir) / PICTURE, buffer.getvalue())
    shown = [
        {"title": title, "quality": f"{record.quality:.2f}"}
        for title, record in zip(photographs, records, strict=True)
    ]
    text = json.dumps(_digests(checkpoint) | {"shown": shown}, indent=2) + "\n"
    write_atomically(Path(card_dir) / PICTURE_FILE, text.encode())


__all__ = ["PICTURE", "PICTURE_FILE", "draw_picture", "has_picture"]
