"""What probes with texts share: dot products with text values, a threshold for maps, places of any grid.

A patch's score for a text is the dot product of its vector with the text's (`kvstore.text_values`): at site
value (key) with the text's value (key) at the same layer and head, at site input with the input embedding of
the text's last token, at site encoder with what the text tower of a vision encoder alone makes of the text,
the same at every layer. For the heads of a layer together it is the sum over heads. Keys carry the rotary
embedding of their positions, so a score of keys also depends on where patch and text stand.

A text tower was trained to agree with an image as a whole, through what pools patches, which is left out
here. So an encoder's figures need not be high: of 100 images of shapes `tiny-encoder` has, on the half on
which its layer was not chosen, a mIoU of 0.080 in semantic segmentation, where floor `position` has 0.094 and
chance 0.027; in referring they are 0.076, 0.077 and 0.050.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import recipes
from kvstore.contracts import SITES, Grid
from kvstore.errors import UsageError
from kvstore.matching import Heads
from kvstore.pixels import Cells
from kvstore.probes import Part, Request, parts
from kvstore.stored import stored_layers
from kvstore.text_values import read

if TYPE_CHECKING:
    import duckdb
    import torch

    from kvstore.probes._masks import Bits
    from kvstore.store import Store

Array = np.ndarray[Any, Any]

#: Places along each side of an image at which grids of all shapes are compared: exact for up to 63 patches.
PLACES = 64

_MODEL = "select m.layers = 0, m.family from run r join model m using (model_id) where r.run_id = $run"
_OTHER_SITES = "a run with --sites value,key,input"


def comparable(con: duckdb.DuckDBPyConnection, request: Request) -> Request:
    """The request without an encoder whose space has no texts: a line says so where it was not asked for.

    Texts have an encoder alone of a family with a text tower. A multimodal model's own has not, though it was
    trained with one: the model came without it. Raises what `kvstore.probes.parts` does, and `UsageError`
    where an encoder without texts is asked for or all there is.
    """
    parts(con, request)
    stored = stored_layers(con, request.run_id)
    alone, family = con.execute(_MODEL, {"run": request.run_id}).fetchall()[0]
    with_tower = alone and hasattr(recipes.load("ingest/models", family), "texts")
    if with_tower or "encoder" not in (request.sites or stored):
        return request
    sites = tuple(site for site in SITES if site in stored and site != "encoder")
    why = (
        f"site encoder of run '{request.run_id}' cannot be compared with texts: the model has no text tower"
        " in its vision encoder's space"
    )
    if "encoder" in request.sites or not sites:
        other = "a run of an encoder that has one, as tiny-encoder" if alone else _OTHER_SITES
        raise UsageError(f"{why}; use {', '.join(sites) or other}.")
    print(f"{why}; left out", file=sys.stderr)
    return replace(request, sites=sites)


def text_vectors(store: Store, run_id: str, part: Part, texts: Sequence[str], device: Any) -> torch.Tensor:
    """Vectors of texts, each named once, to compare with a part's: float32 [heads, texts, width]."""
    import torch

    return torch.from_numpy(read(store, run_id, part.site, part.layer, texts)).to(device).float()


def dots(vectors: torch.Tensor, texts: torch.Tensor, how: Heads) -> Array:
    """Scores float32 [kinds, texts, patches] of [heads, patches, width] and [heads, texts, width]."""
    import torch

    each = texts @ vectors.float().transpose(1, 2)
    kinds = [] if how == "concat" else [each]
    return torch.cat([*kinds, each.sum(0, keepdim=True)] if how != "each" else kinds).cpu().numpy()


def otsu(maps: Array) -> Bits:
    """Which patches of maps [..., patches] stand out: bool, by Otsu's threshold (1979) of each map.

    It is the cut between two sets that makes the variance between them the largest; the set above it is
    foreground. Equal values are not parted: a map of one value has no foreground. It has no parameter, and
    neither a factor nor a summand changes it.
    """
    ranked = np.sort(maps.astype(np.float64), -1)
    n = ranked.shape[-1]
    below = np.arange(1, n)
    sums = ranked.cumsum(-1)
    mean_below = sums[..., :-1] / below
    mean_above = (sums[..., -1:] - sums[..., :-1]) / (n - below)
    between = below * (n - below) * (mean_above - mean_below) ** 2
    between = np.where(ranked[..., 1:] > ranked[..., :-1], between, -1)
    best = between.argmax(-1)[..., None]
    cut = np.where(between.max(-1, keepdims=True) > 0, np.take_along_axis(ranked, best + 1, -1), np.inf)
    bits: Bits = maps >= cut
    return bits


def at_places(patches: Array, grid: Grid) -> Array:
    """What patches [..., patches] say at each of `PLACES` x `PLACES` places of the image: [..., places]."""
    spread = _over_places(grid).spread(patches)
    return spread.reshape(*spread.shape[:-2], PLACES * PLACES)


def of_places(places: Array, grid: Grid) -> Array:
    """What places [..., places] say at the centre of each patch: [..., patches]."""
    rows, columns = (
        (np.arange(count) * 2 + 1) * PLACES // (2 * count) for count in (grid.rows, grid.columns)
    )
    found: Array = places[..., (rows[:, None] * PLACES + columns).reshape(-1)]
    return found


def _over_places(grid: Grid) -> Cells:
    return Cells(PLACES, PLACES, replace(grid, box=(0.0, 0.0, float(PLACES), float(PLACES))))


def share(part: Array, whole: Array) -> Array:
    """part / whole, 0 where the whole is."""
    found: Array = np.divide(part, whole, np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
    return found
