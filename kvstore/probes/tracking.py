"""Temporal correspondence: objects of a clip are followed by carrying the first frame's labels along.

Label propagation of Jabri et al. 2020 with the settings of DINO (Caron et al. 2021) on DAVIS 2017. Labels of
the first frame are the shares of each patch that its objects and the background cover. Those of a later frame
are means over patches of the first frame and of the last 7: the 5 most similar by cosine at most 12 rows and
columns away, weighted by a softmax at temperature 0.1; all that are as similar as the fifth take part. Then
the label maps are interpolated to pixels, bilinearly between the patches' centres, each is stretched to the
range 0 to 1 over the frame, and a pixel gets the highest, the background among equals.

J and F come of counts in SQL (macro `tracked`). Void pixels are background, and what is predicted there is
wrong: so counts the official evaluation of DAVIS 2017 in its semi-supervised task (davis2017-evaluation sets
void to 0 when it reads annotations, before its counts would leave it out). Probe `tracking-void-out` is the
same with void pixels out of all counts.

Beside them stands a floor, as site `position`: the same with vectors that tell only where a patch is, which
leaves the first frame's mask where it was. The other floor, chance, takes all pixels and is made by SQL.

Cost and memory: each layer is read once, clip by clip. The vectors of 9 frames in float32, at most
`_vectors.BLOCK_BYTES` of stored ones, similarities of `matching.CHUNK` pairs, one layer's rows and the label
maps of one image value at all pixels of a frame are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import masks, names
from kvstore.boundary import Contour, reach
from kvstore.contracts import Grid
from kvstore.errors import UsageError
from kvstore.geometry import between, coverage
from kvstore.matching import CHUNK, TIE, Heads
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._clips import Clip, Frame, read_clips
from kvstore.probes._masks import Job, Prediction, carry_out
from kvstore.probes._predictions import Head
from kvstore.probes._vectors import Source, unit

if TYPE_CHECKING:
    import duckdb
    import torch

    from kvstore.store import Store

NAME = "tracking"
VOID_OUT = "tracking-void-out"
#: Frames before the one at hand that hand labels on, beside the first frame.
LAST_FRAMES = 7
#: Rows and columns of patches that an object moves at most, between two such frames.
RADIUS = 12
#: Patches that a label is a mean of.
TOP = 5
TEMPERATURE = 0.1

Array = np.ndarray[Any, Any]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` and `read_clips` do.
    """
    return track(store, request, NAME)


def track(store: Store, request: Request, name: str) -> Outcome:
    """What `predict` does, as the probe `name`: `NAME` counts void as background, `VOID_OUT` not at all."""
    with store.tables() as con:
        clips = read_clips(con, request.run_id)

    def made(part: Part | None, source: Source, how: Heads) -> Iterator[Prediction]:
        for clip in clips:
            yield from _of_clip(clip, source, how, void_counts=name == NAME)

    job = Job(
        probe=name,
        grids={frame.scene.image_id: frame.scene.placed for clip in clips for frame in clip.frames},
        items=sum((len(clip.frames) - 1) * len(clip.objects) for clip in clips),
        reads=sum(len(clip.frames) for clip in clips),
        predict=made,
    )
    return carry_out(store, request, job)


def _of_clip(clip: Clip, source: Source, how: Heads, *, void_counts: bool) -> Iterator[Prediction]:
    """Predictions of every frame but the first and of every object, be it to be seen or not."""
    scene = clip.frames[0].scene
    painter: Painter | None = None
    for frame, labels in follow(clip, source, how):
        painter = painter or Painter(scene.width, scene.height, scene.placed.grid, labels.device)
        truths = [Truth.of(frame, object_id, void_counts=void_counts) for object_id in clip.objects]
        for kind, one in enumerate(labels):
            painted = painter(one)
            for place, truth in enumerate(truths, 1):
                yield truth.judge(kind, clip.name, painted == place)


# ------------------------------------------------------------------------------------ labels on patches


