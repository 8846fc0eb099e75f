"""Vectors of texts, stored beside a run's image vectors: text values, or what a text tower makes of texts.

A text is prefilled by the run's model in the run's dtype, as a run's prefix is: at the beginning of a user
turn, without an image; the run's own prefix is left out. Its vectors are those of its own last token, at each
layer and KV head that the run stores of its images, as float16 (table `text_kv`); and what enters the model
at that token, an embedding that knows of no other (table `text_input`), to compare with the input visual
representation. Keys carry the rotary embedding of the token's position.

A vision encoder alone reads no prompt. Where it has a text tower, a text's vector is what the family's
`texts` makes of it (table `text_encoder`): one, to compare with the hidden states of every layer.

Each text is read once a run. Texts go in batches of like length, `CHUNK` of them are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore import pins
from kvstore.contracts import Site
from kvstore.errors import ModelError, UsageError
from kvstore.progress import track
from kvstore.vectors import schema as tables

if TYPE_CHECKING:
    import torch

    from kvstore.models import Loaded
    from kvstore.store import Store

#: Texts of one commit: at most so many are held (57 kB each of a 7B model), and lost by a kill.
CHUNK = 512
#: A batch has at most so many tokens, padding included.
MOST_TOKENS = 4096
#: Texts that a text tower takes at a time: of the 64 tokens that SigLIP pads to, as many tokens.
AT_ONCE = 64

Array = np.ndarray[Any, Any]

_RUN = """
select r.sites, r.layers, r.dtype, r.versions, m.source, m.revision, m.layers = 0
from run r join model m using (model_id)
where r.run_id = $run
"""
_NOTE = """
update run set versions = map_concat(versions, map($kinds::varchar[], $numbers::bigint[]))
where run_id = $run
"""


def fill(
    store: Store, run_id: str, texts: Iterable[str], device: str | None = None, *, trusted: bool = False
) -> int:
    """Make the vectors of the texts that the run does not store yet; how many they were.

    The model is loaded only where a text is missing, `trusted` as `kvstore.models.load_config` says.

    Raises `ModelError` when the run's model cannot be had or is another by now, `StoreBusyError` while the
    run is being ingested, `UsageError` for a text that holds the image's placeholder, and for a vision
    encoder alone without a text tower.
    """
    from kvstore.vectors import write
    from kvstore.vectors.salvage import salvage_texts

    wanted, run = sorted(set(texts)), _Run.of(store, run_id)
    if not run.missing(wanted) and run.committed().items() <= run.versions.items():
        return 0
    with store.hold(run_id):
        run = _Run.of(store, run_id)
        salvage_texts(store.lance, run_id)
        missing = run.missing(wanted)
        if missing:
            _make(run, missing, device, trusted=trusted)
        found = write.settled(store.lance, run_id, run.kinds)
        with store.publish() as con:
            con.execute(_NOTE, {"run": run_id, "kinds": list(found), "numbers": list(found.values())})
    return len(missing)


def read(store: Store, run_id: str, site: Site, layer: int, texts: Sequence[str]) -> Array:
    """Vectors of stored texts, each named once, to compare with a site's at a layer.

    float16 [heads, texts, width]; heads is 1 for input, whose layer is 0, and for the encoder, at any layer.
    """
    from kvstore import vectors

    kind, column = tables.text_column_of(site)
    by_head = kind == tables.TEXT_KV
    versions = vectors.named(store.lance, run_id)
    found = vectors.opened(store.lance, run_id, kind, versions).to_table(
        columns=["text", "head", column] if by_head else ["text", column],
        filter=f"layer = {layer}" if by_head else None,
    )
    flat = found[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    head = found["head"].to_numpy() if by_head else np.zeros(len(found), np.int16)
    row = {key: at for at, key in enumerate(zip(head.tolist(), found["text"].to_pylist(), strict=True))}
    rows = [[row[number, text] for text in texts] for number in range(int(head.max()) + 1)]
    return np.asarray(flat.reshape(len(found), -1)[np.array(rows)])


# --------------------------------------------------------------------------------------- what is there


@dataclass(frozen=True, slots=True)
class _Run:
    """What of a run decides its texts' vectors, and the versions of its tables that the catalog knows."""

    store: Store
    run_id: str
    sites: tuple[Site, ...]
    layers: tuple[int, ...]
    dtype: str
    versions: Mapping[str, int]
    model: str
    revision: str
    is_encoder: bool

    @classmethod
    def of(cls, store: Store, run_id: str) -> _Run:
        with store.tables() as con:
            sites, layers, *rest = con.execute(_RUN, {"run": run_id}).fetchall()[0]
        return cls(store, run_id, tuple(sites), tuple(layers), *rest)

    @property
    def columns(self) -> dict[str, list[Site]]:
        """The tables of texts that go with what the run stores, and the sites that each serves."""
        if self.is_encoder:
            return {tables.TEXT_ENCODER: ["encoder"]}
        kept: list[Site] = [site for site in ("key", "value") if site in self.sites]
        found: dict[str, list[Site]] = {tables.TEXT_KV: kept} if kept else {}
        return found | ({tables.TEXT_INPUT: ["input"]} if "input" in self.sites else {})

    @property
    def kinds(self) -> tuple[str, ...]:
        """All tables of texts that the run may have, that of their checksums among them."""
        return (*self.columns, tables.TEXT_CHECKSUM)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The texts that some table lacks."""
        there = [self.texts(kind) for kind in self.columns]
        return [text for text in texts if not all(text in some for some in there)]

    def texts(self, kind: str) -> frozenset[str]:
        """The texts in a table."""
        from kvstore.vectors import whole

        table = whole.newest(tables.location(self.store.lance, self.run_id, kind))
        return frozenset(table.to_table(columns=["text"])["text"].to_pylist() if table else ())

    def committed(self) -> dict[str, int]:
        """The newest versions of the tables that are there."""

        paths = {kind: tables.location(self.store.lance, self.run_id, kind) for kind in self.kinds}
        return {kind: found[0] for kind, path in paths.items() if (found := pins.versions(path))}


# ---------------------------------------------------------------------------------------------- making


def _make(run: _Run, texts: Sequence[str], device: str | None, *, trusted: bool) -> None:
    """Make the vectors of texts and commit their rows, chunk by chunk, to the tables that lack them."""
    from kvstore import models

    loaded = models.load_again(run.model, run.revision, run.run_id, device, run.dtype, trusted=trusted)
    made = _embedded(loaded, texts) if run.is_encoder else _prefilled(loaded, texts, run)
    have = {kind: run.texts(kind) for kind in run.columns}
    with track("texts", len(texts), "text") as advance:
        for chunk, vectors in made:
            _check(chunk, vectors)
            for kind, sites in run.columns.items():
                new = [at for at, text in enumerate(chunk) if text not in have[kind]]
                _append(run, kind, [chunk[at] for at in new], {site: vectors[site][new] for site in sites})
            advance(len(chunk))


def _prefilled(
    loaded: Loaded, texts: Sequence[str], run: _Run
) -> Iterator[tuple[list[str], dict[Site, Array]]]:
    """Chunks of texts, the short ones first, and the vectors of their last tokens."""
    ids = sorted(((_ids(loaded, text), text) for text in texts), key=lambda pair: (len(pair[0]), pair[1]))
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        made = [_last(loaded, batch, run) for batch in _batches([row for row, _ in chunk])]
        yield (
            [text for _, text in chunk],
            {site: np.concatenate([batch[site] for batch in made]) for site in made[0]},
        )


def _embedded(loaded: Loaded, texts: Sequence[str]) -> Iterator[tuple[list[str], dict[Site, Array]]]:
    """Chunks of texts, and what the family's text tower makes of them: [texts, width]."""
    import torch

    _check_tower(loaded)
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        batches = [chunk[at : at + AT_ONCE] for at in range(0, len(chunk), AT_ONCE)]
        with torch.inference_mode():
            made = [loaded.family.texts(loaded.model, loaded.tokenizer, batch) for batch in batches]
        yield chunk, {"encoder": torch.cat(made).half().cpu().numpy()}


