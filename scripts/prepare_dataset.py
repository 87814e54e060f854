"""Bring an image quality data set into the one schema: Parquet files with a dataset card.

The same as `metaqap prepare`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.prepare import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
