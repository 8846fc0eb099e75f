"""Values that SQL has and Python, JSON or Arrow lack, as the DuckDB command line shows them.

Dates of any year, infinite ones, moments, intervals, bits, blobs, enums, unions and keys of maps become
DuckDB's own text; numbers stay numbers, with all their digits. (A uhugeint is text: Arrow has no such number,
and DuckDB hands the largest on as -1.) JSON has no number for infinity and NaN: there they are the texts
"Infinity", "-Infinity" and "NaN".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: DuckDB's types that arrive in Python as they are; lists, structs and maps of them, too.
_PLAIN = {"boolean", "float", "double", "varchar", "decimal", "hugeint", "bigint", "integer", "smallint"}
_PLAIN |= {"tinyint", "ubigint", "uinteger", "usmallint", "utinyint", '"null"'}
#: What Arrow itself has no type for.
_NO_ARROW = {"uhugeint", "time with time zone", "bit", "bignum"}


def shown(rows: pa.RecordBatchReader | pa.Table, *, text: bool) -> pa.RecordBatchReader:
    """The rows with values that Python (`text`) or Arrow can hold; all others as DuckDB's text.

    Of DuckDB's results they are to be read with `arrow_lossless_conversion`; else a time's zone is lost.
    """
    import duckdb
    import pyarrow as pa

    names = [f"c{place}" for place in range(len(rows.schema))]  # their own may be there twice
    numbers = pa.schema([field.with_name(name) for field, name in zip(rows.schema, names, strict=True)])
    con = duckdb.connect(":memory:")
    zones = {str(field.type.tz) for field in rows.schema if getattr(field.type, "tz", None)}
    for zone in zones:  # show moments in the zone that they were asked for in
        con.execute("set timezone = $zone", {"zone": zone})

    def made(*some: pa.RecordBatch) -> pa.Table:
        numbered = [batch.rename_columns(names) for batch in some]
        found = con.from_arrow(pa.RecordBatchReader.from_batches(numbers, numbered))
        kinds = zip(names, found.types, strict=True)
        casts = ", ".join(f"cast({name} as {_target(kind, text=text)}) as {name}" for name, kind in kinds)
        return found.project(casts).to_arrow_table().rename_columns(rows.schema.names)

    def batches() -> Iterator[pa.RecordBatch]:
        with con:
            for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
                yield from made(batch).to_batches()

    return pa.RecordBatchReader.from_batches(made().schema, batches())


def _target(kind: Any, *, text: bool) -> str:
    """The type that a value of DuckDB's type `kind` is cast to."""
    if kind.id in ("list", "array"):
        child = kind.children[0][1]
        inner = _target(child, text=text)
        return str(kind) if inner == str(child) else f"{inner}[]"
    if kind.id == "struct":
        fields = [f"{_quoted(name)} {_target(child, text=text)}" for name, child in kind.children]
        return f"struct({', '.join(fields)})"
    if kind.id == "map":
        (_, key), (_, value) = kind.children
        return f"map({'varchar' if text else _target(key, text=text)}, {_target(value, text=text)})"
    kept = kind.id in _PLAIN if text else kind.id not in _NO_ARROW
    return str(kind) if kept else "varchar"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def columns(batch: pa.RecordBatch) -> list[list[Any]]:
    """Python values of a batch that is `shown` as text, column by column."""
    return [_column(column) for column in batch.columns]


def _column(column: pa.Array) -> list[Any]:
    """Python values; a float32 by its own shortest text, 0.1 and not 0.10000000149."""
    import pyarrow as pa

    if pa.types.is_float32(column.type):
        return [None if text is None else float(text) for text in column.cast(pa.string()).to_pylist()]
    kind = column.type
    values: list[Any] = column.to_pylist()
    return [_keyed(value, kind) for value in values] if pa.types.is_nested(kind) else values


def _keyed(value: Any, kind: pa.DataType) -> Any:
    """A nested value, each map in it a dict and not Arrow's list of pairs."""
    import pyarrow as pa

    if value is None or not pa.types.is_nested(kind):
        return value
    if pa.types.is_map(kind):
        return {key: _keyed(item, kind.item_type) for key, item in value}
    if pa.types.is_struct(kind):
        return {field.name: _keyed(value[field.name], field.type) for field in kind}
    return [_keyed(item, kind.value_type) for item in value] if pa.types.is_nested(kind.value_type) else value


def as_json(value: Any) -> str:
    """One value as valid JSON."""
    if isinstance(value, float):
        return json.dumps(value) if math.isfinite(value) else f'"{_infinite(value)}"'
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_json(key)}: {as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def as_cell(value: Any) -> str:
    """One value as the text of a cell: nothing for null, what is nested as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return as_json(value)
    return format(value, "f") if isinstance(value, Decimal) else str(value)
