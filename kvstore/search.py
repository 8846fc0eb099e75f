"""The patches most similar to one patch: LanceDB vector search by cosine, exact unless asked otherwise.

Lance compares float16 vectors in float32 (measured against float64: an error of at most 3e-7). It is asked
for `CANDIDATES` times as many as wanted, and their similarity is computed anew in float64, so that the order
is that of the stored vectors also where an approximate index found them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.contracts import Box, Site
from kvstore.errors import UnknownNameError, UsageError
from kvstore.geometry import Placed, box_of, read_grids
from kvstore.stored import check_layer, check_site, only_run, stored_layers

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from kvstore.store import Store

#: Candidates taken from Lance for each one wanted.
CANDIDATES = 4
#: File names among which the nearest to a wrong one is sought.
_MOST_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Query:
    """One patch, and what to look for.

    image        image_id, file name in the run's data set, or sha256 of the file
    head         KV head; None for input and encoder
    run_id       None: the store's only run
    approximate  use the vector index of the column, where the run has one
    same_image   let the query's own image take part
    """

    image: str
    patch: int
    layer: int = 0
    head: int | None = None
    site: str = "value"
    top: int = 10
    run_id: str | None = None
    approximate: bool = False
    same_image: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"--top must be at least 1, not {self.top}")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A patch found: which, where in its grid, its pixel box clipped to the image, cosine similarity."""

    run_id: str
    image_id: int
    name: str
    patch: int
    grid: int
    row: int
    column: int
    x0: float
    y0: float
    x1: float
    y1: float
    similarity: float


def search(store: Store, query: Query) -> list[Neighbour]:
    """The `top` most similar patches of the run at the same site, layer and head, best first.

    Equal similarities stand in the order of image and patch. Raises `UnknownNameError` and `UsageError` for
    what the run does not have.
    """
    with store.tables() as con:
        run_id = only_run(con, query.run_id)
        stored = stored_layers(con, run_id)
        site = check_site(run_id, query.site, stored)
        check_layer(run_id, query.layer, stored[site])
        image = find_image(con, run_id, query.image)
        ((versions,),) = con.execute("select versions from run where run_id = $r", {"r": run_id}).fetchall()
        vector = _vector(store, run_id, versions, site, query, image)
        found = _candidates(store, run_id, versions, site, query, image, vector)
        return _placed(con, run_id, found, query.top)


def find_image(con: duckdb.DuckDBPyConnection, run_id: str, wanted: str) -> int:
    """The stored image of that image_id, file name or sha256, tried in this order; `UnknownNameError`."""
    rows = con.execute(
        "select i.image_id, d.name from image i"
        " join dataset_image d using (image_id) join run r using (dataset_id)"
        " where r.run_id = $run"
        " and i.image_id in (select image_id from token_grid where run_id = $run)"
        " and (i.image_id::varchar = $wanted or d.name = $wanted or i.sha256 = lower($wanted))"
        " order by i.image_id::varchar = $wanted desc, d.name = $wanted desc limit 1",
        {"run": run_id, "wanted": wanted},
    ).fetchall()
    if rows:
        return int(rows[0][0])
    names = con.execute(
        "select d.name from dataset_image d join run r using (dataset_id) where r.run_id = $run limit $most",
        {"run": run_id, "most": _MOST_NAMES},
    ).fetchall()
    raise UnknownNameError("stored image", wanted, [str(name) for (name,) in names])


def _vector(
    store: Store, run_id: str, versions: Mapping[str, int], site: Site, query: Query, image: int
) -> np.ndarray[Any, Any]:
    """The query's vector, float32 [width]."""
    from kvstore.vectors import read_site

    block = read_site(store.lance, run_id, site, query.layer, image, versions)
    heads, patches, _ = block.shape
    if site in ("input", "encoder"):
        if query.head is not None:
            raise UsageError(f"site '{site}' has no heads; leave --head out")
    elif query.head is None or not 0 <= query.head < heads:
        got = "was not given" if query.head is None else f"is {query.head}"
        raise UsageError(f"--head must be 0 to {heads - 1} for site '{site}'; it {got}")
    if not 0 <= query.patch < patches:
        raise UsageError(f"--patch must be 0 to {patches - 1} for image {image}, not {query.patch}")
    vector: np.ndarray[Any, Any] = block[query.head or 0, query.patch].astype(np.float32)
    if not vector.any():
        raise UsageError(f"the vector of patch {query.patch} of image {image} is zero: it has no direction")
    return vector


