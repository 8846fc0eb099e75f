"""Dense supervision: what a patch shows, read by a linear layer from its feature."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .sheets import BINS, HUES, KINDS, PARTS, STYLES

#: Classes of each label of `Sheet.labels`, in order, and the weight of its loss.
CLASSES = (len(KINDS) + 1, len(HUES) + 1, len(PARTS) + 1, BINS + 1, BINS + 1, 2)
WEIGHTS = (1.0, 1.0, 0.5, 0.3, 0.3, 2.0)
STYLE_WEIGHT = 0.3


class Heads(nn.Module):
    """Linear readouts of patches [..., width], and of their mean for the style."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(CLASSES))
        self.style = nn.Linear(width, len(STYLES))

    def loss(
        self, features: torch.Tensor, labels: torch.Tensor, image: torch.Tensor, style: torch.Tensor
    ) -> tuple[torch.Tensor, list[float]]:
        """Cross entropy of all labels; with the shares of patches whose category and hue are right.

        features [patches, width], labels [patches, 6], image [patches] (of which image), style [images]
        """
        features = F.layer_norm(features, features.shape[-1:])
        split = torch.split(self.patch(features), list(CLASSES), -1)
        labels = labels.long()
        total = features.new_zeros(())
        for place, (logits, weight) in enumerate(zip(split, WEIGHTS, strict=True)):
            total = total + weight * F.cross_entropy(logits, labels[:, place])
        counts = torch.bincount(image, minlength=len(style)).clamp(min=1)[:, None]
        pooled = features.new_zeros(len(style), features.shape[1]).index_add(0, image, features) / counts
        total = total + STYLE_WEIGHT * F.cross_entropy(self.style(pooled), style)
        with torch.no_grad():
            things = labels[:, 0] > 0
            right = [(split[k].argmax(-1) == labels[:, k])[things].float().mean().item() for k in (0, 1)]
            right.append((self.style(pooled).argmax(-1) == style).float().mean().item())
        return total, right
