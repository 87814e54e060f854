"""Version of the package, in one place that can be read without importing torch."""

__version__ = "0.1.0"
