"""Count a built network: what :mod:`thriftylib.cost` says in closed form, of a network of any shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
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
        output = result[0] if "batch_norm" in name else result
        if name == "convolution":
            self.macs += output.numel() * args[1][0].numel()
        elif name in ("mm", "addmm", "bmm", "baddbmm"):
            self.macs += output.numel() * args[1 if "add" in name else 0].shape[-1]
        elif "batch_norm" in name:
            self.norm_elements += output.numel()
        else:
            return result
        self.activations += output.numel()
        return result


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
    stored = [x for name, x in network.state_dict().items() if not name.endswith("num_batches_tracked")]
    distinct = {x.data_ptr() if x.numel() else id(x): x.numel() for x in stored}  # one may have several names
    return Counted(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=counted.macs,
        ptflops_macs=counted.macs + 2 * counted.norm_elements,
        weight_bytes=_FP32 * sum(distinct.values()),
        activation_bytes=_FP32 * counted.activations,
    )


@torch.no_grad()
def early_ptflops(network: nn.Module, image_shape: ImageShape) -> int:
    """``ptflops_macs`` as early versions of the tool count: 1 more an element of a ReLU, and an input of a pooling.

    Only modules count, no functions. The device "meta" will do.
    """
    elements = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        nonlocal elements
        elements += inputs[0].numel()

    kinds = nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d
    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    try:
        return count(network, image_shape).ptflops_macs + elements
    finally:
        for hook in hooks:
            hook.remove()


def check_cost(run: Run, network: nn.Module) -> None:
    """Compare the closed-form cost of a run with what its built network counts, before anything is trained.

    Raises:
        SpecError: they differ; shows both.
    """
    if difference := first_difference(Counted.of(run.cost), count(network, run.data.info.image_shape)):
        name, closed, built = difference
        raise SpecError(
            f"network {run.network.name}: cost() says {closed:,} {name}, the built network has {built:,}; "
            "mend cost() or build()"
        )


def first_difference(one: Counted, other: Counted) -> tuple[str, int, int] | None:
    """The first cost that differs, by name, with both values."""
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in Counted.model_fields)
    return next(((name, x, y) for name, x, y in pairs if x != y), None)
