"""Make a quality-aware data set: distorted photographs with distortion, level and pseudo opinion score.

The same as `metaqap distort-set`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.distort_set import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
