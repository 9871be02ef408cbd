"""The version, written once: the build reads it here, and `eventkit.__version__` costs no metadata look-up."""

__version__ = "0.1.0"
