"""Probes: torch or LanceDB make predictions into the catalog, SQL makes figures of them.

Every file of this folder is a probe, found by listing it; its name is the probe's. A probe's file starts with
a line that says what it predicts, and holds one fixed symbol, ``predict(store, request) -> Outcome``. Figures
are made of macro `figure_items` in sql/figures.sql, which has a branch for each probe.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from kvstore.contracts import SITES, Site
from kvstore.errors import UnknownNameError
from kvstore.matching import Heads
from kvstore.stored import check_layer, check_site, stored_layers

if TYPE_CHECKING:
    import duckdb

    from kvstore.store import Store

__all__ = ["Outcome", "Part", "Probe", "Request", "check_heads", "find", "listing", "parts"]

HEADS: tuple[Heads, ...] = ("each", "concat", "both")


def check_heads(text: str) -> Heads:
    """A choice of heads; `UnknownNameError` for what is none."""
    for known in HEADS:
        if text == known:
            return known
    raise UnknownNameError("choice of --heads", text, HEADS)


@dataclass(frozen=True, slots=True)
class Request:
    """What to probe: a run's sites and layers (empty: all that are stored), which heads, on which device.

    `trusted`: code of the model's folder may run where texts are read, as `kvstore.models.load_config` says.
    """

    run_id: str
    sites: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    heads: Heads = "each"
    device: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        check_heads(self.heads)
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
    """What a probe did: parts made now, parts found complete, predictions written (of floors, too), items."""

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
    return {path.stem.replace("_", "-"): path for path in sorted(Path(__file__).parent.glob("[!_.]*.py"))}


def find(name: str) -> Probe:
    """A probe by its name; `UnknownNameError` names the nearest."""
    known = listing()
    if name not in known:
        raise UnknownNameError("probe", name, known)
    return cast(Probe, importlib.import_module(f"{__name__}.{known[name].stem}"))


def parts(con: duckdb.DuckDBPyConnection, request: Request) -> list[Part]:
    """The layers of the sites asked for that the run stores, in their order.

    Input has layer 0 only, whatever layers are asked for; the encoder has its own layers. Raises
    `UnknownNameError` for a run or site that is not there, `UsageError` for a layer.
    """
    stored = stored_layers(con, request.run_id)
    for site in request.sites:
        check_site(request.run_id, site, stored)
    chosen: dict[Site, list[int]] = {
        site: stored[site] for site in SITES if site in (request.sites or stored)
    }
    known = [layer for site, layers in chosen.items() if site != "input" for layer in layers]
    for layer in request.layers if known else ():
        check_layer(request.run_id, layer, known)
    return [
        Part(site, layer)
        for site, layers in chosen.items()
        for layer in layers
        if site == "input" or not request.layers or layer in request.layers
    ]
