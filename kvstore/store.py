"""A store: a folder with `catalog.duckdb`, `lance/` and `locks/`.

Readers never meet a lock: the catalog is published, that is written aside and renamed into place, under one
inter-process lock that only publishers take. A reader keeps the snapshot that it opened.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from kvstore import __version__, disk, durable, interrupts, locks, pins, received, warehouse
from kvstore.errors import (
    StoreBusyError,
    StoreError,
    StoreVersionError,
    UnknownNameError,
    UsageError,
)
from kvstore.lines import printable
from kvstore.outside import local_path, reason, told

if TYPE_CHECKING:
    from kvstore.check import Finding

#: The store's own format; a store that says a higher number was made by a newer kvstore.
FORMAT = 4
#: What a backup's catalog is called until the backup is whole.
UNFINISHED = "catalog.copied"

#: Bytes that a publish needs beside the copy of the catalog.
_ROOM = 2 << 20
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_count = itertools.count()


def run_name(text: str) -> str:
    """A legal run name made of any text: lower case, dashes for what is not allowed."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:100] or "run"


@dataclass(frozen=True)
class Store:
    """An opened store. It holds no connection and no lock between calls."""

    root: Path

    @property
    def catalog(self) -> Path:
        """The published DuckDB file; never written in place."""
        return self.root / "catalog.duckdb"

    @property
    def lance(self) -> Path:
        """Folder of the Lance tables, ``<run_id>.<table>.lance``."""
        return self.root / "lance"

    @classmethod
    def open(cls, root: Path | str, *, create: bool = False) -> Store:
        """Open the store at `root`, made first when `create` and not there, upgraded when its format is old.

        Raises `StoreError` for what is not a store or cannot be written, or has files elsewhere,
        `StoreVersionError` for a store of a newer kvstore.
        """
        store = cls(usable(local_path(root).expanduser().absolute()))
        received.refuse_links(store.root)
        if not store.catalog.exists():
            store._make(create)
        if store._version() < FORMAT:
            store._upgrade()
        return store

    def connect(self, *, spill: Path | None = None, files: bool = False) -> duckdb.DuckDBPyConnection:
        """A read-only snapshot with views and macros; close it yourself, it is a context manager.

        DuckDB opens no file outside, but for those in `spill`, and with `files` any. Lance's own functions
        are held back by nothing here: ask a store that somebody sent by `tables`, or by the command line.
        """
        return warehouse.connect(self.catalog, self.lance, spill=spill, files=files)

    def tables(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A read-only snapshot of the catalog's tables alone: quicker than `connect`, no vectors."""
        return warehouse.catalog_only(self.catalog)

    @contextmanager
    def publish(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A private writable copy of the catalog, renamed into place on success and dropped on an error.

        Keep the body short: other publishers wait, first come, first served, and Ctrl-C is heard after it.
        The vectors are not readable in it. Raises `NoSpaceError` when the disk is full, `StoreBusyError` when
        another publisher does not end within a minute.
        """
        with (
            disk.errors(self.root),
            locks.hold(self._locks / "catalog.lock", "the catalog", locks.PATIENCE),
            interrupts.shielded(),
        ):
            self._sweep()
            copy = self.root / f"{self.catalog.name}.{os.getpid()}.{next(_count)}.tmp"
            try:
                if self.catalog.exists():
                    disk.require(self.root, self.catalog.stat().st_size + _ROOM)
                    copy.touch(0o600)  # what it holds is for those who may read the catalog
                    shutil.copyfile(self.catalog, copy)
                with warehouse.editing(copy, self.lance) as con:
                    yield con
                durable.replace(copy, self.catalog)
            finally:
                _remove_copy(copy)

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """The inter-process lock of a run; `StoreBusyError` says who holds it.

        Within, a full disk and a folder that cannot be written become a `StoreError`.
        """
        if not _RUN_NAME.fullmatch(run_id):
            raise UsageError(
                f"'{run_id}' is no run name; take a-z, 0-9, dot, dash, underscore: {run_name(run_id)}"
            )
        for table in self._tables_of(run_id):
            received.refuse_links_in(self.root, table)
        with disk.errors(self.root), locks.hold(self._locks / f"run.{run_id}.lock", f"run {run_id}"):
            yield

    @contextmanager
    def hold_inputs(self, fingerprint: str, what: str) -> Iterator[None]:
        """The inter-process lock of a run's inputs, whatever its name; `what` is for the error's words."""
        name = hashlib.sha256(fingerprint.encode()).hexdigest()
        with disk.errors(self.root), locks.hold(self._locks / f"inputs.{name}.lock", what):
            yield

    def runs(self) -> list[dict[str, Any]]:
        """Every run, a dict of table `run`'s columns each, by name."""
        with self.tables() as con:
            # By way of Arrow: DuckDB's own fetch of a time with its zone needs pytz.
            rows = con.execute("select * from run order by run_id").to_arrow_table().to_pylist()
            return [row | {"versions": dict(row["versions"])} for row in rows]

    def recover(self) -> list[str]:
        """Mark as interrupted the runs that say they run and whose process is gone; returns their names."""
        found = []
        for run in self.runs():
            if run["state"] == "running":
                try:
                    with self.hold(run["run_id"]), self.publish() as con:
                        con.execute(
                            "update run set state = 'interrupted' where run_id = $run and state = 'running'",
                            {"run": run["run_id"]},
                        )
                    found.append(run["run_id"])
                except StoreBusyError:
                    continue
        return found

    def drop(self, run_id: str, *, now: bool = False) -> int:
        """Remove a run from the catalog, with what no other run uses; the bytes of its Lance tables.

        The tables stay for `vectors.KEEP`, for readers that have the run open, and are removed by `optimize`
        after that; with `now` at once, also those of a run that was dropped before. Raises
        `UnknownNameError`, and `StoreBusyError` while the run is being ingested.
        """
        known = [run["run_id"] for run in self.runs()]
        folders = self._tables_of(run_id)
        if run_id not in known and not (now and folders):
            raise UnknownNameError("run", run_id, known)
        from kvstore import pruning

        with self.hold(run_id):
            size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
            for folder in folders:
                os.utime(folder)  # it is dropped since now: what is kept counts from here
            if run_id in known:
                with self.publish() as con:
                    pruning.forget(con, run_id)
            if now:
                self._remove_tables(run_id)
        return size

    def optimize(self) -> dict[str, str]:
        """Compact each run's Lance tables, clean old versions, build zone maps; says per run what was done.

        A run that is being ingested is left alone. Tables of no run, as a drop leaves them, are removed when
        they are older than `vectors.KEEP`.
        """
        done = {run["run_id"]: self.optimize_run(run["run_id"]) for run in self.runs()}
        return done | self.remove_orphans()

    def optimize_run(self, run_id: str) -> str:
        """What `optimize` does of one run; ``optimized``, or ``busy`` while another process is at work on it.

        Raises `StoreError` for a run that cannot be read: it is left as it is.
        """
        try:
            remedy = f"kvstore repair {run_id}"
            with told(f"run {run_id} cannot be optimized", remedy, StoreError), self.hold(run_id):
                self._optimize(run_id)
        except StoreBusyError:
            return "busy"
        return "optimized"

    def check(self) -> list[Finding]:
        """Run every file of `sql/checks`; see `kvstore.check`."""
        from kvstore import check

        return check.findings(self.catalog, self.lance)

    @property
    def _locks(self) -> Path:
        return self.root / "locks"

    def _make(self, create: bool) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file; a store is a folder")
        unfinished = (self.root / UNFINISHED).exists()
        if next(self.lance.glob("*.lance"), None) and not unfinished:
            raise StoreError(
                f"{self.catalog} is lost, and its vectors are there: put it back from a backup, or remove "
                f"{self.lance} to begin anew"
            )
        if not create:
            raise StoreError(f"no store at {self.root}; `kvstore ingest ... --store {self.root}` makes one")
        strange = [] if not self.root.exists() else [p.name for p in self.root.iterdir() if not _own(p)]
        if strange:
            raise StoreError(
                f"{self.root} is not a store and not empty (it has {strange[0]}); give a new or empty folder"
            )
        with disk.errors(self.root):
            durable.make_folder(self.lance)
        with self.publish() as con:  # a second process may have made it while this one waited: then no change
            warehouse.create_tables(con)
            con.execute(
                "insert into store (version, created_by) select $version, $by where not exists (from store)",
                {"version": FORMAT, "by": __version__},
            )

    def _upgrade(self) -> None:
        try:
            with self.publish() as con:  # a second process may have done it while this one waited
                (version,) = con.execute("select version from store").fetchall()[0]
                warehouse.upgrade(con, range(version + 1, FORMAT + 1))
        except StoreError as error:
            raise StoreError(f"{self.root} is of an older format and cannot be upgraded: {error}") from error

    def _version(self) -> int:
        """The store's format; `StoreVersionError` for one that is newer than this kvstore."""
        try:
            with self.tables() as con:
                received.refuse_strangers(con)
                row = con.execute("select version, created_by from store").fetchone()
        except duckdb.Error as error:
            raise StoreError(f"{self.catalog} is not the catalog of a store: {reason(error)}") from error
        version, by = row or (FORMAT, "")
        if version > FORMAT:
            raise StoreVersionError(
                f"{self.root} has format {version}, made by kvstore {by}; kvstore {__version__} reads up to "
                f"{FORMAT}: pip install -U kvstore"
            )
        return int(version)

    def _sweep(self) -> None:
        """Remove what killed publishers left: under the lock, every copy is a dead process's."""
        for leftover in self.root.glob(f"{self.catalog.name}.*.tmp*"):
            leftover.unlink(missing_ok=True)
        # We never write the published file in place. A log beside it is another tool's and fits no new file.
        Path(f"{self.catalog}.wal").unlink(missing_ok=True)

    def _optimize(self, run_id: str) -> None:
        from kvstore import vectors
        from kvstore.vectors.schema import KEY_MOMENT

        named: dict[str, int] = next((run["versions"] for run in self.runs() if run["run_id"] == run_id), {})
        for kind, version in named.items():  # a new version of what is broken would pass for whole
            vectors.opened(self.lance, run_id, kind, {kind: version})
        # What a killed ingest left in Lance alone must go before compaction makes it part of the run.
        vectors.rewind(self.lance, run_id, named)
        versions: dict[str, int] = vectors.optimize(self.lance, run_id, [*named, KEY_MOMENT])
        with self.publish() as con:
            con.execute(
                "update run set versions = map($tables::varchar[], $versions::bigint[]) where run_id = $run",
                {"tables": list(versions), "versions": list(versions.values()), "run": run_id},
            )

    def _tables(self) -> list[tuple[str, Path]]:
        """Every Lance table's run and folder. Run names may have dots, names of tables have none."""
        folders = sorted(self.lance.glob("*.*.lance"))
        return [(folder.name.removesuffix(".lance").rpartition(".")[0], folder) for folder in folders]

    def _tables_of(self, run_id: str) -> list[Path]:
        return [folder for owner, folder in self._tables() if owner == run_id]

    def _remove_tables(self, run_id: str) -> None:
        pins.remove(self.lance, run_id)
        for folder in self._tables_of(run_id):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_orphans(self) -> dict[str, str]:
        """Remove the tables of no run that were dropped long enough ago; what was done, by their run."""
        done = {}
        for run_id in sorted({owner for owner, _ in self._tables()} - {run["run_id"] for run in self.runs()}):
            try:
                with self.hold(run_id):
                    # An ingest that has just started may have published its run meanwhile.
                    if run_id not in {run["run_id"] for run in self.runs()}:
                        done[run_id] = self._remove_dropped(run_id)
            except (StoreBusyError, UsageError):
                continue
        return done

    def _remove_dropped(self, run_id: str) -> str:
        from kvstore.vectors import KEEP

        dropped = max(folder.stat().st_mtime for folder in self._tables_of(run_id))
        until = datetime.fromtimestamp(dropped) + KEEP
        if datetime.now() < until:
            return f"dropped; kept for its readers until {until:%Y-%m-%d %H:%M}"
        self._remove_tables(run_id)
        return "removed"


def usable(root: Path) -> Path:
    """The path; `StoreError` for one that DuckDB (`?`) or Lance cannot take, and for a link to nothing."""
    unfit = next((c for c in str(root) if c == "?" or unicodedata.category(c) in ("Cc", "Cs")), None)
    if unfit:
        raise StoreError(
            f"{root} cannot be a store's path: DuckDB and Lance take no '{printable(unfit)}'; name another"
        )
    if root.is_symlink() and not root.exists():
        raise StoreError(f"{root} is a link to {root.readlink()}, which is not there; make that folder first")
    return root


def _own(path: Path) -> bool:
    """Is this what an unfinished making of a store leaves in its folder?"""
    return path.name in ("lance", "locks") or path.name.startswith("catalog.duckdb.")


def _remove_copy(copy: Path) -> None:
    for path in (copy, Path(f"{copy}.wal")):
        path.unlink(missing_ok=True)