def _check_tower(loaded: Loaded) -> None:
    """Raises `UsageError` where there is no text tower: of the family, or among these weights."""
    if not (hasattr(loaded.family, "texts") and hasattr(loaded.config, "text_config")):
        raise UsageError(
            f"model '{loaded.name}' ({type(loaded.model).__name__}) has no text tower, so its encoder cannot"
            " be compared with texts; use a run of one with both towers, as tiny-encoder"
        )


def _ids(loaded: Loaded, text: str) -> list[int]:
    """Token ids of a user turn that begins with a text, up to its last token."""
    from kvstore import prompting

    ids = prompting.prompt_ids(loaded, text)
    start = loaded.tokenizer(loaded.family.IMAGE_START, add_special_tokens=False)["input_ids"]
    return ids[: len(ids) - len(start)]


def _batches(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Consecutive rows, no shorter than those before, of which a padded batch holds `MOST_TOKENS` tokens."""
    batch: list[list[int]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > MOST_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _last(loaded: Loaded, rows: Sequence[list[int]], run: _Run) -> dict[Site, Array]:
    """Vectors of each row's last token: float16, input [rows, width], others [rows, layers, heads, width].

    Rows are padded on the right: attention is causal, so what follows a token does not change it.
    """
    import torch

    from kvstore.prefill.capture import prefill

    device = loaded.model.device
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    each, last = (
        torch.arange(len(rows), device=device),
        torch.tensor([len(row) - 1 for row in rows]).to(device),
    )
    keys, values = [], []

    def sink(layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        keys.append(key[each, :, last])  # [rows, heads, width]
        values.append(value[each, :, last])

    with torch.inference_mode():
        embeds = loaded.model.get_input_embeddings()(ids)
        if tables.TEXT_KV in run.columns:
            positions = torch.arange(ids.shape[1], device=device)[None]
            prefill(loaded.model.model.language_model, embeds, positions, run.layers, sink)
    found: dict[Site, Array] = {"input": embeds[each, last].half().cpu().numpy()}
    made: dict[Site, list[torch.Tensor]] = {"key": keys, "value": values}
    return found | {site: torch.stack(some, 1).half().cpu().numpy() for site, some in made.items() if some}


def _check(texts: Sequence[str], vectors: Mapping[Site, Array]) -> None:
    for site, array in vectors.items():
        good = np.isfinite(array).reshape(len(texts), -1).all(1)
        if not good.all():
            raise ModelError(
                f"the {site} of text '{texts[int(good.argmin())]}' is not finite, or too large for float16;"
                " a run of another --dtype may do"
            )


def _append(run: _Run, kind: str, texts: Sequence[str], vectors: Mapping[Site, Array]) -> None:
    """Commit rows of texts to a table, which is made where it is not there."""
    from kvstore.vectors import write
    from kvstore.vectors.checksums import of_texts

    if not texts:
        return
    columns = {tables.text_column_of(site)[1]: array for site, array in vectors.items()}
    schema = tables.text_schema(kind, {name: array.shape[-1] for name, array in columns.items()})
    rows = _rows(schema, run, texts, columns)
    sums = [{"text": text, "kind": kind, "sum": number} for text, number in of_texts([rows])]
    kept = pa.RecordBatch.from_pylist(sums, tables.TEXT_CHECKSUMS)
    for name, batch in ((tables.TEXT_CHECKSUM, kept), (kind, rows)):  # no row is there without its checksum
        write.create(run.store.lance, run.run_id, {name: batch.schema})
        path = tables.location(run.store.lance, run.run_id, name)
        write.commit(path, write.write_fragment(path, batch.schema, [batch]))


def _rows(schema: pa.Schema, run: _Run, texts: Sequence[str], columns: Mapping[str, Array]) -> pa.RecordBatch:
    """Rows text by text; vectors are [texts, width] or [texts, layers, heads, width]."""
    from kvstore.vectors import write

    shape = next(iter(columns.values())).shape[:-1]
    place = np.indices(shape).reshape(len(shape), -1)
    axes = {"text": pa.array(texts, pa.string()).take(pa.array(place[0]))}
    if len(shape) > 1:
        axes["layer"] = pa.array(np.array(run.layers, np.int16)[place[1]])
        axes["head"] = pa.array(place[2].astype(np.int16))
    made = {name: write.vectors(array.reshape(-1, array.shape[-1])) for name, array in columns.items()}
    return pa.record_batch({**axes, **made}, schema=schema)
