"""Temporal correspondence as `tracking`, but void pixels are out of all counts.

The predictions are those of `tracking`, whose docstring has the protocol; what differs is what is counted. A
pixel that is marked as void is neither right nor wrong here: prediction and truth are cut at it before pixels
are counted and contours drawn, as the measures of davis2017-evaluation do with void pixels if they get any.
Its semi-supervised task gives them none, so where a data set has void pixels, these figures are not the
published kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.probes import Outcome, Request, tracking

if TYPE_CHECKING:
    from kvstore.store import Store


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.tracking.predict` does.
    """
    return tracking.track(store, request, tracking.VOID_OUT)
