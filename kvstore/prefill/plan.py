"""What an ingest will do: its run's identity, the windows of images, and the forecast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import __version__
from kvstore.contracts import Dataset, Layout
from kvstore.prefill.blocks import bytes_of
from kvstore.prefill.options import Options, layer_list
from kvstore.prefill.pooling import pooled
from kvstore.prefill.survey import Seen
from kvstore.vectors.schema import Shape

if TYPE_CHECKING:
    from kvstore.models import Loaded

#: A window holds at most so many images, and so many bytes of vectors unless one image has more.
WINDOW_IMAGES = 32
WINDOW_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}


@dataclass(frozen=True)
class Plan:
    """A run's inputs, resolved."""

    options: Options
    dataset: Dataset
    dataset_fingerprint: str
    model: Loaded
    shape: Shape
    device: str
    dtype: str
    head: tuple[int, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """All that makes the stored vectors what they are; not --limit, --batch or --device."""
        return {
            "model": self.model.revision,
            "processor": json.loads(self.model.description["processor"]),
            "dataset": self.dataset_fingerprint,
            "prefix": self.options.prefix,
            "prompt": list(self.head),
            "view": self.options.view,
            "sites": list(self.options.sites),
            "layers": list(self.shape.layers),
            "encoder_layers": list(self.shape.encoder_layers),
            "pool": self.options.pool,
            "dtype": self.dtype,
            "code": __version__,
        }

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity: the same inputs continue the same run."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def layout_of(self, size: tuple[int, int]) -> Layout:
        """Tokens of an image of `size`, before pooling; raises `ImageError` for one the model refuses."""
        layout: Layout = self.model.family.layout(
            self.model.config, self.model.image_processor, size, self.options.view
        )
        return layout

    def stored(self, layout: Layout) -> Layout:
        """The layout of the patches as they are stored."""
        return pooled(layout, self.options.pool)

    @property
    def memory(self) -> str:
        """Where vectors are put together: the CUDA device, else the host's memory."""
        return self.device if self.device.startswith("cuda") else "cpu"

    def window_bytes(self) -> int:
        """Bytes of vectors that a window holds at most."""
        return WINDOW_BYTES[self.memory.partition(":")[0]]


def shape_of(options: Options, description: dict[str, Any]) -> Shape:
    """Widths and layers of what will be stored; checks the layers against the model's."""
    sites = options.sites
    with_cache = "key" in sites or "value" in sites
    layers = layer_list(options.layers, description["layers"])
    last = description["encoder_layers"]
    encoder = (
        (last,)
        if options.encoder_layers is None
        else layer_list(options.encoder_layers, last + 1, "encoder layer")
    )
    return Shape(
        layers=layers if with_cache else (),
        heads=description["kv_heads"] if with_cache else 0,
        key=description["key_dim"] if "key" in sites else 0,
        value=description["value_dim"] if "value" in sites else 0,
        input=description["hidden_dim"] if "input" in sites else 0,
        encoder=description["encoder_dim"] if "encoder" in sites else 0,
        encoder_layers=encoder if "encoder" in sites else (),
    )


def windows(seen: Sequence[Seen], plan: Plan) -> list[list[Seen]]:
    """Consecutive images, cut where a window is full: by the images alone, so the same on every resume.

    An image whose content stood earlier in the data set is left out: it is stored once.
    """
    cut: list[list[Seen]] = []
    room, known = 0, set[str]()
    for image in seen:
        if image.layout is None or image.sha256 in known:
            continue
        known.add(image.sha256)
        size = bytes_of(plan.stored(image.layout), plan.shape)
        if not cut or len(cut[-1]) == WINDOW_IMAGES or size > room:
            cut.append([])
            room = plan.window_bytes()
        cut[-1].append(image)
        room -= size
    return cut


def default_name(plan: Plan) -> str:
    """A name that tells the run: data set, split, model, and what is not the default."""
    options = plan.options
    parts = [plan.dataset.name, plan.dataset.split, Path(plan.model.name).name]
    parts += [options.view] if options.view != "base" else []
    parts += [f"pool{options.pool}"] if options.pool > 1 else []
    parts += ["prefix"] if options.prefix else []
    return "-".join(part for part in parts if part)
