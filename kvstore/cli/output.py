"""The one writer of rows: table, csv, json or arrow, to stdout."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kvstore.cli import values
from kvstore.cli.ending import to_stdout
from kvstore.errors import UsageError
from kvstore.lines import in_json, printable

if TYPE_CHECKING:
    import pyarrow as pa

    from kvstore.cli.options import Format

#: Rows and characters of a cell that a table shows. The other formats are never cut.
MAX_ROWS, MAX_WIDTH = 100, 60


def write(rows: pa.RecordBatchReader | pa.Table, fmt: Format) -> None:
    """Print rows as they come; a note on stderr says when a table was cut."""
    names = _distinct(rows.schema.names)
    with to_stdout(), values.shown(rows, text=fmt != "arrow") as found:
        if fmt == "arrow":
            return _arrow(found)
        if fmt == "csv":
            return _csv(names, _rows(found))
        if fmt == "json":
            return _json(names, _rows(found))
        return _table(names, _rows(found))


def write_records(records: Iterable[Mapping[str, Any]], columns: Sequence[str], fmt: Format) -> None:
    """The same for plain dicts, with the columns that they all have."""
    import pyarrow as pa

    listed = list(records)
    write(pa.table({name: [record[name] for record in listed] for name in columns}), fmt)


def _rows(rows: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in rows:
        columns = values.columns(batch)
        yield from zip(*columns, strict=True) if columns else ()


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names that can be keys: a repeated one gets _1, _2, ..."""
    taken: dict[str, int] = {}
    result = []
    for name in names:
        count = taken.get(name, 0)
        taken[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def _arrow(rows: pa.RecordBatchReader) -> None:
    import pyarrow as pa

    if sys.stdout.isatty():
        raise UsageError("arrow is binary; send it to a file or a pipe: ... --format arrow > rows.arrow")
    with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as sink:
        for batch in rows:
            sink.write_batch(batch)


class _Lines:
    """Rows of CSV on stdout, ended as Unix ends lines; a cell with a carriage return is quoted, too."""

    def write(self, row: str) -> None:
        sys.stdout.write(row.removesuffix("\r\n") + "\n")


def _csv(names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    writer = csv.writer(_Lines(), lineterminator="\r\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([values.as_cell(value) for value in row])


def _json(names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """One array of objects, an object a line."""
    opening, shown = "[", in_json if sys.stdout.isatty() else str
    for row in rows:
        print(opening + shown(values.as_json(dict(zip(names, row, strict=True)))), end="")
        opening = ",\n "
    print("]" if opening != "[" else "[]")


def _table(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    shown = list(itertools.islice(rows, MAX_ROWS))
    names = [_short(name) for name in names]
    cells = [[_short(value) for value in row] for row in shown]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [all(_is_number(row[i]) for row in shown) and bool(shown) for i in range(len(names))]
    for line in (names, ["-" * width for width in widths], *cells):
        padded = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        )
        print("  ".join(padded).rstrip())
    if next(rows, None) is not None:
        print(f"only the first {MAX_ROWS} rows are shown; --format csv prints all", file=sys.stderr)


def _short(value: object) -> str:
    """A cell for reading: few digits, long vectors and texts cut, nothing that a terminal would obey."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        head = ", ".join(_short(item) for item in value[:3])
        return f"[{head}, ... {len(value)}]"
    text = printable(values.as_cell(value))
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 3] + "..."


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))
