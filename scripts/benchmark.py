"""Measure speed and write it to one JSON, section by section.

The same as `metaqap benchmark`, with underscores in the names of options; `--help` says the rest.
"""

from functools import partial
from pathlib import Path

from modeling_metaqap.cli.benchmark import PROGRAM

OUTPUT = Path(__file__).parents[1] / "studies" / "results" / "benchmark.json"

main = partial(PROGRAM.main, defaults={"output": OUTPUT})

if __name__ == "__main__":
    main()
