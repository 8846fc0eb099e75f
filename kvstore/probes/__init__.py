"""Probes: torch or LanceDB make predictions into the catalog, SQL makes figures of them.

Every file of this folder is a probe, found by listing it; its name is the probe's. A probe's file starts with
a line that says what it predicts, and holds one fixed symbol, ``predict(store, request) -> Outcome``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from kvstore.contracts import SITES, Site
from kvstore.errors import UnknownNameError, UsageError
from kvstore.matching import Heads

if TYPE_CHECKING:
    import duckdb

    from kvstore.store import Store

__all__ = ["Outcome", "Part", "Probe", "Request", "find", "listing", "parts"]

HEADS: tuple[Heads, ...] = ("each", "concat", "both")


@dataclass(frozen=True, slots=True)
class Request:
    """What to probe: a run's sites and layers (empty: all that are stored), which heads, on which device."""

    run_id: str
    sites: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    heads: Heads = "each"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.heads not in HEADS:
            raise UnknownNameError("choice of --heads", self.heads, HEADS)
        for site in self.sites:
            if site not in SITES:
                raise UnknownNameError("site", site, SITES)


@dataclass(frozen=True, slots=True)
class Part:
    """The unit of work that is done whole or not at all: one layer of one site."""

    site: Site
    layer: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe did: parts matched now, parts found complete, predictions written, items they are of."""

    made: int
    kept: int
    rows: int
    items: int


class Probe(Protocol):
    """The module of one probe."""

    def predict(self, store: Store, request: Request) -> Outcome:
        """Make the request's predictions and their scores; doing it again changes nothing."""


def listing() -> dict[str, Path]:
    """The probes by name, sorted, without importing them."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("[!_.]*.py"))}


def find(name: str) -> Probe:
    """A probe by its name; `UnknownNameError` names the nearest."""
    known = listing()
    if name not in known:
        raise UnknownNameError("probe", name, known)
    return cast(Probe, importlib.import_module(f"{__name__}.{name}"))


def parts(con: duckdb.DuckDBPyConnection, request: Request) -> list[Part]:
    """The layers of the sites asked for that the run stores, in their order.

    Input has layer 0 only, whatever layers are asked for; the encoder has its own layers. Raises
    `UnknownNameError` for a run or site that is not there, `UsageError` for a layer.
    """
    stored = _stored(con, request.run_id)
    for site in request.sites:
        if site not in stored:
            hint = f"Run '{request.run_id}' does not store it: ingest with --sites {site}."
            raise UnknownNameError("stored site", site, stored, hint)
    chosen: dict[Site, list[int]] = {
        site: stored[site] for site in SITES if site in (request.sites or stored)
    }
    _check_layers(request, {layer for site, layers in chosen.items() if site != "input" for layer in layers})
    return [
        Part(site, layer)
        for site, layers in chosen.items()
        for layer in layers
        if site == "input" or not request.layers or layer in request.layers
    ]


def _stored(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[Site, list[int]]:
    """The layers stored of each site of a run."""
    runs = con.execute("select run_id, sites, layers, encoder_layers from run").fetchall()
    found = {name: rest for name, *rest in runs}
    if run_id not in found:
        raise UnknownNameError("run", run_id, found, "See `kvstore runs`.")
    sites, layers, encoder = found[run_id]
    own = {"value": layers, "key": layers, "input": [0], "encoder": encoder}
    return {site: sorted(own[site]) for site in SITES if site in sites}


def _check_layers(request: Request, known: set[int]) -> None:
    for layer in request.layers:
        if known and layer not in known:
            near = min(known, key=lambda other: (abs(other - layer), other))
            listed = ", ".join(map(str, sorted(known)))
            raise UsageError(
                f"run '{request.run_id}' stores no layer {layer} of the sites asked for;"
                f" the nearest is {near}. Stored: {listed}."
            )
