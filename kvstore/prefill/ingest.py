"""`kvstore ingest`: from a data set's files to a run's vectors, resumable at any moment.

Decoding runs ahead in threads, the prefill runs here, writing and committing run behind it; each stage has a
bounded amount in memory, so the data set's size does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from kvstore import datasets, devices, interrupts, models, prompting, vectors
from kvstore.contracts import Inputs, Layout, Site
from kvstore.errors import ImageError, UsageError
from kvstore.prefill import across, annotate, load, record
from kvstore.prefill.blocks import Blocks, Buffer, bytes_of, complaint, table_rows, widths
from kvstore.prefill.claim import claim
from kvstore.prefill.decode import Decoder, Ready
from kvstore.prefill.forecast import Forecast, forecast
from kvstore.prefill.forward import Engine, Prompt, batches
from kvstore.prefill.moments import KeyMoments, statistics
from kvstore.prefill.options import Options, settled
from kvstore.prefill.plan import Plan, shape_of, windows
from kvstore.prefill.rows import Stored
from kvstore.prefill.survey import Seen, survey
from kvstore.prefill.writing import BUFFERS, WRITERS, Window, Writer
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from kvstore.vectors.salvage import Promised, Salvaged, complaints, salvage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from kvstore.store import Store

#: Images in one forward pass unless --batch says, and padded tokens in one at most.
BATCH = {"cuda": 16, "cpu": 4}
BATCH_TOKENS = 16384


@dataclass
class Meter:
    """What a session has done so far; `changed` is called with the meter as it moves."""

    changed: Callable[[Meter], None] = lambda meter: None
    phase: str = "reading"
    total: int = 0
    done: int = 0
    images: int = 0
    tokens: int = 0
    bytes: int = 0
    quarantined: int = 0
    stage: str = ""
    started: float = field(default_factory=time.perf_counter)

    def enter(self, phase: str, total: int) -> None:
        """Begin a phase of `total` images."""
        self.phase, self.total, self.done, self.started = phase, total, 0, time.perf_counter()
        self.changed(self)

    def advance(self, count: int) -> None:
        """`count` more images are through the phase."""
        self.done += count
        self.changed(self)

    def speeds(self) -> dict[str, Any]:
        """The figures that table `run` keeps of a session."""
        seconds = time.perf_counter() - self.started
        return {
            "images_per_s": self.images / seconds,
            "tokens_per_s": self.tokens / seconds,
            "mb_per_s": self.bytes / 1e6 / seconds,
            "limiting_stage": self.stage,
        }


@dataclass(frozen=True)
class Outcome:
    """The end of a session: images stored in it, all that are in quarantine, and what the data set gave.

    salvaged   what of the run was lost, and made again in this session
    """

    run_id: str
    images: int
    already: int
    quarantined: int
    load: load.Report
    salvaged: Salvaged | None = None


def plan(options: Options) -> Plan:
    """Resolve what is asked for: data set, model (without its weights), layers, device, prompt."""
    device = devices.choose_device(options.device)
    dataset = datasets.load(
        options.dataset,
        options.root,
        options.split,
        options.limit,
        annotations=options.annotations,
        images=options.images,
        follow_links=options.follow_links,
    )
    model = models.load_config(options.model, trusted=options.trusted)
    options = settled(options, model)
    return Plan(
        options=options,
        dataset=dataset,
        dataset_fingerprint=datasets.fingerprint(dataset),
        model=model,
        shape=shape_of(options, model.description),
        device=device,
        dtype=devices.choose_dtype(options.dtype, device),
        head=() if model.is_encoder else tuple(prompting.prompt_ids(model, options.prefix)),
    )


def look(plan: Plan, meter: Meter) -> list[Seen]:
    """Survey the images asked for."""
    meter.enter("looking", len(plan.dataset.images))
    return survey(plan.dataset.images, plan.layout_of, workers(plan), meter.advance)


def workers(plan: Plan) -> int:
    """Decoding threads."""
    return plan.options.workers or max(2, min(16, torch.get_num_threads()))


def expect(plan: Plan, seen: Sequence[Seen], stored: set[str], store_root: Any) -> Forecast:
    """The forecast of what is not stored yet; `stored` holds sha256."""
    todo = [image for window in windows(seen, plan) for image in window if image.sha256 not in stored]
    return forecast(plan, todo, sum(image.fault is not None for image in seen), store_root)


def stored(store: Store, plan: Plan) -> set[str]:
    """sha256 of the images that the plan's run holds already."""
    with store.tables() as con:
        return record.stored(con, plan.fingerprint)


