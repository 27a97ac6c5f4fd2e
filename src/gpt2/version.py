"""The version of the toolkit."""

__version__ = "2.0.0"