def follow(clip: Clip, source: Source, how: Heads) -> Iterator[tuple[Frame, torch.Tensor]]:
    """Every frame but the first with its labels [kinds, background and objects, patches]."""
    import torch

    images = source([frame.scene.image_id for frame in clip.frames])
    frames = ((frame, unit(vectors, how)) for frame, (_, vectors) in zip(clip.frames, images, strict=True))
    first, vectors = next(frames)
    device = vectors[0].device
    shares = torch.from_numpy(first_labels(first, clip.objects)).to(device, torch.float32)
    start = vectors, [shares.expand(len(group), -1, -1) for group in vectors]
    near = _near(first.scene.placed.grid, device)
    recent: deque[tuple[list[torch.Tensor], list[torch.Tensor]]] = deque(maxlen=LAST_FRAMES)
    for frame, vectors in frames:
        labels = []
        for group, here in enumerate(vectors):
            before = [(known[group], carried[group]) for known, carried in (start, *recent)]
            labels.append(carry(here, before, near))
        recent.append((vectors, labels))
        yield frame, torch.cat(labels)


def first_labels(frame: Frame, objects: Sequence[int]) -> Array:
    """The share of each patch that the background and the objects cover: float64 [1 + objects, patches]."""
    grid = frame.scene.placed.grid
    pixels = [frame.pixels(object_id) for object_id in objects]
    ground = 1 - coverage(np.logical_or.reduce(pixels), grid)
    return np.stack([ground, *(coverage(one, grid) for one in pixels)])


