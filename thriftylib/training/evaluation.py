"""How any network is evaluated: loss and accuracy over a split."""

from __future__ import annotations

from collections.abc import Mapping

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


@torch.no_grad()
def mean_outputs(
    network: nn.Module, modules: Mapping[str, nn.Module], images: Tensor, dataset: Dataset, *, training: bool = False
) -> dict[str, Tensor]:
    """The means over images (N, C, H, W) of what modules of a network give, (N, F) each, by name: (F,) in fp64.

    Args:
        training: whether batch norms use each batch's own statistics; the running ones stay as they are in any case.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, output: Tensor) -> None:
        sums[name] = sums.get(name, 0) + output.double().sum(0)

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: add(name, output))
        for name, module in modules.items()
    ]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        network.train(training)
        for batch in images.split(BATCH):
            network(as_input(batch, dataset, "fp32"))
    finally:
        for hook in hooks:
            hook.remove()
        network.load_state_dict(buffers, strict=False)
        network.eval()
    return {name: each.cpu() / len(images) for name, each in sums.items()}
