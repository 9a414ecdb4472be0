"""The version of this package, which setup.cfg repeats."""

__version__ = "0.1.0"
