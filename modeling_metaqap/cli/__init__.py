"""The `metaqap` command, one module for each of its commands."""
