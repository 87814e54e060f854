"""Train one MetaQAP base learner: on synthetic distortions, then on human opinion scores.

The same as `metaqap train`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.train import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
