"""Put together the folder that goes to the Hub, try it out, and on request upload it as one commit.

The same as `metaqap push`, with underscores in the names of options; `--help` says the rest.
"""

from modeling_metaqap.cli.push import PROGRAM

main = PROGRAM.main

if __name__ == "__main__":
    main()
