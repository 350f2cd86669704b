"""The operation of ExpandNets: a layer becomes a chain of layers, and the chain is contracted into one layer.

A chain computes what the product of its layers computes. So training merges it first, with gradients for every layer,
wherever that costs fewer MACs than running the chain: the numbers are the chain's, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.errors import SpecError
from thriftylib.merging import Product, is_plain, merge, multiplications, single_layer

Kind = Literal["cl", "ck"]
"""How a convolution is expanded."""


class Expanded(nn.Module):
    """A layer trained as the ``chain`` of which it is the product.

    ``weight`` and ``bias`` are those of the one layer. Within a forward pass of the network that ``expand`` made
    they are merged once, however often the layer is used.
    """

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain
        self.kept: Product | None = None
        self.keeps = False  # whether the network is in a forward pass
        first, last = (multiplications(chain, from_last=from_last) for from_last in (False, True))
        self.from_last, self.merge_macs = last < first, min(first, last)

    def apply_product(self, x: Tensor) -> Tensor:
        """What the one layer gives for ``x``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_product(x) if self.kept or self.merges(x.shape) else self.chain(x)

    def merges(self, shape: Sequence[int]) -> bool:
        """Whether an input of ``shape`` costs fewer MACs through the product, its making included."""
        linear, macs = isinstance(self, ExpandedLinear), 0
        count, size = (math.prod(shape[:-1]), []) if linear else (shape[0], shape[2:])
        for layer in self.chain:
            geometry = () if linear else zip(size, layer.padding, layer.kernel_size, layer.stride, strict=True)
            size = [(pixels + 2 * padding - kernel) // stride + 1 for pixels, padding, kernel, stride in geometry]
            macs += math.prod(size) * layer.weight.numel()
        kernel = math.prod(getattr(self, "kernel_size", ()))  # pixels: a linear layer has one
        one = math.prod(size) * len(self.chain[-1].weight) * self.chain[0].weight.shape[1] * kernel
        return self.merge_macs + count * one <= count * macs

    def product(self) -> Product:
        """Weight and bias of the one layer, with gradients for the chain's."""
        product = self.kept
        if product is None or (torch.is_grad_enabled() and not product[0].requires_grad):  # made under no_grad
            product = merge(self.chain, from_last=self.from_last)
        if self.keeps:
            self.kept = product
        return product

    @property
    def weight(self) -> Tensor:
        """As the one layer's."""
        return self.product()[0]

    @property
    def bias(self) -> Tensor | None:
        """As the one layer's."""
        return self.product()[1]


class ExpandedConv2d(Expanded):
    """A convolution trained as a chain of convolutions: (N, m, H, W) to (N, n, H', W')."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__(chain)
        one = single_layer(chain)
        self.in_channels, self.out_channels, self.groups = one.in_channels, one.out_channels, one.groups
        self.kernel_size, self.stride, self.padding = one.kernel_size, one.stride, one.padding

    def apply_product(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.product(), self.stride, self.padding, 1, self.groups)


class ExpandedLinear(Expanded):
    """A linear layer trained as a chain of linear layers: (N, ..., in) to (N, ..., out)."""

    def apply_product(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.product())


def expand_conv(conv: nn.Conv2d, kind: Kind, rate: float = 4.0, *, widens_input: bool = True) -> ExpandedConv2d:
    """A chain in place of ``conv``, on its device, with PyTorch's default initialisation.

    Args:
        kind: "cl" for any kernel, "ck" for odd kernels above 3.
        rate: r; inner widths are r times ``conv``'s, rounded to whole channels of each group, at least one.
        widens_input: False: the first layer of the chain gives m channels instead of r m, as the authors' CIFAR code
            has it where the image is read.

    Raises:
        SpecError: ``conv`` or ``rate`` cannot be expanded so.
    """
    height, width = conv.kernel_size
    if not is_plain(conv):
        raise SpecError(f"{conv}: only a convolution without dilation, padded with a number of zeros, can be expanded")
    if kind not in ("cl", "ck"):
        raise SpecError(f"kind = {kind!r}: must be 'cl' or 'ck'")
    if kind == "ck" and (height != width or height % 2 == 0 or height < 5):
        raise SpecError(f"kind = 'ck': needs an odd, square kernel of 5 or more, not {height}x{width}; 'cl' takes any")
    kernels = [1, conv.kernel_size, 1] if kind == "cl" else [3] * ((height - 1) // 2)
    strides, paddings = [1] * len(kernels), [conv.padding, *[0] * (len(kernels) - 1)]
    strides[1 if kind == "cl" else -1] = conv.stride
    widths = _widths(conv.in_channels, conv.out_channels, len(kernels), rate, conv.groups, widens_input)
    layers = [
        nn.Conv2d(*shape, *geometry, groups=conv.groups, bias=conv.bias is not None)
        for shape, *geometry in zip(pairwise(widths), kernels, strides, paddings, strict=True)
    ]
    return ExpandedConv2d(nn.Sequential(*layers).to(conv.weight))


def expand_linear(linear: nn.Linear, rate: float = 4.0) -> ExpandedLinear:
    """FC: a chain of three linear layers in place of ``linear``, with PyTorch's default initialisation.

    Raises:
        SpecError: ``rate`` is no number above 0.
    """
    widths = _widths(linear.in_features, linear.out_features, 3, rate)
    layers = [nn.Linear(*shape, bias=linear.bias is not None) for shape in pairwise(widths)]
    return ExpandedLinear(nn.Sequential(*layers).to(linear.weight))


def _widths(
    inputs: int, outputs: int, layers: int, rate: float, groups: int = 1, widens_input: bool = True
) -> list[int]:
    """Channels or features before, between and after the layers of a chain."""
    if not 0 < rate < math.inf:
        raise SpecError(f"rate = {rate}: must be a number above 0, such as 4")
    inner, outer = (groups * max(1, round(rate * channels / groups)) for channels in (inputs, outputs))
    return [inputs, inner if widens_input else inputs, *[outer] * (layers - 2), outputs]
