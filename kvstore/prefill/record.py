"""What an ingest writes into the catalog: the run and all known before its first vector, then progress.

Each function changes a private copy of the catalog that `Store.publish` renames into place; doing one twice
changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from kvstore.contracts import Grid, Layout
from kvstore.errors import UsageError
from kvstore.prefill.blocks import bytes_of, table_rows
from kvstore.prefill.plan import Plan, default_name
from kvstore.prefill.survey import Seen

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

GRID = pa.schema(
    {
        "run_id": pa.string(),
        "image_id": pa.int32(),
        "grid": pa.int8(),
        "rows": pa.int16(),
        "columns": pa.int16(),
        "x0": pa.float64(),
        "y0": pa.float64(),
        "x1": pa.float64(),
        "y1": pa.float64(),
        "first_patch": pa.int32(),
        "first_position": pa.int32(),
        "row_stride": pa.int16(),
        "tile_rows": pa.int8(),
        "tile_columns": pa.int8(),
    }
)

#: Tables of the catalog with what probes make of a run's vectors.
PREDICTIONS = ("match", "segment", "mask", "score")

Fault = tuple[str, int, str, str]  # name, position, reason, detail
Clash = Literal["or ignore", "or replace", ""]


@dataclass
class Progress:
    """What was stored since the last commit."""

    grids: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    bytes: int = 0


def insert(con: DuckDBPyConnection, table: str, rows: pa.Table, clash: Clash = "or ignore") -> None:
    """Insert rows by column name; `clash` says what becomes of one whose key is there: "" is an error."""
    if rows.num_rows:
        con.register("incoming", rows)
        con.execute(f"insert {clash} into {table} by name select * from incoming")
        con.unregister("incoming")


# ------------------------------------------------------------------------------ names in the store


def _free_name(con: DuckDBPyConnection, table: str, column: str, wanted: str) -> str:
    taken = {row[0] for row in con.execute(f"select {column} from {table}").fetchall()}
    names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def model_id(con: DuckDBPyConnection, plan: Plan) -> str:
    """The model's name in this store; its row is made when it is new."""
    model = plan.model
    row = con.execute("select model_id from model where revision = $r", {"r": model.revision}).fetchone()
    if row:
        return str(row[0])
    name = _free_name(con, "model", "model_id", Path(model.name).name)
    values = {
        "model_id": name,
        "name": model.name,
        "source": model.source,
        "revision": model.revision,
        "family": model.family_name,
        **model.description,
    }
    insert(con, "model", pa.Table.from_pylist([values]))
    return name


def dataset_id(con: DuckDBPyConnection, plan: Plan) -> str:
    """The data set's name in this store; its row is made when it is new."""
    from kvstore.datasets import all_images

    dataset = plan.dataset
    asked = plan.options
    file = _text(asked.annotations.expanduser().absolute()) if asked.annotations else None
    row = con.execute(
        "select dataset_id from dataset where fingerprint = $f", {"f": plan.dataset_fingerprint}
    ).fetchone()
    if row:
        con.execute(  # its images may be read again so from now on
            "update dataset set follow_links = coalesce(follow_links, false) or $links,"
            " annotations = coalesce($file, annotations) where dataset_id = $id",
            {"links": asked.follow_links, "file": file, "id": row[0]},
        )
        return str(row[0])
    name = _free_name(con, "dataset", "dataset_id", "/".join(filter(None, (dataset.name, dataset.split))))
    values = {
        "dataset_id": name,
        "name": dataset.name,
        "split": dataset.split,
        "fingerprint": plan.dataset_fingerprint,
        "root": _text(dataset.root.absolute()) if dataset.root else None,
        "images": len(all_images(dataset)),
        "annotations": file,
        "follow_links": asked.follow_links,
    }
    insert(con, "dataset", pa.Table.from_pylist([values]))
    return name


