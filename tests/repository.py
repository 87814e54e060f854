"""Where the repository that is tested lies."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
EXAMPLES = ROOT / "space" / "examples"
