"""The node daemon: verified snapshots from object storage into one shared cache."""

__version__ = "0.1.0"
