"""What a report is made of: charts, tables, galleries, notes, and gaps that say how to fill them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

#: The most rows that one chart or table may hold; beyond it, aggregate in SQL.
MAX_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Chart:
    """An Altair chart, with a caption that tells how to read it.

    `name` names its PNG and is unique in the report. `group` is what the reader chooses by (a run, mostly):
    where a report has two groups or more, its page shows one of them at a time.
    """

    name: str
    title: str
    chart: Any
    caption: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as a table; `headings` renames columns for people, underscores become spaces elsewhere."""

    title: str
    rows: pl.DataFrame
    caption: str = ""
    headings: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image of a data set made small: `data` is a JPEG; width and height are those of the whole image."""

    sha256: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Box:
    """The outline of a box on a tile, in pixels of the whole image; `colour` as CSS has it."""

    x0: float
    y0: float
    x1: float
    y1: float
    colour: str


@dataclass(frozen=True, slots=True)
class Ring:
    """The outline of a circle on a tile, in pixels of the whole image, and its centre as a dot."""

    x: float
    y: float
    radius: float
    colour: str


@dataclass(frozen=True, slots=True)
class Shade:
    """Pixels of the whole image, outlined in a colour; `mask` is COCO's RLE (see `kvstore.masks`).

    spot   what is outside is darkened; else what is inside lies under the colour
    """

    mask: str
    colour: str
    spot: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a gallery: an image, what is drawn on it, a line below, and words for who sees none."""

    image: Thumbnail
    label: str
    alt: str
    marks: Sequence[Box | Ring | Shade] = ()


@dataclass(frozen=True, slots=True)
class Strip:
    """Tiles that belong together, under a heading."""

    heading: str
    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Strips of pictures, with a caption that tells how to read them; each image stands in the page once."""

    title: str
    strips: Sequence[Strip]
    caption: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the store does not hold yet, and the command that fills it.

    The page adds ``--store`` to `command`.
    """

    what: str
    command: str
    group: str = ""


Block = Chart | Table | Gallery | Note | Missing
