"""Measure checkpoints and baselines on data sets: PLCC, SROCC, KROCC and RMSE with 95 % bootstrap intervals.

The same as `metaqap evaluate-set`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.evaluate_set import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
