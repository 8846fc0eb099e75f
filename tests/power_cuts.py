"""What a power cut does to a store, for tests: files of the last commits lost, empty or cut short.

A store is made once and copied for each cut. `differences` holds every table and view of a store to those of
one that nothing happened to.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import lance
import numpy as np

from kvstore import durable, models, text_values
from kvstore.prefill import ingest as engine
from kvstore.prefill import plan as planning
from kvstore.prefill import writing
from kvstore.prefill.ingest import Meter, Outcome
from kvstore.prefill.plan import Plan
from kvstore.store import Store
from tests.ingesting import options, pictures, rows

RUN = "folder-tiny-onevision"
KINDS = ("patch_span", "patch_kv", "pooled_kv", "patch_input", "patch_encoder", "checksum")
TEXTS = ("text_kv", "text_input")
HOW = ("lost", "empty", "cut")
WINDOW, IMAGES = 2, 4
#: Columns that tell of time, and versions that tell how often something was written.
_OF_TIME = {
    "run": "started_at, finished_at, seconds, versions, images_per_s, tokens_per_s, mb_per_s, limiting_stage",
    "store": "created_at",
    "dataset": "added_at",
}


@dataclass(frozen=True)
class World:
    """Plans over the same images, all and the first window of them, with one loaded model for all.

    before   the store with one window stored and ended, and a text
    store    as it is when the power is cut: all windows committed, no end; and one more text
    ended    the same after the end, with its indices and sums
    straight what the same commands give without a cut
    """

    plans: dict[int, Plan]
    before: Path
    store: Path
    ended: Path
    straight: Store

    @classmethod
    def make(cls, folder: Path) -> World:
        images = pictures(folder / "images", [(60, 60)] * IMAGES)
        wanted = {"layers": "0", "sites": ("value", "key", "input", "encoder")}
        plans = {limit: engine.plan(options(images, **wanted, limit=limit)) for limit in (WINDOW, IMAGES)}
        world = cls(
            plans, *(folder / name for name in ("before", "store", "ended")), Store(folder / "straight")
        )
        world.resume(world.before, WINDOW, ["cat"])
        sync(copy(world.before, world.store))
        with mock.patch.object(engine._Session, "finish", side_effect=RuntimeError("the power is cut")):
            try:
                world.resume(world.store)
            except RuntimeError:
                world.text(world.store, ["dog"])
        sync(copy(world.store, world.ended))
        world.resume(world.ended)
        world.resume(world.straight.root, IMAGES, ["cat"])
        world.text(world.straight.root, ["dog"])
        return world

    def resume(self, root: Path, limit: int = IMAGES, texts: list[str] | None = None) -> Outcome:
        """The same ingest again, with small windows."""
        store, plan, meter = Store.open(root, create=True), self.plans[limit], Meter()
        with (
            mock.patch.object(planning, "WINDOW_IMAGES", WINDOW),
            mock.patch.multiple(writing, INTERVAL=0.0, PATIENCE=0.0),
        ):
            outcome = engine.ingest(store, plan, engine.look(plan, meter), meter)
        if texts:
            self.text(root, texts)
        return outcome

    def text(self, root: Path, texts: list[str]) -> None:
        """The texts' vectors, of those that are not there."""
        text_values.fill(Store.open(root), RUN, texts)

    def last_commit(self, store: Path, before: Path) -> dict[str, list[Path]]:
        """What is in one store and not in an older copy: table -> files, below the store."""
        found: dict[str, list[Path]] = {}
        for file in sorted(path for path in (store / "lance").rglob("*") if path.is_file()):
            name = file.relative_to(store)
            if not (before / name).exists() and name.parts[1] != "at":
                found.setdefault(name.parts[1].split(".")[-2], []).append(name)
        return found


def copy(source: Path, target: Path) -> Path:
    """A copy with its times; what is one file under two names, a manifest and its pin, is so there, too."""
    shutil.copytree(source, target, symlinks=True)
    for pin in target.glob("**/at/*/_versions/*.manifest"):
        run, kind, _, _ = pin.parents[1].name.rsplit(".", 3)
        manifest = pin.parents[3] / f"{run}.{kind}.lance" / "_versions" / pin.name
        if manifest.exists():
            pin.unlink()
            pin.hardlink_to(manifest)
    return target


def sync(root: Path) -> Path:
    """Bring all of a copy to the disk."""
    durable.sync([root, *(path for path in root.rglob("*") if not path.is_symlink())])
    return root


