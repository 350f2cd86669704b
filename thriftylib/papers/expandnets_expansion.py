"""The operation of ExpandNets: a layer becomes a chain of layers, and the chain is contracted into one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.errors import SpecError

Kind = Literal["cl", "ck"]
"""How a convolution is expanded."""
Product = tuple[Tensor, Tensor | None]
"""Weight and bias of one layer."""


class Expanded(nn.Module):
    """A layer trained as the ``chain`` of which it is the product.

    ``weight`` and ``bias`` are those of the one layer. Within a forward pass of the network that ``expand`` made
    they are multiplied once, however often the layer is used.
    """

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain
        self.kept: Product | None = None
        self.keeps = False  # whether the network is in a forward pass
        shapes = [layer.weight.shape for layer in chain]
        orders = {backwards: _fold_macs(shapes, backwards=backwards) for backwards in (False, True)}
        self.backwards = orders[True] < orders[False]
        self.fold_macs = orders[self.backwards]

    def product(self) -> Product:
        """Weight and bias of the one layer, with gradients for the chain's."""
        product = self.kept
        if product is None or (torch.is_grad_enabled() and not product[0].requires_grad):  # made under no_grad
            product = fold(self.chain, backwards=self.backwards)
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
        first = chain[0]
        self.in_channels, self.out_channels = first.in_channels, chain[-1].out_channels
        self.groups, self.padding = first.groups, first.padding
        self.stride = tuple(math.prod(layer.stride[i] for layer in chain) for i in (0, 1))
        self.kernel_size = tuple(1 + sum(layer.kernel_size[i] - 1 for layer in chain) for i in (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None and not self.folds(x.shape):
            return self.chain(x)
        return F.conv2d(x, *self.product(), self.stride, self.padding, 1, self.groups)

    def folds(self, shape: Sequence[int]) -> bool:
        """Whether an input of ``shape`` (N, m, H, W) costs fewer MACs through the product, its making included."""
        size, through_chain = shape[2:], 0
        for layer in self.chain:
            size = [
                (pixels + 2 * padding - kernel) // stride + 1
                for pixels, padding, kernel, stride in zip(
                    size, layer.padding, layer.kernel_size, layer.stride, strict=True
                )
            ]
            through_chain += math.prod(size) * layer.weight.numel()
        one = math.prod(size) * math.prod(self.kernel_size) * self.in_channels * self.out_channels // self.groups
        return self.fold_macs + shape[0] * one <= shape[0] * through_chain


class ExpandedLinear(Expanded):
    """A linear layer trained as a chain of linear layers: (N, in) to (N, out)."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__(chain)
        self.in_features, self.out_features = chain[0].in_features, chain[-1].out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.product()) if self.kept or self.folds(x.shape) else self.chain(x)

    def folds(self, shape: Sequence[int]) -> bool:
        """Whether an input of ``shape`` (N, in) costs fewer MACs through the product, its making included."""
        rows, through_chain = math.prod(shape[:-1]), sum(layer.weight.numel() for layer in self.chain)
        return self.fold_macs + rows * self.in_features * self.out_features <= rows * through_chain


def expand_conv(conv: nn.Conv2d, kind: Kind, rate: float = 4.0, *, widens_input: bool = True) -> ExpandedConv2d:
    """A chain in place of ``conv``, on its device, with PyTorch's default initial weights.

    Args:
        kind: "cl" for any kernel, "ck" for odd kernels above 3.
        rate: r; inner widths are r times ``conv``'s, rounded to whole channels of each group, at least one.
        widens_input: False: the first layer of the chain gives m channels instead of r m, as the authors' CIFAR code
            has it where the image is read.

    Raises:
        SpecError: ``conv`` or ``rate`` cannot be expanded so.
    """
    _check_rate(rate)
    m, n, (height, width), groups = conv.in_channels, conv.out_channels, conv.kernel_size, conv.groups
    if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise SpecError(f"{conv}: only a convolution without dilation, padded with a number of zeros, can be expanded")
    inner = _widen(m, groups, rate) if widens_input else m
    outer = _widen(n, groups, rate)
    if kind == "cl":
        kernels, widths, strided = [(1, 1), (height, width), (1, 1)], [m, inner, outer, n], 1
    elif kind != "ck":
        raise SpecError(f"kind = {kind!r}: must be 'cl' or 'ck'")
    elif height != width or height % 2 == 0 or height < 5:
        raise SpecError(f"kind = 'ck': needs an odd, square kernel of 5 or more, not {height}x{width}; 'cl' takes any")
    else:
        layers = (height - 1) // 2
        kernels, widths, strided = [(3, 3)] * layers, [m, inner, *[outer] * (layers - 2), n], layers - 1
    chain = [
        nn.Conv2d(
            *widths[i : i + 2],
            kernel,
            stride=conv.stride if i == strided else 1,
            padding=conv.padding if i == 0 else 0,
            groups=groups,
            bias=conv.bias is not None,
        )
        for i, kernel in enumerate(kernels)
    ]
    return ExpandedConv2d(nn.Sequential(*chain).to(conv.weight))


def expand_linear(linear: nn.Linear, rate: float = 4.0) -> ExpandedLinear:
    """FC: a chain of three linear layers in place of ``linear``, with PyTorch's default initial weights.

    Raises:
        SpecError: ``rate`` is no number above 0.
    """
    _check_rate(rate)
    inputs, outputs = linear.in_features, linear.out_features
    widths = [inputs, _widen(inputs, 1, rate), _widen(outputs, 1, rate), outputs]
    bias = linear.bias is not None
    chain = nn.Sequential(*(nn.Linear(*widths[i : i + 2], bias=bias) for i in range(3)))
    return ExpandedLinear(chain.to(linear.weight))


def fold(chain: nn.Sequential, *, backwards: bool = False) -> Product:
    """The weight and bias of the one layer that ``chain`` is, with gradients.

    Two layers with kernels W1 (c, i, ., .) and W2 (o, c, ., .) make one with W[o, i, u, v] = sum over c, a, b of
    W2[o, c, a, b] W1[c, i, u - a, v - b] and b = (sum over a, b of W2) b1 + b2.

    Args:
        backwards: multiply from the last layer on: the same product.
    """
    groups = getattr(chain[0], "groups", 1)
    weights, bias = [layer.weight for layer in chain], chain[0].bias
    # Few numbers, used for many images: bf16 would round them once more for nothing.
    with torch.autocast(weights[0].device.type, enabled=False):
        if bias is not None:
            for layer in chain[1:]:
                sums = layer.weight.flatten(2).sum(2) if layer.weight.dim() > 2 else layer.weight
                bias = (sums.unflatten(0, (groups, -1)) @ bias.view(groups, -1, 1)).flatten() + layer.bias
        while len(weights) > 1:
            if backwards:
                weights[-2:] = [_fold_two(*weights[-2:], groups)]
            else:
                weights[:2] = [_fold_two(*weights[:2], groups)]
    return weights[0], bias


def contract_chain(chain: nn.Sequential) -> nn.Conv2d | nn.Linear:
    """The one layer that ``chain`` is, multiplied in float64 and then in the chain's precision.

    Args:
        chain: convolutions or linear layers and nothing else; it stays as it is.

    Raises:
        SpecError: no one layer could replace it.
    """
    _check_chain(chain)
    first = chain[0]
    with torch.no_grad():
        weight, bias = fold(deepcopy(chain).double())
    if isinstance(first, nn.Linear):
        one: nn.Conv2d | nn.Linear = nn.Linear(first.in_features, chain[-1].out_features, bias=bias is not None)
    else:
        like = ExpandedConv2d(chain)
        one = nn.Conv2d(
            like.in_channels,
            like.out_channels,
            like.kernel_size,
            stride=like.stride,
            padding=like.padding,
            groups=like.groups,
            bias=bias is not None,
        )
    one.weight = nn.Parameter(weight.to(first.weight.dtype))
    if bias is not None:
        one.bias = nn.Parameter(bias.to(first.weight.dtype))
    return one


def _check_chain(chain: nn.Sequential) -> None:
    if not len(chain):
        raise SpecError("an empty nn.Sequential is no chain of layers")
    kind = type(chain[0])
    for i, layer in enumerate(chain):
        if type(layer) is not kind or kind not in (nn.Conv2d, nn.Linear):
            raise SpecError(
                f"layer {i} of the chain is {type(layer).__name__}: a chain that one layer can replace has nothing but "
                "Conv2d layers or nothing but Linear layers, no activation or normalisation between them"
            )
    for i, layer in enumerate(chain):
        if (layer.bias is None) != (chain[0].bias is None):
            raise SpecError(f"layer {i} of the chain: all layers must have a bias, or none")
        if i and (given := len(chain[i - 1].weight)) != (taken := _inputs(layer)):
            raise SpecError(
                f"layer {i} of the chain takes {taken} channels or features, but the one before gives {given}"
            )
        if kind is nn.Linear:
            continue
        plain = layer.dilation == (1, 1) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        if not plain or layer.groups != chain[0].groups:
            raise SpecError(
                f"layer {i} of the chain, {layer}: needs dilation 1, padding with a number of zeros and the first "
                "one's groups"
            )
        if i and layer.padding != (0, 0):
            raise SpecError(
                f"layer {i} of the chain pads its own input by {layer.padding}: all padding must be on the first "
                "layer, else the chain differs from its product at the border"
            )
        if any(after.kernel_size != (1, 1) for after in chain[i + 1 :]) and layer.stride != (1, 1):
            raise SpecError(
                f"layer {i} of the chain has stride {layer.stride}: after a stride only 1x1 layers may follow"
            )


def _inputs(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _fold_two(first: Tensor, second: Tensor, groups: int) -> Tensor:
    if first.dim() == 2:
        return second @ first
    if groups == 1 and second.shape[2:].numel() == 1:
        return (second.flatten(1) @ first.flatten(1)).unflatten(1, first.shape[1:])
    if groups == 1 and first.shape[2:].numel() == 1:
        return torch.einsum("ocab,ci->oiab", second, first.flatten(1))
    # A full convolution of the kernels: the inputs of W1 are the images, and W2, turned around, is the kernel.
    padding = [size - 1 for size in second.shape[2:]]
    return F.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=padding, groups=groups).transpose(0, 1)


def _fold_macs(shapes: Sequence[torch.Size], *, backwards: bool) -> int:
    """Multiplications of :func:`fold`, biases left out: each number of one kernel with each of the next."""
    left, macs = list(shapes), 0
    while len(left) > 1:
        first, second = left[-2:] if backwards else left[:2]
        macs += second.numel() * first[1:].numel()
        size = [a + b - 1 for a, b in zip(first[2:], second[2:], strict=True)]
        left[-2 if backwards else 0 : None if backwards else 2] = [torch.Size((second[0], first[1], *size))]
    return macs


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise SpecError(f"rate = {rate}: must be a number above 0, such as 4")


def _widen(channels: int, groups: int, rate: float) -> int:
    return groups * max(1, round(rate * channels / groups))
