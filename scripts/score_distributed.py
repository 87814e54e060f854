"""Score photographs on many cores, GPUs or machines, into a folder of Parquet files.

The same as `metaqap score --engine ray`, with underscores in the names of options; `--help` says the rest. Started by
`accelerate launch`, each of its processes scores its share, and Ray is not needed.
"""

from collections.abc import Sequence

from modeling_metaqap.cli.program import run_as_script
from modeling_metaqap.cli.score import Runner, score, started_by_launcher


def main(arguments: Sequence[str] | None = None) -> None:
    """Score as the command line says."""
    engine = Runner.auto if started_by_launcher() else Runner.ray
    run_as_script(score, script="score_distributed", arguments=arguments, defaults={"engine": engine})


if __name__ == "__main__":
    main()
