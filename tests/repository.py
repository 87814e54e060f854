"""Where the repository that is tested lies, the files that travel to the Hub, and the committed results."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
EXAMPLES = ROOT / "space" / "examples"

#: The code of the model, in alphabetical order.
MODEL_FILES = [
    "assessment_metaqap.py",
    "configuration_metaqap.py",
    "crops_metaqap.py",
    "decoding_metaqap.py",
    "fetching_metaqap.py",
    "image_processing_metaqap.py",
    "interval_metaqap.py",
    "losses_metaqap.py",
    "modeling_metaqap.py",
    "pipeline_metaqap.py",
]


def measured_on(dataset: str) -> dict[str, dict[str, Any]]:
    """The committed results on a data set, by the name of what was measured."""
    rows = json.loads((ROOT / "hub_card" / "results.json").read_text())["results"]
    return {row["checkpoint"]: row for row in rows if row["dataset"] == dataset}
