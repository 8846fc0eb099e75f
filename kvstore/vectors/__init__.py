"""The vectors of a store: one set of Lance tables per run (see `kvstore.vectors.schema`)."""

from kvstore.vectors.read import Reader, read_layer, read_site, reader
from kvstore.vectors.write import drop, optimize, rewind

__all__ = ["Reader", "drop", "optimize", "read_layer", "read_site", "reader", "rewind"]
