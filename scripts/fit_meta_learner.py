"""Fuse trained base learners into one checkpoint.

The same as `metaqap fit`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.fit import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
