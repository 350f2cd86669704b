"""Count a built network as it stands: what :mod:`thriftylib.cost` says in closed form, of a network of any shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thriftylib.errors import SpecError
from thriftylib.evidence.records import Counted
from thriftylib.options import ImageShape
from thriftylib.spec import Run

_FP32 = 4  # bytes


class _Operations(TorchDispatchMode):
    """Adds up what convolutions, matrix products and batch norms do, whichever module or function calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.norm_elements = self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "convolution":
            weight = args[1]
            self.macs += result.numel() * weight[0].numel()
            self.activations += result.numel()
        elif name in ("mm", "addmm", "bmm", "baddbmm"):
            left = args[1] if name in ("addmm", "baddbmm") else args[0]
            self.macs += result.numel() * left.shape[-1]
            self.activations += result.numel()
        elif "batch_norm" in name:
            self.norm_elements += result[0].numel()
            self.activations += result[0].numel()
        return result


def parameters(network: nn.Module) -> int:
    """Trained numbers of a network, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def count(network: nn.Module, image_shape: ImageShape) -> Counted:
    """Count a network on PyTorch's plain operators, for one image (C, H, W); its weights and statistics do not change.

    MACs are those of convolutions and matrix products at every use; batch norms count in ``ptflops_macs``.
    """
    training = network.training
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    image = torch.zeros(1, *image_shape, device=device).to(memory_format=torch.channels_last)
    try:
        with _Operations() as counted:
            network.eval()(image)
    finally:
        network.train(training)
    stored = [value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")]
    return Counted(
        parameters=parameters(network),
        macs=counted.macs,
        ptflops_macs=counted.macs + 2 * counted.norm_elements,
        weight_bytes=_FP32 * sum(_distinct(stored)),
        activation_bytes=_FP32 * counted.activations,
    )


def check_cost(run: Run, network: nn.Module) -> None:
    """Compare the closed-form cost of a run with what its built network counts, before anything is trained.

    Raises:
        SpecError: they differ; shows both.
    """
    said, built = Counted.of(run.cost), count(network, run.data.info.image_shape)
    for name in Counted.model_fields:
        closed, counted = getattr(said, name), getattr(built, name)
        if closed != counted:
            raise SpecError(
                f"network {run.network.name}: cost() says {closed:,} {name}, the built network has {counted:,}; "
                "mend cost() or build()"
            )


def _distinct(tensors: list[Tensor]) -> list[int]:
    """The elements of each tensor, of one that is stored under several names once."""
    return list({tensor.data_ptr() if tensor.numel() else id(tensor): tensor.numel() for tensor in tensors}.values())
