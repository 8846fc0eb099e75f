"""The vectors of a store: one set of Lance tables per run (see `kvstore.vectors.schema`)."""

from kvstore.vectors.read import Reader, named, opened, read_layer, read_site, reader
from kvstore.vectors.write import KEEP, drop, optimize, rewind

__all__ = [
    "KEEP",
    "Reader",
    "drop",
    "named",
    "opened",
    "optimize",
    "read_layer",
    "read_site",
    "reader",
    "rewind",
]
