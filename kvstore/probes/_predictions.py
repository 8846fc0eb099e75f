"""What probes share: the heads that a site gets, publishing rows of predictions, making figures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore.contracts import Site
from kvstore.errors import UnknownNameError
from kvstore.geometry import Placed
from kvstore.matching import Heads
from kvstore.probes import Part
from kvstore.recipes import locate

if TYPE_CHECKING:
    import duckdb
    import torch

    from kvstore.store import Store

#: Site of predictions that look at no vector, only at places: a floor that every probe makes.
POSITION = "position"
#: Bytes of finished rows that wait for one publish of the catalog; a layer is never split, and a kill loses
#: no more.
PUBLISH_BYTES = 32 << 20
_DROP_FIGURES = "delete from score where run_id = $run and probe = $probe"

Head = int | None
Vectors = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True, slots=True)
class Size:
    """Heads and channels per head of one site."""

    heads: int
    width: int


def sizes(store: Store, run_id: str, wanted: Iterable[Part], image: int) -> dict[Site, Size]:
    """Heads and widths of the sites asked for, as one stored image has them."""
    from kvstore.vectors import read_site

    found = {}
    for site, layer in {part.site: part.layer for part in wanted}.items():
        heads, _, width = read_site(store.lance, run_id, site, layer, image).shape
        found[site] = Size(heads, width)
    return found


def kinds(site: Site, heads: Heads) -> Heads:
    """How a site's heads are taken: those of input and encoder are one vector, whatever is asked for."""
    return "concat" if site in ("input", "encoder") else heads


def heads_of(site: Site, heads: Heads, size: Size) -> list[Head]:
    """The values of column `head` that a site gets, in the order of `kinds`; None: all heads concatenated."""
    each: list[Head] = list(range(size.heads))
    values: dict[Heads, list[Head]] = {"each": each, "concat": [None], "both": [*each, None]}
    return values[kinds(site, heads)]


def of_grid(array: Vectors, placed: Placed) -> Vectors:
    """The vectors [heads, patches, width] of one grid of an image that may have more grids."""
    return array[:, placed.first_patch : placed.first_patch + placed.grid.patches]


def tensor(array: Vectors, device: Any) -> torch.Tensor:
    """A copy on the device, float16: stored blocks are read-only views of a file."""
    import torch

    return torch.from_numpy(np.array(array)).to(device)


class Done(dict[tuple[str, int], set[Head]]):
    """The heads of each (site, layer) whose predictions are complete."""

    def __missing__(self, part: tuple[str, int]) -> set[Head]:
        return self.setdefault(part, set())

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> Done:
        """The (site, layer, head) that a query finds complete."""
        done = cls()
        for site, layer, head in con.execute(sql, params).fetchall():
            done[site, layer].add(head)
        return done


class Writer:
    """Predictions on their way into a table: rows wait until there are enough for one publish.

    A publish replaces the rows that agree with new ones in `key`, and drops the probe's figures of the run: a
    kill before `score` leaves none that are out of date. `rows` counts what was written.
    """

    def __init__(self, store: Store, run_id: str, probe: str, table: str, key: tuple[str, ...]) -> None:
        self.store, self.run_id, self.probe, self.table, self.key = store, run_id, probe, table, key
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows, and publish all that wait when they are many."""
        self.waiting.append(rows)
        if sum(table.nbytes for table in self.waiting) >= PUBLISH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Publish what waits; `UnknownNameError` when the run was dropped meanwhile."""
        if not self.waiting:
            return
        found = pa.concat_tables(self.waiting)
        same = " and ".join(f"{self.table}.{name} is not distinct from f.{name}" for name in self.key)
        with self.store.publish() as con:
            if not con.execute("select 1 from run where run_id = $run", {"run": self.run_id}).fetchall():
                raise UnknownNameError("run", self.run_id, [], "It was dropped while the probe ran.")
            con.register("found", found)
            names = ", ".join(self.key)
            con.execute(f"delete from {self.table} using (select distinct {names} from found) f where {same}")
            con.execute(f"insert into {self.table} by name select * from found")
            con.unregister("found")
            con.execute(_DROP_FIGURES, {"run": self.run_id, "probe": self.probe})
        self.waiting = []
        self.rows += found.num_rows


def score(store: Store, run_id: str, probe: str) -> None:
    """Make a probe's figures of the run by sql/analyses/bootstrap.sql, and replace the old ones."""
    text = locate("sql/analyses", "bootstrap", ".sql").read_text(encoding="utf-8")
    which = {"run": run_id, "probe": probe}
    with store.tables() as con:
        figures = con.execute(text, which).to_arrow_table()
    with store.publish() as con:
        con.execute(_DROP_FIGURES, which)
        con.register("figures", figures)
        con.execute("insert into score by name select * from figures")
        con.unregister("figures")


def is_scored(con: duckdb.DuckDBPyConnection, run_id: str, probe: str, done: Done) -> bool:
    """Whether every image value that is complete, and chance, has its figures."""
    scored = Done.of(
        con,
        "select distinct site, layer, head from score"
        " where run_id = $run and probe = $probe and units is not null",
        {"run": run_id, "probe": probe},
    )
    return bool(scored["chance", 0]) and all(heads <= scored[part] for part, heads in done.items())