def ingest(store: Store, plan: Plan, seen: Sequence[Seen], meter: Meter) -> Outcome:
    """Bring every image of `seen` into the store that is not there yet.

    Raises `StoreBusyError` when another process works on the run, `NoSpaceError` when the disk will not do or
    fills up; what was committed stays, and the same call goes on from there.
    """
    expect(plan, seen, stored(store, plan), store.root).check(store.root)
    with claim(store, plan) as run_id:
        session = _Session(store, plan, run_id, seen, meter)
        try:
            session.run()
            return session.finish()
        except BaseException:
            with interrupts.shielded():
                session.interrupt()
            raise


class _Session:
    """One process's work on one run, which it holds."""

    def __init__(self, store: Store, plan: Plan, run_id: str, seen: Sequence[Seen], meter: Meter) -> None:
        self.store, self.plan, self.run_id, self.seen, self.meter = store, plan, run_id, seen, meter
        self.schemas = tables.schemas(plan.shape)
        self.image_of: dict[str, int] = {}
        self.have: set[int] = set()
        self.patches = 0
        self.began = time.perf_counter()
        self.writer: Writer | None = None
        self.salvaged: Salvaged | None = None
        self.miscounted = False
        self.moments = KeyMoments()
        self.prefill_seconds = 0.0

    def run(self) -> None:
        """Begin, prefill all that is missing, write and commit it."""
        self._begin()
        todo = [
            pending
            for window in windows(self.seen, self.plan)
            if (pending := [image for image in window if self.image_of[image.sha256] not in self.have])
        ]
        self.meter.enter("prefill", sum(map(len, todo)))
        if todo:
            self._prefill(todo)

    def interrupt(self) -> None:
        """Keep what is written; a full disk may leave even that undone, and the next session copes.

        The error that led here is the one to be told, whatever else fails meanwhile.
        """
        with suppress(Exception):
            if self.writer is not None:
                self.writer.close()
        with suppress(Exception), self.store.publish() as con:
            record.finish(con, self.run_id, "interrupted", time.perf_counter() - self.began, {})

    def finish(self) -> Outcome:
        """Index, keep the key sums, publish the statistics and the session's figures."""
        versions = vectors.optimize(self.store.lance, self.run_id, self.schemas, compact=False)
        if self.plan.shape.key:
            self.moments.save(self.store.lance, self.run_id, self.patches)
        figures = self.meter.speeds() if self.meter.images else {}
        with self.store.publish() as con:
            record.set_versions(con, self.run_id, versions)
            if self.plan.shape.key:
                made = statistics(self.moments, self.plan.shape.layers, len(self.plan.head))
                record.key_stat(con, self.run_id, made)
            record.finish(con, self.run_id, "done", time.perf_counter() - self.began, figures)
            row = con.execute(
                "select count(*) from quarantine where run_id = $r", {"r": self.run_id}
            ).fetchone()
            report = load.report(con, record.dataset_id(con, self.plan))
        quarantined = int(row[0]) if row else 0
        return Outcome(self.run_id, self.meter.images, len(self.have), quarantined, report, self.salvaged)

    # ------------------------------------------------------------------------------- beginning

    def _begin(self) -> None:
        """The run's tables as the catalog knows them; then the catalog with the run and its images."""
        versions = self._tables()
        rows, self.seen = annotate.collect(self.plan.dataset, self.seen, self._annotated())
        sifted = across.sift(self.plan.dataset)
        with self.store.publish() as con:
            self._take_back(con)
            record.begin(con, self.plan, self.run_id, self.seen, versions)
            dataset = record.dataset_id(con, self.plan)
            self.image_of = dict(con.execute("select sha256, image_id from image").fetchall())
            current = {s.name: self.image_of[s.sha256] for s in self.seen if s.layout is not None}
            annotate.store(con, dataset, rows, sifted, current)
        reader = vectors.Reader(self.store.lance, self.run_id)
        self.have = set(reader.image_ids)
        self.patches = sum(patches for _, patches in reader.spans.values())
        if self.plan.shape.key:
            self._load_moments(reader)

    def _tables(self) -> dict[str, int]:
        """Make the Lance tables, or bring them to what the catalog says of them; their versions.

        Commits that it never heard of are taken back; where some that it names are lost, images go with them.
        """
        lance, run_id = self.store.lance, self.run_id
        run = next((run for run in self.store.runs() if run["run_id"] == run_id), None)
        if run is None:
            return write.begin(lance, run_id, self.schemas)
        with self.store.tables() as con:
            patches = record.patches(con, run_id)
        promised = Promised(run_id, run["versions"], self.plan.shape, patches)
        if lost := complaints(lance, promised):
            self.salvaged = salvage(lance, promised, lost)
        due = sum(patches.values()) * table_rows(Layout((), 1), self.plan.shape)
        self.miscounted = self.salvaged is not None or run["rows"] != due
        versions = self.salvaged.versions if self.salvaged else vectors.rewind(lance, run_id, run["versions"])
        return versions | write.create(lance, run_id, self.schemas)

    def _take_back(self, con: DuckDBPyConnection) -> None:
        """What the catalog says of images that are lost; and counts that are of other images than it has."""
        if self.salvaged:
            record.forget(con, self.run_id, self.salvaged.gone)
            con.execute("update run set versions = map() where run_id = $run", {"run": self.run_id})
        if self.miscounted:
            record.recount(con, self.plan, self.run_id)

    def _annotated(self) -> set[tuple[str, str]]:
        """Names and contents of this data set's images that are annotated already."""
        with self.store.tables() as con:
            rows = con.execute(
                "select dataset_image.name, sha256 from dataset_image join image using (image_id) "
                "join dataset using (dataset_id) where fingerprint = $f",
                {"f": self.plan.dataset_fingerprint},
            ).fetchall()
        return {(name, sha256) for name, sha256 in rows}

    def _load_moments(self, reader: vectors.Reader) -> None:
        """The sums as kept, and the keys stored since by a session that was killed before keeping its own."""
        shape = self.plan.shape
        self.moments, covered = KeyMoments.load(
            self.store.lance, self.run_id, len(shape.layers), shape.heads, self.patches, self.plan.memory
        )
        with self.store.tables() as con:
            layouts = record.layouts(con, self.run_id, len(self.plan.head))
        good = torch.ones((), dtype=torch.bool, device=self.plan.memory)
        for image_id, (first, _) in reader.spans.items():
            if first >= covered:
                keys = torch.stack([torch.tensor(reader.site("key", n, image_id)) for n in shape.layers])
                self.moments.add(layouts[image_id], keys.to(self.plan.memory), good)

    # ------------------------------------------------------------------------------- prefilling

    def _prefill(self, todo: list[list[Seen]]) -> None:
        plan = self.plan
        model = models.with_weights(plan.model, plan.device, plan.dtype)
        prompt = Prompt(plan.head, model.image_token_id)
        engine = Engine(model.model, model.family, prompt, plan.shape, plan.options.pool, self.moments)
        pinned = plan.memory != "cpu"
        buffers = [Buffer(plan.shape, "cpu", pinned) for _ in range(BUFFERS)]
        layers: dict[Site, tuple[int, ...]] = dict.fromkeys(widths(plan.shape), plan.shape.layers) | {
            "input": (0,),
            "encoder": plan.shape.encoder_layers,
        }
        self.writer = Writer(self.store.lance, self.run_id, self.schemas, layers, buffers, self._publish)
        decoder = Decoder(plan, workers(plan))
        running: _Running | None = None
        for ready in decoder.windows(todo):
            launched = self._launch(engine, ready, self.writer.buffer())
            if running is not None:
                self._hand_over(running)
            running = launched
            self._judge(decoder)
        if running is not None:
            self._hand_over(running)
        self.writer.close()
        self._judge(decoder)

    def _launch(self, engine: Engine, ready: list[Ready], buffer: Buffer) -> _Running:
        start = time.perf_counter()
        good = [(seen, made) for seen, made in ready if not isinstance(made, ImageError)]
        faults = [(seen, made) for seen, made in ready if isinstance(made, ImageError)]
        inputs = [made for _, made in good]
        blocks = buffer.blocks([self.plan.stored(item.layout) for item in inputs])
        most = self.plan.options.batch or BATCH[self.plan.memory.partition(":")[0]]
        for group in batches(inputs, most, BATCH_TOKENS):
            try:
                engine.run([inputs[i] for i in group], [blocks[i] for i in group])
            except torch.OutOfMemoryError as error:
                raise UsageError(
                    f"{self.plan.device} is out of memory; try --batch {len(group) // 2 or 1}."
                ) from error
        self.prefill_seconds += time.perf_counter() - start
        return _Running(buffer, good, faults, blocks, engine.mark())

    def _hand_over(self, running: _Running) -> None:
        """Wait for a window's vectors, sort out what is not finite, and give the rest to the writer."""
        start = time.perf_counter()
        running.wait()
        self.prefill_seconds += time.perf_counter() - start
        progress = record.Progress(
            faults=[(seen.name, seen.position, e.reason, e.detail) for seen, e in running.faults]
        )
        images: list[Stored] = []
        for (seen, inputs), blocks in zip(running.good, running.blocks, strict=True):
            fault = complaint(blocks, self.plan.shape)
            if fault:
                progress.faults.append((seen.name, seen.position, *fault))
                continue
            image_id = self.image_of[seen.sha256]
            images.append((image_id, self.patches, blocks))
            self.patches += blocks.layout.patches
            self._count(progress, image_id, inputs, blocks)
        assert self.writer is not None
        self.writer.put(Window(running.buffer, images, progress))
        self.meter.images += len(images)
        self.meter.tokens += progress.tokens
        self.meter.bytes += progress.bytes
        self.meter.quarantined += len(progress.faults)
        self.meter.advance(len(running.good) + len(running.faults))

    def _count(self, progress: record.Progress, image_id: int, inputs: Inputs, blocks: Blocks) -> None:
        head, shape = len(self.plan.head), self.plan.shape
        progress.grids += record.grids(self.run_id, image_id, blocks.layout, head)
        progress.tokens += head + inputs.layout.tokens
        progress.rows += table_rows(blocks.layout, shape)
        progress.bytes += bytes_of(blocks.layout, shape)

    def _publish(self, progress: record.Progress, versions: dict[str, int]) -> None:
        with self.store.publish() as con:
            record.commit(con, self.run_id, progress, versions)

    def _judge(self, decoder: Decoder) -> None:
        """Name the stage that the others wait for: the one whose threads are busy the most."""
        assert self.writer is not None
        busy = {
            "decode": decoder.busy / decoder.workers,
            "prefill": self.prefill_seconds,
            "write": self.writer.busy / WRITERS,
        }
        self.meter.stage = max(busy, key=lambda stage: busy[stage])


@dataclass(frozen=True)
class _Running:
    """A window that the device may still be working on."""

    buffer: Buffer
    good: list[tuple[Seen, Inputs]]
    faults: list[tuple[Seen, ImageError]]
    blocks: list[Blocks]
    wait: Callable[[], None]
