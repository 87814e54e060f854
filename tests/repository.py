"""Where the repository that is tested lies, and the files that travel to the Hub."""

from pathlib import Path

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
