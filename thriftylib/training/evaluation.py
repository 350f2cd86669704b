"""How any network is evaluated: loss and accuracy over a split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thriftylib.datasets.load import Dataset, Split
from thriftylib.training.device import Precision, autocast

BATCH = 500  # images; small enough for the caches of a CPU, large enough for a GPU


def as_input(images: Tensor, dataset: Dataset, precision: Precision) -> Tensor:
    """uint8 (N, C, H, W) as the network reads it: scaled, channels last, in the precision of its activations."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return dataset.scaled(images, dtype).contiguous(memory_format=torch.channels_last)


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which answers are right, (N,) bool; logits that are NaN are no answer."""
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


@torch.no_grad()
def evaluate(
    network: nn.Module, split: Split, dataset: Dataset, device: torch.device, precision: Precision = "fp32"
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent over a split; no augmentation, batch norm in evaluation mode."""
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for images, labels in zip(split.images.split(BATCH), split.labels.split(BATCH), strict=True):
        with autocast(device, precision):
            logits = network(as_input(images, dataset, precision))
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        sums += torch.stack((loss, right(logits, labels).sum().double()))
    loss, correct = sums.tolist()
    return loss / len(split.labels), 100 * correct / len(split.labels)