def cut(file: Path, how: str) -> None:
    """Take a file away, or what is in it."""
    if how == "lost":
        file.unlink()
        return
    content = file.read_bytes()
    with file.open("r+b") as opened:
        opened.truncate(0 if how == "empty" else len(content) // 2)
        if how == "zeros":
            opened.truncate(len(content))


def differences(store: Store, straight: Store) -> list[str]:
    """The tables and views whose rows are not those of the other store, in either direction."""
    with store.connect() as ours, straight.connect() as theirs:
        names = [name for (name,) in ours.execute(_TABLES).fetchall()]
        assert names == [name for (name,) in theirs.execute(_TABLES).fetchall()]
        found = [name for name in names if _differ(_table(ours, name), _table(theirs, name))]
    return found + [
        f"{kind} in Lance" for kind in (*KINDS, *TEXTS) if rows(store, RUN, kind) != rows(straight, RUN, kind)
    ]


_TABLES = """
select table_name from information_schema.tables
where table_catalog = 'kvstore' and table_name <> 'how_to_read_vectors'
order by table_name
"""


def _table(con: duckdb.DuckDBPyConnection, name: str) -> Any:
    left_out = f" exclude ({_OF_TIME[name]})" if name in _OF_TIME else ""
    return con.execute(f'select *{left_out} from "{name}"').to_arrow_table()


def _differ(ours: Any, theirs: Any) -> bool:
    if "square_mean" in ours.schema.names:  # sums in another order differ in the last bits
        one, other = (table.sort_by([(n, "ascending") for n in _PLACE]) for table in (ours, theirs))
        numbers = [name for name in one.schema.names if name != "run_id"]
        return len(one) != len(other) or not all(
            np.allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-6, equal_nan=True)
            for name in numbers
        )
    with duckdb.connect() as con:
        con.register("ours", ours)
        con.register("theirs", theirs)
        sql = "select count(*) from ((from {} except all from {}) union all (from {} except all from {}))"
        row = con.execute(sql.format("ours", "theirs", "theirs", "ours")).fetchone()
        return row is None or row[0] > 0


_PLACE = ("grid", "layer", "head", "patch")


@contextmanager
def loaded_once() -> Iterator[None]:
    """Within, the model's weights are loaded once: there is but one model."""
    plain, known = models.with_weights, list[Any]()

    def with_weights(*given: Any, whole: bool = False) -> Any:
        if not known:
            known.append(plain(*given, whole=whole))
        return known[0]

    with mock.patch.object(models, "with_weights", with_weights):
        yield


class Syncs:
    """Within, what is synced is noted, and `seen` is called with each name before something is renamed to it.

    A time is noted where a file or folder was synced last: what changed since may be lost in a power cut.
    """

    def __init__(self, seen: Callable[[Path, Path], None]) -> None:
        self.seen, self.at = seen, dict[int, int]()

    def __enter__(self) -> Syncs:
        fsync, replace = os.fsync, os.replace

        def noted(descriptor: int) -> None:
            now = time.time_ns()
            fsync(descriptor)
            self.at[os.fstat(descriptor).st_ino] = now

        def renamed(source: Path, target: Path) -> None:
            self.seen(Path(source), Path(target))
            replace(source, target)

        self._patches = mock.patch.object(os, "fsync", noted), mock.patch.object(os, "replace", renamed)
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()

    def may_lose(self, path: Path) -> bool:
        """Whether a file's content, or the name of a file or link in its folder, was not synced since.

        The names that files have aside, before they are put in place, may be lost.
        """
        changed = path.lstat().st_mtime_ns
        if self.at.get(path.parent.stat().st_ino, 0) < changed and not path.name.endswith(".tmp"):
            return True
        return path.is_file() and self.at.get(path.stat().st_ino, 0) < changed


def named_files(catalog: Path, lance_dir: Path) -> Iterator[Path]:
    """Every file and link that the versions need which a catalog names: of the tables, and of their pins."""
    with duckdb.connect(str(catalog), read_only=True) as con:
        runs = con.execute("select run_id, versions from run").fetchall()
    for run, versions in runs:
        for kind, version in versions.items():
            table = lance_dir / f"{run}.{kind}.lance"
            manifest = f"_versions/{2**64 - 1 - version}.manifest"
            dataset = lance.dataset(str(table), version=version)
            pin = lance_dir / "at" / f"{run}.{kind}.{version}.lance"
            yield from (table / manifest, pin / manifest, *(pin / name for name in ("data", "_indices")), pin)
            for fragment in dataset.get_fragments():
                yield from (table / "data" / file.path for file in fragment.metadata.files)
            for index in dataset.describe_indices():
                yield from (table / "_indices" / str(index.segments[0].uuid)).iterdir()
            yield from table.glob(f"_transactions/{version - 1}-*.txn")


def needed(files: dict[str, list[Path]]) -> Iterator[tuple[str, Path]]:
    """Table and file of a commit, without those that Lance can do without: transactions, and a hint."""
    for kind, names in files.items():
        for name in names:
            if name.parts[-2] != "_transactions" and name.suffix != ".json":
                yield kind, name
