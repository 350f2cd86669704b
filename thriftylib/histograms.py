"""Histograms of many images or feature maps at once, and their Shannon entropy, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def row_counts(values: Tensor, bins: int) -> Tensor:
    """How often each value is in each row: integers (R, L) in 0 .. ``bins - 1`` to int64 counts (R, ``bins``)."""
    counts = torch.zeros(len(values), bins, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(1, values.long(), counts.new_ones(1).expand(values.shape))


def histogram_entropy(counts: Tensor) -> Tensor:
    """Entropy in nats of each histogram: counts (..., B) to float64 (...); 0 where there is nothing to count."""
    p = counts.double()
    return torch.special.entr(p / p.sum(-1, keepdim=True).clamp(min=1)).sum(-1)
