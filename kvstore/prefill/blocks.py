"""Where the vectors of a window of images are put together, in the order of the rows that will be stored.

A *window* is a stretch of consecutive images of the data set: one buffer, one Lance fragment per table. Each
image owns one stretch of the buffer, so the batches of a window may run in any order. On CUDA the buffers
are pinned, and filled from the device by copies that nobody waits for until the window is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kvstore.contracts import Layout, Site
from kvstore.vectors.schema import Shape


def rows_of(site: Site, layout: Layout, shape: Shape) -> int:
    """Vectors that one image has at a site."""
    repeats = {"key": len(shape.layers) * shape.heads, "input": 1, "encoder": len(shape.encoder_layers)}
    return layout.patches * repeats["key" if site == "value" else site]


def widths(shape: Shape) -> dict[Site, int]:
    """The width of each stored site's vectors."""
    all_widths: dict[Site, int] = {
        "value": shape.value,
        "key": shape.key,
        "input": shape.input,
        "encoder": shape.encoder,
    }
    return {site: width for site, width in all_widths.items() if width}


def table_rows(layout: Layout, shape: Shape) -> int:
    """Rows that one image makes in patch_kv, patch_input and patch_encoder; key and value share theirs."""
    sites = [site for site in widths(shape) if not (site == "value" and shape.key)]
    return sum(rows_of(site, layout, shape) for site in sites)


def bytes_of(layout: Layout, shape: Shape) -> int:
    """Bytes of one image's vectors."""
    return sum(2 * width * rows_of(site, layout, shape) for site, width in widths(shape).items())


@dataclass
class Blocks:
    """The vectors of one image, float16, and what is known of them.

    site     value, key [layers, heads, patches, width]; input [1, 1, patches, width];
             encoder [layers, 1, patches, width]
    pooled   value, key: float32 [layers, heads, width], the mean over patches of what is stored
    good     scalar bool tensor: every stored vector is finite
    """

    layout: Layout
    site: dict[Site, torch.Tensor]
    pooled: dict[Site, torch.Tensor]
    good: torch.Tensor


class Buffer:
    """Memory for one window at a time, grown to the largest met and used again."""

    def __init__(self, shape: Shape, device: str, pinned: bool = False) -> None:
        self.shape, self.device, self.pinned = shape, device, pinned
        self.memory: dict[str, torch.Tensor] = {}

    def blocks(self, layouts: Sequence[Layout]) -> list[Blocks]:
        """A stretch of the buffer for each image, one after another."""
        cut: dict[Site, list[torch.Tensor]] = {}
        for site, width in widths(self.shape).items():
            rows = [rows_of(site, layout, self.shape) for layout in layouts]
            cut[site] = list(self._take(site, sum(rows), width, torch.float16).split(rows))
        means = {
            site: self._take(f"{site} mean", len(layouts), self._pooled_width(width), torch.float32)
            for site, width in widths(self.shape).items()
            if site in ("value", "key")
        }
        good = self._take("good", len(layouts), 1, torch.bool)
        return [
            Blocks(
                layout,
                {site: self._as_block(site, parts[i], layout) for site, parts in cut.items()},
                {site: self._as_mean(mean[i]) for site, mean in means.items()},
                good[i, 0],
            )
            for i, layout in enumerate(layouts)
        ]

    def _take(self, name: str, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        have = self.memory.get(name)
        if have is None or have.numel() < rows * width:
            have = torch.empty(rows * width, dtype=dtype, device=self.device, pin_memory=self.pinned)
            self.memory[name] = have
        return have[: rows * width].view(rows, width)

    def _pooled_width(self, width: int) -> int:
        return len(self.shape.layers) * self.shape.heads * width

    def _as_mean(self, mean: torch.Tensor) -> torch.Tensor:
        return mean.view(len(self.shape.layers), self.shape.heads, -1)

    def _as_block(self, site: Site, rows: torch.Tensor, layout: Layout) -> torch.Tensor:
        layers = {"input": 1, "encoder": len(self.shape.encoder_layers)}.get(site, len(self.shape.layers))
        heads = 1 if site in ("input", "encoder") else self.shape.heads
        return rows.view(layers, heads, layout.patches, -1)


def summarise(blocks: Blocks) -> None:
    """Fill in pooled means and `good`, on the device where the vectors are.

    The mean is that of the float16 vectors as stored, in float32: anyone can make it again from patch_kv. A
    vector beyond float16's range or not finite makes a sum that is not finite, so no second look is needed.
    """
    finite: list[torch.Tensor] = []
    for site, vectors in blocks.site.items():
        if site in blocks.pooled:
            torch.mean(vectors, 2, dtype=torch.float32, out=blocks.pooled[site])
            finite.append(torch.isfinite(blocks.pooled[site]).all())
        else:
            finite.append(torch.isfinite(vectors.sum(dtype=torch.float32)))
    blocks.good.copy_(torch.stack(finite).all())


def complaint(blocks: Blocks, shape: Shape) -> tuple[str, str] | None:
    """(reason, detail) of the first vector that is not finite, or None; for host memory."""
    if bool(blocks.good):
        return None
    for site, vectors in blocks.site.items():
        bad = (~torch.isfinite(vectors)).nonzero()
        if len(bad):
            layer, head, patch, column = (int(x) for x in bad[0])
            numbers = {"input": (0,), "encoder": shape.encoder_layers}.get(site, shape.layers)
            place = f"{site} at layer {numbers[layer]}, head {head}, patch {patch}, component {column}"
            if torch.isnan(vectors).any():
                return (
                    "non-finite",
                    f"{place} is {float(vectors[tuple(bad[0])])} ({len(bad)} components in all)",
                )
            return "float16-overflow", f"{place} is beyond 65504 ({len(bad)} components in all)"
    return "non-finite", "a sum over the image's vectors is not finite"


def copy_to(host: Blocks, device: Blocks) -> None:
    """Copy everything of one image, without waiting."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = [(host.good, device.good)]
    pairs += [(host.site[site], device.site[site]) for site in host.site]
    pairs += [(host.pooled[site], device.pooled[site]) for site in host.pooled]
    for target, source in pairs:
        target.copy_(source, non_blocking=True)


def memory_of(tensor: torch.Tensor) -> Any:
    """A host block as numpy [rows, width], without a copy."""
    return tensor.reshape(-1, tensor.shape[-1]).numpy()
