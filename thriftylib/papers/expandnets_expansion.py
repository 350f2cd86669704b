"""The operation of ExpandNets: a layer becomes a chain of layers, and the chain is contracted into one layer.

A chain computes what the product of its layers computes. So training merges it first, with gradients for every layer,
wherever that costs fewer MACs than running the chain: the numbers are the chain's, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial, reduce
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.errors import SpecError

T = TypeVar("T")
Kind = Literal["cl", "ck"]
"""How a convolution is expanded."""
Product = tuple[Tensor, Tensor | None]
"""Weight and bias of one layer."""


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
        first, last = (_multiplications(chain, from_last=from_last) for from_last in (False, True))
        self.from_last, self.merge_macs = last < first, min(first, last)

    def layer(self) -> nn.Conv2d | nn.Linear:
        """The one layer's shape, with weights of its own."""
        raise NotImplementedError

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
        kernel = (
            len(self.chain[-1].weight) * self.chain[0].weight.shape[1] * math.prod(getattr(self, "kernel_size", ()))
        )
        return self.merge_macs + count * math.prod(size) * kernel <= count * macs

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
        first = chain[0]
        self.in_channels, self.out_channels = first.in_channels, chain[-1].out_channels
        self.groups, self.padding = first.groups, first.padding
        self.stride = tuple(math.prod(layer.stride[i] for layer in chain) for i in (0, 1))
        self.kernel_size = tuple(1 + sum(layer.kernel_size[i] - 1 for layer in chain) for i in (0, 1))

    def layer(self) -> nn.Conv2d:
        shape = self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding
        return nn.Conv2d(*shape, groups=self.groups, bias=self.chain[0].bias is not None)

    def apply_product(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.product(), self.stride, self.padding, 1, self.groups)


class ExpandedLinear(Expanded):
    """A linear layer trained as a chain of linear layers: (N, ..., in) to (N, ..., out)."""

    def layer(self) -> nn.Linear:
        return nn.Linear(self.chain[0].in_features, self.chain[-1].out_features, bias=self.chain[0].bias is not None)

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
    if not _is_plain(conv):
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


def merge(chain: nn.Sequential, *, from_last: bool = False) -> Product:
    """The weight and bias of the one layer that ``chain`` is, with gradients.

    Two layers with kernels W1 (c, i, ., .) and W2 (o, c, ., .) make one with W[o, i, u, v] = sum over c, a, b of
    W2[o, c, a, b] W1[c, i, u - a, v - b] and b = (sum over a, b of W2) b1 + b2.

    Args:
        from_last: multiply from the last layer on: the same product.
    """
    groups, bias = getattr(chain[0], "groups", 1), chain[0].bias
    # Few numbers, used for many images: bf16 would round them once more for nothing.
    with torch.autocast(chain[0].weight.device.type, enabled=False):
        if bias is not None:
            for layer in chain[1:]:
                sums = layer.weight[..., None].flatten(2).sum(2)  # over the kernel's pixels; a linear layer has one
                bias = (sums.unflatten(0, (groups, -1)) @ bias.view(groups, -1, 1)).flatten() + layer.bias
        weight = _fold(partial(_merge_two, groups=groups), [layer.weight for layer in chain], from_last)
    return weight, bias


def _fold(combine: Callable[[T, T], T], factors: Sequence[T], from_last: bool) -> T:
    """``factors`` combined two by two, from the first or from the last on."""
    if from_last:
        return reduce(lambda later, earlier: combine(earlier, later), reversed(factors))
    return reduce(combine, factors)


def _merge_two(first: Tensor, second: Tensor, groups: int) -> Tensor:
    if groups == 1 and second.shape[2:].numel() == 1:  # linear layers too
        return (second.flatten(1) @ first.flatten(1)).unflatten(1, first.shape[1:])
    if groups == 1 and first.shape[2:].numel() == 1:
        return torch.einsum("ocab,ci->oiab", second, first.flatten(1))
    # A full convolution of the kernels: the inputs of W1 are the images, and W2, flipped, is the kernel.
    padding = [size - 1 for size in second.shape[2:]]
    return F.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=padding, groups=groups).transpose(0, 1)


def _multiplications(chain: nn.Sequential, *, from_last: bool) -> int:
    """Those of :func:`merge`, biases left out: each number of one kernel with each of the next."""
    macs = 0

    def product(first: torch.Size, second: torch.Size) -> torch.Size:
        nonlocal macs
        macs += second.numel() * first[1:].numel()
        return torch.Size((second[0], first[1], *(a + b - 1 for a, b in zip(first[2:], second[2:], strict=True))))

    _fold(product, [layer.weight.shape for layer in chain], from_last)
    return macs


def contract_chain(chain: nn.Sequential) -> nn.Conv2d | nn.Linear:
    """The one layer that ``chain`` is, merged in float64 and then in the chain's precision.

    Args:
        chain: convolutions or linear layers and nothing else; it stays as it is.

    Raises:
        SpecError: no one layer could replace it.
    """
    if not len(chain):
        raise SpecError("an empty nn.Sequential is no chain of layers")
    for i, layer in enumerate(chain):
        if type(layer) is not type(chain[0]) or type(layer) not in (nn.Conv2d, nn.Linear):
            raise SpecError(
                f"layer {i} of the chain is {type(layer).__name__}: a chain that one layer can replace has nothing but "
                "Conv2d layers or nothing but Linear layers, no activation or normalisation between them"
            )
    for i, fault in _faults(chain):
        raise SpecError(f"layer {i} of the chain {fault}")
    one = (ExpandedLinear if isinstance(chain[0], nn.Linear) else ExpandedConv2d)(chain).layer()
    with torch.no_grad():
        for name, value in zip(("weight", "bias"), merge(deepcopy(chain).double()), strict=True):
            setattr(one, name, None if value is None else nn.Parameter(value.to(chain[0].weight.dtype)))
    return one


def _faults(chain: nn.Sequential) -> Iterator[tuple[int, str]]:
    """Layers because of which one layer cannot replace the ``chain``, and what is wrong with each."""
    first, linear = chain[0], isinstance(chain[0], nn.Linear)
    for i, layer in enumerate(chain):
        inputs, given = layer.in_features if linear else layer.in_channels, len(chain[i - 1].weight)
        if (layer.bias is None) != (first.bias is None):
            yield i, "differs from the first one: all layers must have a bias, or none"
        if i and inputs != given:
            yield i, f"takes {inputs} channels or features, but the one before gives {given}"
        if linear:
            continue
        if not _is_plain(layer) or layer.groups != first.groups:
            yield i, "needs dilation 1, padding with a number of zeros and the first one's groups"
        if i and layer.padding != (0, 0):
            yield (
                i,
                f"pads its own input by {layer.padding}: all padding must be on the first layer, or the border differs",
            )
        if layer.stride != (1, 1) and any(after.kernel_size != (1, 1) for after in chain[i + 1 :]):
            yield i, f"has stride {layer.stride}: after a stride only 1x1 layers may follow"


def _is_plain(conv: nn.Conv2d) -> bool:
    return conv.dilation == (1, 1) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