def _candidates(
    store: Store,
    run_id: str,
    versions: Mapping[str, int],
    site: Site,
    query: Query,
    image: int,
    vector: np.ndarray[Any, Any],
) -> list[tuple[float, int, int]]:
    """(similarity, image, patch) of the best candidates, best first."""
    from kvstore import vectors
    from kvstore.vectors import schema as tables

    kind, column = tables.column_of(site)
    wanted = {"layer": query.layer} if site != "input" else {}
    wanted |= {"head": query.head} if query.head is not None else {}
    where = [f"{name} = {int(number)}" for name, number in wanted.items()]
    where += [] if query.same_image else [f"image_id != {image}"]
    rows = vectors.opened(store.lance, run_id, kind, versions).to_table(
        columns=["image_id", "patch", column, "_distance"],
        filter=" and ".join(where) or None,
        prefilter=True,
        nearest={
            "column": column,
            "q": vector,
            "k": CANDIDATES * query.top,
            "metric": "cosine",
            "use_index": query.approximate,
        },
    )
    similarities = _similarities(rows.column(column), vector)
    found = zip(similarities, rows["image_id"].to_pylist(), rows["patch"].to_pylist(), strict=True)
    return sorted(found, key=lambda item: (-item[0], item[1], item[2]))


def _similarities(stored: pa.ChunkedArray, vector: np.ndarray[Any, Any]) -> list[float]:
    """Cosine similarity of each stored vector to `vector`, in float64; a zero vector has none to anything."""
    flat = stored.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    others = flat.astype(np.float64).reshape(-1, len(vector))
    query = vector.astype(np.float64)
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(query)
    return [
        float(value) for value in np.divide(others @ query, norms, np.zeros(len(others)), where=norms > 0)
    ]


def _placed(
    con: duckdb.DuckDBPyConnection, run_id: str, found: list[tuple[float, int, int]], top: int
) -> list[Neighbour]:
    """The first `top` with names and places; an image that is not in the catalog is left out."""
    grids = read_grids(con, run_id)
    images = _images(con, run_id, [image for _, image, _ in found])
    there = [item for item in found if item[1] in grids and item[1] in images][:top]
    return [
        _neighbour(run_id, image, *images[image], patch, grids[image], similarity)
        for similarity, image, patch in there
    ]


def _images(
    con: duckdb.DuckDBPyConnection, run_id: str, image_ids: list[int]
) -> dict[int, tuple[str, tuple[int, int]]]:
    """Name and (width, height) of images; of an image with several names in the data set the first."""
    rows = con.execute(
        "select i.image_id, min(d.name), any_value(i.width), any_value(i.height) from image i"
        " join dataset_image d using (image_id) join run r using (dataset_id)"
        " where r.run_id = $run and i.image_id in (select unnest($images::integer[])) group by i.image_id",
        {"run": run_id, "images": image_ids},
    ).fetchall()
    return {image: (name, (width, height)) for image, name, width, height in rows}


def _neighbour(
    run_id: str,
    image: int,
    name: str,
    size: tuple[int, int],
    patch: int,
    grids: list[Placed],
    similarity: float,
) -> Neighbour:
    placed = [grid for grid in grids if grid.first_patch <= patch][-1]
    row, column = divmod(patch - placed.first_patch, placed.grid.columns)
    box = _clipped(box_of(patch - placed.first_patch, placed.grid), size)
    return Neighbour(run_id, image, name, patch, placed.number, row, column, *box, similarity)


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = box
    width, height = size
    return (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
