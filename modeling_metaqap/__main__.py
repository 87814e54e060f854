"""`python -m modeling_metaqap` is the `metaqap` command."""

from .cli.app import main

main()