def carry(
    here: torch.Tensor, before: Sequence[tuple[torch.Tensor, torch.Tensor]], near: torch.Tensor
) -> torch.Tensor:
    """Labels [kinds, labels, patches] of a frame from those of frames `before`.

    here     unit vectors [kinds, patches, width]
    before   of each frame its unit vectors, and its labels [kinds, labels, patches]
    near     bool [patches, patches]: whether a patch looks at another
    """
    import torch

    known = torch.cat([vectors for vectors, _ in before], 1).transpose(1, 2)  # [kinds, width, frames*patches]
    labels = torch.cat([labels for _, labels in before], 2).transpose(1, 2)  # [kinds, frames*patches, labels]
    far = ~near.repeat(1, len(before))
    step = max(1, CHUNK // (known.shape[0] * known.shape[2]))
    found = [
        _weights((part @ known).masked_fill_(away, -torch.inf)) @ labels
        for part, away in zip(torch.split(here, step, 1), torch.split(far, step), strict=True)
    ]
    return torch.cat(found, 1).transpose(1, 2)


def _weights(cosines: torch.Tensor) -> torch.Tensor:
    """Softmax over the `TOP` highest of the last axis and what ties with them (see `TIE`); 0 elsewhere."""
    best = cosines.topk(min(TOP, cosines.shape[-1])).values
    weights = ((cosines - best[..., :1]) / TEMPERATURE).exp()
    weights = weights.masked_fill(cosines < best[..., -1:] - TIE, 0)
    return weights / weights.sum(-1, keepdim=True)


def _near(grid: Grid, device: Any) -> torch.Tensor:
    """Whether two patches are at most `RADIUS` rows and columns apart: bool [patches, patches]."""
    import torch

    rows, columns = np.divmod(np.arange(grid.patches), grid.columns)
    apart = np.maximum(np.abs(rows[:, None] - rows), np.abs(columns[:, None] - columns))
    return torch.from_numpy(apart <= RADIUS).to(device)


# ------------------------------------------------------------------------------------- labels on pixels


class Painter:
    """Label maps of patches into a label per pixel of a `width` x `height` image."""

    def __init__(self, width: int, height: int, grid: Grid, device: Any) -> None:
        import torch

        x0, y0, x1, y1 = grid.box
        self.shape = grid.rows, grid.columns
        down, across = _weights_of(height, y0, y1, grid.rows), _weights_of(width, x0, x1, grid.columns)
        self.down, self.across = (torch.from_numpy(one).to(device, torch.float32) for one in (down, across.T))

    def __call__(self, labels: torch.Tensor) -> Array:
        """The place of the highest of maps [labels, patches] at each pixel, the first of equals.

        uint8 [height, width]. A map is stretched to 0..1 over the image before, as DINO's evaluation does,
        unless it is flat (see `TIE`).
        """
        import torch

        maps = self.down @ labels.unflatten(1, self.shape) @ self.across
        low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
        maps = torch.where(high - low > TIE, (maps - low) / (high - low), maps)
        places = torch.arange(len(maps), dtype=torch.uint8, device=maps.device)[:, None, None]
        best = torch.where(maps >= maps.amax(0) - TIE, places, len(maps) - 1).amin(0)
        return best.cpu().numpy()


def _weights_of(pixels: int, start: float, stop: float, cells: int) -> Array:
    """Weights [pixels, cells] of linear interpolation between cells' centres."""
    away = np.abs(between(pixels, start, stop, cells)[:, None] - np.arange(cells))
    weights: Array = np.clip(1 - away, 0, None)
    return weights


@dataclass(frozen=True, slots=True)
class Truth:
    """An object in one frame, and the pixels that are counted."""

    frame: Frame
    object_id: int
    counted: Array  # bool [height, width]
    pixels: Array  # bool [height, width]
    contour: Contour

    @classmethod
    def of(cls, frame: Frame, object_id: int, *, void_counts: bool) -> Truth:
        """What is annotated of the object there: nothing where it is hidden, nor where void lies on it."""
        certain = frame.scene.counted()
        pixels = frame.pixels(object_id) & certain
        counted = np.ones_like(certain) if void_counts else certain
        return cls(frame, object_id, counted, pixels, Contour(pixels))

    def judge(self, kind: int, clip: str, predicted: Array) -> Prediction:
        """A prediction, bool [height, width], and what of it is true."""
        height, width = predicted.shape
        radius = reach(width, height)
        seen = predicted & self.counted
        contour = Contour(seen)
        return Prediction(
            kind,
            self.frame.scene.image_id,
            clip,
            self.object_id,
            self.frame.number,
            masks.from_array(predicted),
            int(np.count_nonzero(seen)),
            int(np.count_nonzero(self.pixels)),
            int(np.count_nonzero(seen & self.pixels)),
            int(np.count_nonzero(self.counted)),
            (
                len(contour),
                len(self.contour),
                contour.hits(self.contour, radius),
                self.contour.hits(contour, radius),
            ),
        )


# -------------------------------------------------------------------------------- DAVIS's results layout

_OF_CLIP = """
select number, object_id, mask::varchar
from mask
where run_id = $run and probe = $probe and label = $clip
  and site = $site and layer = $layer and head is not distinct from $head
order by number, object_id
"""


def submission(
    con: duckdb.DuckDBPyConnection, run_id: str, probe: str, best: tuple[str, int, Head], folder: Path
) -> list[Path]:
    """Write masks as DAVIS 2017 takes results: <clip>/<frame>.png, palette images of objects 1, 2, ...

    probe  `NAME` or `VOID_OUT`, whose masks are alike
    best   site, layer and head whose predictions are written; a clip's first frame is its annotation

    Returns the files. Raises `UsageError` where predictions of a frame are missing, `DatasetError` for a
    clip whose name can be none of a folder.
    """
    files = []
    for clip in read_clips(con, run_id):
        for number, painted in _painted(con, run_id, probe, best, clip):
            path = names.place(folder, clip.name, f"{number:05d}.png")
            _image(painted).save(path)
            files.append(path)
    return files


def _painted(
    con: duckdb.DuckDBPyConnection, run_id: str, probe: str, best: tuple[str, int, Head], clip: Clip
) -> Iterator[tuple[int, Array]]:
    """(frame, the place of each pixel's object from 1, 0 for none)."""
    found: dict[int, dict[int, str]] = {0: dict(clip.frames[0].masks)}
    which = dict(zip(("site", "layer", "head"), best, strict=True))
    rows = con.execute(_OF_CLIP, {"run": run_id, "probe": probe, "clip": clip.name, **which}).fetchall()
    for number, object_id, mask in rows:
        found.setdefault(number, {})[object_id] = mask
    for frame in clip.frames:
        if frame.number not in found:
            raise UsageError(
                f"run '{run_id}' has no tracking of frame {frame.number} of clip '{clip.name}' at {which}."
                f" Make it: kvstore probe {probe} --run {run_id}."
            )
        painted = np.zeros((frame.scene.height, frame.scene.width), np.uint8)
        for place, object_id in enumerate(clip.objects, 1):
            if object_id in found[frame.number]:
                painted[masks.to_array(found[frame.number][object_id])] = place
        yield frame.number, painted


def _image(painted: Array) -> Any:
    """A palette image; DAVIS's palette, as VOC's, deals a number's bits to red, green and blue in turn."""
    from PIL import Image

    image = Image.fromarray(painted)
    colours = [
        sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for number in range(256)
        for channel in range(3)
    ]
    image.putpalette(colours)
    return image
