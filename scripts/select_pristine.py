"""Copy the best-rated photographs of a data set's training images into a folder.

The same as `metaqap select-pristine`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.select_pristine import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
