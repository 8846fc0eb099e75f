"""Nearest patches by cosine: exact, batched over heads and points, the same on CPU and CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Heads = Literal["each", "concat", "both"]

#: Similarities this close to the best count as equal, and the lowest patch of them wins. Float32 products of
#: up to a few thousand channels err by a few 1e-7 in an order of summation that differs between devices and
#: tiles; the stored float16 vectors themselves are far coarser (2^-11 relative per channel).
TIE = 1e-6
#: Similarities held at once, in float32: 64 MiB.
CHUNK = 1 << 24


def nearest(
    source: torch.Tensor, target: torch.Tensor, heads: Heads = "each"
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each source vector the target patch with the highest cosine similarity, and that similarity.

    source [heads, points, width] and target [heads, patches, width], any float dtype, are compared head by
    head in float32. Returns patch int64 and similarity float32, both [kinds, points]: with "each" a kind is a
    head; with "concat" there is one, the heads' vectors concatenated; with "both" the heads, then that one.
    The concatenation needs no product of its own: dot products and squared norms add up over heads.
    A zero vector is at similarity 0 to everything. Ties go to the lowest patch (see `TIE`).
    """
    import torch

    target = target.float()
    target_square = target.square().sum(-1)  # [heads, patches]
    step = max(1, CHUNK // (target.shape[0] * target.shape[1]))
    parts = [
        _best(_cosines(part.float(), target, target_square, heads))
        for part in torch.split(source, step, dim=1)
    ]
    patches, similarities = zip(*parts, strict=True)
    return torch.cat(patches, dim=1), torch.cat(similarities, dim=1)


def _cosines(
    source: torch.Tensor, target: torch.Tensor, target_square: torch.Tensor, heads: Heads
) -> torch.Tensor:
    """Cosine similarities [kinds, points, patches] of float32 vectors."""
    import torch

    dots = source @ target.transpose(1, 2)  # [heads, points, patches]
    square = source.square().sum(-1)  # [heads, points]
    kinds = []
    if heads != "concat":
        kinds.append(dots / _scale(square, target_square))
    if heads != "each":
        kinds.append(dots.sum(0, keepdim=True) / _scale(square.sum(0, True), target_square.sum(0, True)))
    return torch.cat(kinds)


def _scale(source_square: torch.Tensor, target_square: torch.Tensor) -> torch.Tensor:
    """Products of norms [kinds, points, patches]; never 0. A float16 vector's norm is 0 or above 1e-8."""
    return (source_square.sqrt()[:, :, None] * target_square.sqrt()[:, None, :]).clamp_min(1e-30)


def _best(cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest patch within `TIE` of the best, and its similarity, along the last axis."""
    import torch

    patches = cosines.shape[-1]
    numbers = torch.arange(patches, device=cosines.device)
    tied = cosines >= cosines.amax(-1, keepdim=True) - TIE
    patch = torch.where(tied, numbers, patches - 1).amin(-1)
    return patch, cosines.gather(-1, patch[..., None]).squeeze(-1).clamp(-1.0, 1.0)