def _text(path: Path) -> str:
    """A path as UTF-8, bytes that are none written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def run_id(runs: Sequence[dict[str, Any]], plan: Plan, taken: Collection[str] = ()) -> str:
    """The run that has these inputs, or the name of a new one, none of `taken`.

    Raises `UsageError` when --run says otherwise.
    """
    from kvstore.store import run_name

    wanted = plan.options.run
    by_name = {run["run_id"]: run for run in runs}
    same = next((run["run_id"] for run in runs if run["fingerprint"] == plan.fingerprint), None)
    if same is not None:
        if wanted not in (None, same):
            raise UsageError(
                f"these inputs are run '{same}' already; leave --run away, or `kvstore drop {same}`."
            )
        return str(same)
    if wanted in by_name:
        differing = ", ".join(_differing(json.loads(by_name[wanted]["identity"]), plan.identity))
        raise UsageError(f"run '{wanted}' has other inputs ({differing}); choose another --run.")
    if wanted is not None:
        return wanted
    name = run_name(default_name(plan))
    names = (name, *(f"{name}-{i}" for i in range(2, len(runs) + len(taken) + 3)))
    return next(n for n in names if n not in {*by_name, *taken})


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


# ---------------------------------------------------------------------------------- before the run


def begin(
    con: DuckDBPyConnection, plan: Plan, run: str, seen: Sequence[Seen], versions: dict[str, int]
) -> None:
    """The run with its model, data set and images, and the images that could not even be looked at."""
    model, dataset = model_id(con, plan), dataset_id(con, plan)
    _images(con, dataset, seen)
    options = plan.options
    values = {
        "run_id": run,
        "fingerprint": plan.fingerprint,
        "identity": json.dumps(plan.identity, sort_keys=True),
        "model_id": model,
        "dataset_id": dataset,
        "prefix": options.prefix,
        "view": options.view,
        "sites": list(options.sites),
        "layers": list(plan.shape.layers),
        "encoder_layers": list(plan.shape.encoder_layers),
        "pool": options.pool,
        "dtype": plan.dtype,
        "device": plan.device,
        "code_version": plan.identity["code"],
    }
    con.execute(
        "insert or ignore into run by name select unnest($row), 'running' as state, map() as versions, "
        "0 as requested",
        {"row": values},
    )
    con.execute(
        "update run set state = 'running', finished_at = null, device = $device, "
        "requested = greatest(requested, $requested) where run_id = $run",
        {"device": plan.device, "requested": len(seen), "run": run},
    )
    set_versions(con, run, versions)
    looked = {"run": run, "looked": len(seen)}
    con.execute("delete from quarantine where run_id = $run and position < $looked", looked)
    faults = [(s.name, s.position, s.fault.reason, s.fault.detail) for s in seen if s.fault]
    _quarantine(con, run, faults)


def set_versions(con: DuckDBPyConnection, run: str, versions: dict[str, int]) -> None:
    """Note the committed versions of some of the run's Lance tables: from here on, readers see those."""
    con.execute(
        "update run set versions = map_concat(versions, map($kinds::varchar[], $numbers::bigint[])) "
        "where run_id = $run",
        {"kinds": list(versions), "numbers": list(versions.values()), "run": run},
    )


def _images(con: DuckDBPyConnection, dataset: str, seen: Sequence[Seen]) -> None:
    rows = [
        {
            "position": image.position,
            "name": image.name,
            "sha256": image.sha256,
            "width": image.header.width,
            "height": image.header.height,
            "format": image.header.format,
            "orientation": image.header.orientation,
            "bytes": image.bytes,
        }
        for image in seen
        if image.header is not None and image.fault is None
    ]
    if not rows:
        return
    con.register("looked", pa.Table.from_pylist(rows))
    con.execute("""
        insert into image by name
        select
            (select coalesce(max(image_id), -1) from image) + row_number() over (order by min(position))
                as image_id,
            sha256,
            any_value(width) as width,
            any_value(height) as height,
            any_value(format) as format,
            any_value(orientation) as orientation,
            any_value(bytes) as bytes,
        from looked
        where sha256 not in (select sha256 from image)
        group by sha256
    """)
    con.execute(
        "insert or ignore into dataset_image by name "
        "select $dataset as dataset_id, name, image_id, position from looked join image using (sha256)",
        {"dataset": dataset},
    )
    con.unregister("looked")


def stored(con: DuckDBPyConnection, fingerprint: str) -> set[str]:
    """sha256 of the images that the run of this fingerprint holds."""
    rows = con.execute(
        "select distinct sha256 from token_grid join run using (run_id) join image using (image_id) "
        "where fingerprint = $f",
        {"f": fingerprint},
    ).fetchall()
    return {row[0] for row in rows}


def layouts(con: DuckDBPyConnection, run: str, head: int) -> dict[int, Layout]:
    """The stored patches' grids of each image of a run, with `head` tokens before the image."""
    found: dict[int, list[Grid]] = {}
    for image_id, rows, columns, first, stride, *box in con.execute(
        "select image_id, rows, columns, first_position, row_stride, x0, y0, x1, y1 from token_grid "
        "where run_id = $r order by image_id, grid",
        {"r": run},
    ).fetchall():
        grid = Grid(rows, columns, (box[0], box[1], box[2], box[3]), first - head, stride)
        found.setdefault(image_id, []).append(grid)
    return {image: Layout(tuple(made), sum(g.patches for g in made)) for image, made in found.items()}


# ------------------------------------------------------------------------- images that are made again


def patches(con: DuckDBPyConnection, run: str) -> dict[int, int]:
    """The patches of each image of a run, over all its grids."""
    sql = "select image_id, sum(rows * columns)::bigint from token_grid where run_id = $r group by image_id"
    return dict(con.execute(sql, {"r": run}).fetchall())


