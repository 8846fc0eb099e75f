"""Names and Arrow schemas of a run's Lance tables.

``image_id`` is stored as int64: DuckDB's ``lance`` extension compares ids as int64, and on a narrower column
the comparison is a cast that no zone map serves (measured: 43 ms instead of 11 ms for one block of 32 images,
and growing with the store). Lance bit-packs ids, so the wider type costs no bytes.

Vectors are stored raw, one after another ("full zip" without compression): random float16 does not compress,
and a block of consecutive rows is then one contiguous stretch of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kvstore import pins
from kvstore.contracts import Site

PATCH_KV = "patch_kv"
POOLED_KV = "pooled_kv"
PATCH_INPUT = "patch_input"
PATCH_ENCODER = "patch_encoder"
TEXT_KV = "text_kv"
TEXT_INPUT = "text_input"
TEXT_ENCODER = "text_encoder"
#: Internal: one row per image, where its patches lie in the run's tables.
PATCH_SPAN = "patch_span"
#: Internal: one row per image and table, the checksum of its rows there (see `kvstore.vectors.checksums`).
CHECKSUM = "checksum"
#: Internal: one row per text and table of texts, the checksum of its rows there.
TEXT_CHECKSUM = "checksum_text"
#: Internal: sums over images of each key position, from which key_stat is made.
KEY_MOMENT = "key_moment"

#: Vectors of images that people query; the views of the catalog have these names.
PUBLIC = (PATCH_KV, POOLED_KV, PATCH_INPUT, PATCH_ENCODER)
#: The tables of a run's images.
OF_IMAGES = (PATCH_SPAN, *PUBLIC, CHECKSUM)
#: Vectors of texts, made where a probe asks for them; views, too.
TEXTS = (TEXT_KV, TEXT_INPUT, TEXT_ENCODER)

#: Tables with a row per patch: nearly all bytes are theirs.
LARGE = frozenset((PATCH_KV, PATCH_INPUT, PATCH_ENCODER))

#: Lance file format; the fastest to write of those measured, when fed in small batches.
FORMAT = "2.2"

_RAW = {"lance-encoding:structural-encoding": "fullzip", "lance-encoding:compression": "none"}
_IMAGE = pa.field("image_id", pa.int64(), nullable=False)
_LAYER = pa.field("layer", pa.int16(), nullable=False)
_HEAD = pa.field("head", pa.int16(), nullable=False)
_PATCH = pa.field("patch", pa.int32(), nullable=False)
_TEXT = pa.field("text", pa.string(), nullable=False)


@dataclass(frozen=True, slots=True)
class Shape:
    """The widths and layers of a run's vectors; 0 or empty where a site is not stored."""

    layers: tuple[int, ...]
    heads: int
    key: int
    value: int
    input: int
    encoder: int
    encoder_layers: tuple[int, ...]

    def metadata(self) -> dict[bytes, bytes]:
        """The order of rows within an image, kept in each table's Arrow schema."""
        return {
            b"kvstore.layers": ",".join(map(str, self.layers)).encode(),
            b"kvstore.heads": str(self.heads).encode(),
            b"kvstore.encoder_layers": ",".join(map(str, self.encoder_layers)).encode(),
        }


def rows_in(kind: str, patches: int, blocks: int, encoder_layers: int) -> int:
    """Rows that an image of so many patches has in a table of images; `blocks` are its layers x heads."""
    return {
        PATCH_SPAN: 1,
        PATCH_KV: patches * blocks,
        POOLED_KV: blocks,
        PATCH_INPUT: patches,
        PATCH_ENCODER: patches * encoder_layers,
    }[kind]


def location(lance: Path, run_id: str, kind: str) -> Path:
    """A table's folder; `StoreError` for names that leave `lance`."""
    return lance / pins.table(run_id, kind)


def _vector(column: str, width: int) -> pa.Field:
    return pa.field(column, pa.list_(pa.field("item", pa.float16(), nullable=False), width), False, _RAW)


def _vectors(widths: Iterable[tuple[str, int]]) -> list[pa.Field]:
    return [_vector(column, width) for column, width in widths if width]


def schemas(shape: Shape) -> dict[str, pa.Schema]:
    """The tables of a run of this shape, by kind; those of sites that are not stored are left out."""
    key_value = [("key", shape.key), ("value", shape.value)]
    norms = [pa.field(f"{site}_norm", pa.float32(), False) for site, width in key_value if width]
    columns: dict[str, list[pa.Field]] = {PATCH_SPAN: _SPAN}
    if shape.key or shape.value:
        columns[PATCH_KV] = [_IMAGE, _LAYER, _HEAD, _PATCH, *_vectors(key_value)]
        columns[POOLED_KV] = [_IMAGE, _LAYER, _HEAD, *_vectors(key_value), *norms]
    if shape.input:
        columns[PATCH_INPUT] = [_IMAGE, _PATCH, _vector("feature", shape.input)]
    if shape.encoder:
        columns[PATCH_ENCODER] = [_IMAGE, _LAYER, _PATCH, _vector("feature", shape.encoder)]
    made = {kind: pa.schema(fields, shape.metadata()) for kind, fields in columns.items()}
    return made | {CHECKSUM: CHECKSUMS}  # the last: it is of the others


def text_schema(kind: str, widths: Mapping[str, int]) -> pa.Schema:
    """One of the tables of `TEXTS`, with vector columns of these names and widths."""
    axes = [_TEXT, _LAYER, _HEAD] if kind == TEXT_KV else [_TEXT]
    return pa.schema([*axes, *_vectors(widths.items())])


#: Schema of table ``checksum``.
CHECKSUMS = pa.schema(
    [_IMAGE, pa.field("kind", pa.string(), nullable=False), pa.field("sum", pa.uint64(), nullable=False)]
)
#: Schema of table ``checksum_text``.
TEXT_CHECKSUMS = pa.schema(
    [_TEXT, pa.field("kind", pa.string(), nullable=False), pa.field("sum", pa.uint64(), nullable=False)]
)
_SPAN = [
    _IMAGE,
    pa.field("first_patch", pa.int64(), False),  # patches stored before this image
    pa.field("patches", pa.int32(), False),
]


def column_of(site: Site) -> tuple[str, str]:
    """Where a site is stored: table kind and column."""
    places: Mapping[Site, tuple[str, str]] = {
        "key": (PATCH_KV, "key"),
        "value": (PATCH_KV, "value"),
        "input": (PATCH_INPUT, "feature"),
        "encoder": (PATCH_ENCODER, "feature"),
    }
    return places[site]


def text_column_of(site: Site) -> tuple[str, str]:
    """Where the vectors of texts stand that are compared with a site's: table kind and column."""
    places: Mapping[Site, tuple[str, str]] = {
        "key": (TEXT_KV, "key"),
        "value": (TEXT_KV, "value"),
        "input": (TEXT_INPUT, "feature"),
        "encoder": (TEXT_ENCODER, "feature"),
    }
    return places[site]
