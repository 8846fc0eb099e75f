"""How many rows and bytes an ingest will make, how long it will take, and whether the disk can hold it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstore.errors import NoSpaceError
from kvstore.models import vision_config
from kvstore.prefill.blocks import bytes_of, table_rows
from kvstore.prefill.plan import Plan
from kvstore.prefill.survey import Seen

#: Ids, indexes and manifests beside the vectors (measured: 0.3 to 1 %), and the catalog.
OVERHEAD = 1.02
RESERVE = 64 << 20  # left free on the disk, for the catalog's copies and for others


@dataclass(frozen=True)
class Forecast:
    """Figures of the images still to be done.

    rows     vectors of patch_kv, patch_input and patch_encoder
    bytes    on disk
    free     bytes free on the store's disk
    seconds  estimate: the matrix products' FLOPs at the speed that one such product has here
    """

    images: int
    refused: int
    tokens: int
    rows: int
    bytes: int
    free: int
    seconds: float

    def check(self, store: Path) -> None:
        """Raise `NoSpaceError` when the disk cannot hold it."""
        if self.bytes + RESERVE > self.free:
            raise NoSpaceError(
                f"{self.bytes / 1e9:.2f} GB are needed and {self.free / 1e9:.2f} GB are free at {store}; "
                "free some space, choose another --store, or store less: --limit, --layers, --sites, --pool."
            )


def forecast(plan: Plan, todo: Sequence[Seen], refused: int, store: Path) -> Forecast:
    """Count what `todo` will become; the time is measured by a short matrix product on the device."""
    tokens = rows = size = 0
    for image in todo:
        if image.layout is None:
            continue
        layout = plan.stored(image.layout)
        tokens += len(plan.head) + image.layout.tokens
        rows += table_rows(layout, plan.shape)
        size += bytes_of(layout, plan.shape)
    seconds = tokens * flops_per_token(plan) / _flops_per_second(plan) if tokens else 0.0
    return Forecast(len(todo), refused, tokens, rows, int(size * OVERHEAD), _free(store), seconds)


def flops_per_token(plan: Plan) -> float:
    """About 2 FLOPs per weight and token, for the decoder layers run and the vision tower."""
    layers = plan.shape.layers
    weights = _tower(plan) + ((max(layers) + 1) * _decoder_layer(plan) if layers else 0)
    return 2.0 * weights


def _decoder_layer(plan: Plan) -> int:
    """Weights of one layer of the language model: attention and gated MLP."""
    model, wide = plan.model.description, int(plan.model.config.text_config.intermediate_size)
    hidden = int(model["hidden_dim"])
    heads = int(model["key_dim"]) * (2 * int(model["query_heads"]) + 2 * int(model["kv_heads"]))
    return hidden * heads + 3 * hidden * wide


def _tower(plan: Plan) -> int:
    """Weights of the vision encoder's layers, if all were gated."""
    model, vision = plan.model.description, vision_config(plan.model.config)
    width = int(model["encoder_dim"])
    wide = getattr(vision, "intermediate_size", None) or vision.mlp_ratio * width
    return int(model["encoder_layers"]) * width * (4 * width + 3 * int(wide))


def _flops_per_second(plan: Plan) -> float:
    """Speed of a matrix product as wide as the model, on its device, in its dtype."""
    import torch

    description = plan.model.description
    width, rows = description["hidden_dim"] or description["encoder_dim"], 2048
    dtype = getattr(torch, plan.dtype)
    a = torch.ones(rows, width, device=plan.device, dtype=dtype)
    b = torch.ones(width, width, device=plan.device, dtype=dtype)

    def product() -> float:
        return float((a @ b)[0, 0])  # reading a number waits for the device

    product()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.05:
        product()
        count += 1
    # Attention, norms and launches keep a whole forward pass to about a third of that.
    speed: float = 2.0 * rows * width * width * count / (time.perf_counter() - start) / 3
    return speed


def _free(store: Path) -> int:
    there = next(folder for folder in (store, *store.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free