def forget(con: DuckDBPyConnection, run: str, images: Collection[int]) -> int:
    """Take images out of a run, with all that was made of its vectors: nobody knows which of it of theirs.

    Returns how many predictions and figures went.
    """
    if not images:
        return 0
    con.execute("delete from key_stat where run_id = $run", {"run": run})
    con.execute(
        "delete from token_grid where run_id = $run and image_id in (select unnest($images::bigint[]))",
        {"run": run, "images": list(images)},
    )
    con.execute(
        "update run set state = 'interrupted', images = "
        "(select count(distinct image_id) from token_grid where run_id = $run) where run_id = $run",
        {"run": run},
    )
    return forget_made(con, run)


def forget_made(con: DuckDBPyConnection, run: str) -> int:
    """Delete the predictions and figures made of a run's vectors; how many they were."""
    gone = 0
    for table in PREDICTIONS:
        row = con.execute(f"select count(*) from {table} where run_id = $run", {"run": run}).fetchone()
        gone += int(row[0]) if row else 0
        con.execute(f"delete from {table} where run_id = $run", {"run": run})
    return gone


def recount(con: DuckDBPyConnection, plan: Plan, run: str) -> None:
    """Make the run's counts of tokens, rows and bytes anew, of the images that it has."""
    sizes = con.execute(
        "select width, height, count(*) from image "
        "where image_id in (select image_id from token_grid where run_id = $r) group by width, height",
        {"r": run},
    ).fetchall()
    found = [(plan.layout_of((width, height)), images) for width, height, images in sizes]
    stored = [(plan.stored(layout), images) for layout, images in found]
    values = {
        "run": run,
        "tokens": sum(images * (len(plan.head) + layout.tokens) for layout, images in found),
        "rows": sum(images * table_rows(layout, plan.shape) for layout, images in stored),
        "bytes": sum(images * bytes_of(layout, plan.shape) for layout, images in stored),
    }
    con.execute("update run set tokens = $tokens, rows = $rows, bytes = $bytes where run_id = $run", values)


# ---------------------------------------------------------------------------------- while it runs


def _quarantine(con: DuckDBPyConnection, run: str, faults: Sequence[Fault]) -> None:
    """Note why images are not stored; what a former session noted of the same images gives way."""
    names = ("name", "position", "reason", "detail")
    newest = {fault[0]: {"run_id": run, **dict(zip(names, fault, strict=True))} for fault in faults}
    insert(con, "quarantine", pa.Table.from_pylist(list(newest.values())), "or replace")


def grids(run: str, image_id: int, layout: Layout, head: int) -> list[dict[str, Any]]:
    """Rows of `token_grid`; `layout` is that of the stored patches, `head` the tokens before the image."""
    rows, first_patch = [], 0
    for number, grid in enumerate(layout.grids):
        corners = dict(zip(("x0", "y0", "x1", "y1"), grid.box, strict=True))
        rows.append(
            {
                "run_id": run,
                "image_id": image_id,
                "grid": number,
                "rows": grid.rows,
                "columns": grid.columns,
                **corners,
                "first_patch": first_patch,
                "first_position": head + grid.first_token,
                "row_stride": grid.row_stride,
                "tile_rows": grid.tile_rows,
                "tile_columns": grid.tile_columns,
            }
        )
        first_patch += grid.patches
    return rows


def commit(con: DuckDBPyConnection, run: str, progress: Progress, versions: dict[str, int]) -> None:
    """Images whose vectors are in Lance by now."""
    insert(con, "token_grid", pa.Table.from_pylist(progress.grids, schema=GRID))
    _quarantine(con, run, progress.faults)
    set_versions(con, run, versions)
    con.execute(
        """
        update run set
            images = (select count(distinct image_id) from token_grid where run_id = $run),
            tokens = tokens + $tokens,
            rows = rows + $rows,
            bytes = bytes + $bytes,
        where run_id = $run
        """,
        {"run": run, "tokens": progress.tokens, "rows": progress.rows, "bytes": progress.bytes},
    )


def finish(con: DuckDBPyConnection, run: str, state: str, seconds: float, figures: dict[str, Any]) -> None:
    """The end of a session: `state` is done or interrupted; `figures` are its speeds, when it stored any.

    A run that is done already, as a signal right after its end finds it, stays so.
    """
    con.execute(
        "update run set state = $state, finished_at = now(), seconds = seconds + $seconds "
        "where run_id = $run and state = 'running'",
        {"state": state, "seconds": seconds, "run": run},
    )
    for column in ("images_per_s", "tokens_per_s", "mb_per_s", "limiting_stage"):
        if column in figures:
            con.execute(
                f"update run set {column} = $value where run_id = $run",
                {"value": figures[column], "run": run},
            )


def key_stat(con: DuckDBPyConnection, run: str, statistics: pa.Table) -> None:
    """Replace the run's key statistics."""
    con.execute("delete from key_stat where run_id = $run", {"run": run})
    column = pa.array([run] * statistics.num_rows, pa.string())
    insert(con, "key_stat", statistics.append_column("run_id", column), "")
