"""Images for galleries: read again from their data sets, the same bytes or none, and made small."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import datasets, images
from kvstore.contracts import ImageRecord
from kvstore.errors import ImageError, KvstoreError
from kvstore.report.blocks import Thumbnail

if TYPE_CHECKING:
    import duckdb

#: Longer side of a thumbnail in pixels, and JPEG's quality: some 6 kB of a photograph.
SIDE, QUALITY = 240, 72

_WHERE = """
select d.name, d.split, d.root, coalesce(d.follow_links, false), di.name
from image i
join dataset_image di using (image_id)
join dataset d using (dataset_id)
where i.sha256 = $sha256
order by d.dataset_id, di.name
"""


Where = tuple[
    str, str, str | None, bool
]  # a data set's name, split and folder, and whether links are followed


class Pictures:
    """Images of a store by their sha256; each data set is loaded once."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._records: dict[Where, Mapping[str, ImageRecord]] = {}
        self._found: dict[str, Thumbnail | str] = {}

    def thumbnail(self, sha256: str) -> Thumbnail | str:
        """The image made small, or why it cannot be had."""
        if sha256 not in self._found:
            self._found[sha256] = self._read(sha256)
        return self._found[sha256]

    def _read(self, sha256: str) -> Thumbnail | str:
        """From the first of its names whose file still holds it; else what the last of them met."""
        why = "the store knows no such image"
        for *where, file in self._con.execute(_WHERE, {"sha256": sha256}).fetchall():
            try:
                return _small(self._bytes(tuple(where), file, sha256), sha256)
            except (ImageError, KvstoreError) as error:
                why = str(error)
        return why

    def _bytes(self, where: Where, file: str, sha256: str) -> bytes:
        if where not in self._records:
            name, split, root, links = where
            folder = Path(root) if root else None
            dataset = datasets.load(name, folder, split or None, follow_links=links)
            self._records[where] = {record.name: record for record in dataset.images}
        if file not in self._records[where]:
            raise ImageError("missing", f"the data set {where[0]} has no {file!r} any more")
        data = self._records[where][file].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError("changed", f"{file!r} of {where[0]} has changed since it was ingested")
        return data


def _small(data: bytes, sha256: str) -> Thumbnail:
    decoded = images.decode(data)
    image, buffer = decoded.image, io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(sha256, decoded.width, decoded.height, buffer.getvalue())
