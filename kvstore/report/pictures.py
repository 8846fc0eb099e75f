"""Images for galleries: read again from their data sets, the same bytes or none, and made small."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kvstore import datasets, images
from kvstore.contracts import ImageRecord
from kvstore.errors import ImageError, KvstoreError
from kvstore.report.blocks import Thumbnail

if TYPE_CHECKING:
    import duckdb

#: Longer side of a thumbnail in pixels, and JPEG's quality: some 6 kB of a photograph.
SIDE, QUALITY = 240, 72

_WHERE = """
select dataset_id, dataset_image.name
from image
join dataset_image using (image_id)
where sha256 = $sha256
order by all
"""


#: What calls a function that uses a connection: at once, or in the thread that the connection belongs to.
Run = Callable[..., Any]


def at_once(work: Callable[..., Any], *args: Any) -> Any:
    """Call `work` here and now."""
    return work(*args)


class Pictures:
    """Images of a store by their sha256; each data set is loaded once."""

    def __init__(self, con: duckdb.DuckDBPyConnection, run: Run = at_once) -> None:
        self._con, self._run = con, run
        self._records: dict[str, Mapping[str, ImageRecord]] = {}
        self._found: dict[str, Thumbnail | str] = {}

    def thumbnail(self, sha256: str) -> Thumbnail | str:
        """The image made small, or why it cannot be had."""
        if sha256 not in self._found:
            self._found[sha256] = self._read(sha256)
        return self._found[sha256]

    def _read(self, sha256: str) -> Thumbnail | str:
        """From the first of its names whose file still holds it; else what the last of them met."""
        why = "the store knows no such image"
        for dataset, file in self._run(_named, self._con, sha256):
            try:
                return _small(self._bytes(dataset, file, sha256), sha256)
            except (ImageError, KvstoreError) as error:
                why = str(error)
        return why

    def _bytes(self, dataset: str, file: str, sha256: str) -> bytes:
        if dataset not in self._records:
            images = datasets.again(self._con, dataset).images
            self._records[dataset] = {record.name: record for record in images}
        if file not in self._records[dataset]:
            raise ImageError("missing", f"the data set {dataset} has no {file!r} any more")
        data = self._records[dataset][file].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError("changed", f"{file!r} of {dataset} has changed since it was ingested")
        return data


def _named(con: duckdb.DuckDBPyConnection, sha256: str) -> list[Any]:
    return con.execute(_WHERE, {"sha256": sha256}).fetchall()


def _small(data: bytes, sha256: str) -> Thumbnail:
    decoded = images.decode(data)
    image, buffer = decoded.image, io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(sha256, decoded.width, decoded.height, buffer.getvalue())
