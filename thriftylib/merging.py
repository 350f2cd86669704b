"""A chain of convolutions or of linear layers, nothing between them, merged into the one layer that it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial, reduce
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.errors import SpecError

T = TypeVar("T")
Product = tuple[Tensor, Tensor | None]
"""Weight and bias of one layer."""


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


def multiplications(chain: nn.Sequential, *, from_last: bool) -> int:
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
    one = single_layer(chain, chain[0].weight.device)
    with torch.no_grad():
        for name, value in zip(("weight", "bias"), merge(deepcopy(chain).double()), strict=True):
            setattr(one, name, None if value is None else nn.Parameter(value.to(chain[0].weight.dtype)))
    return one


def single_layer(chain: nn.Sequential, device: torch.device | str = "meta") -> nn.Conv2d | nn.Linear:
    """A layer of the shape of the one that ``chain`` is, with weights of its own."""
    first, last, has_bias = chain[0], chain[-1], chain[0].bias is not None
    if isinstance(first, nn.Linear):
        return nn.Linear(first.in_features, last.out_features, bias=has_bias, device=device)
    kernel = tuple(1 + sum(layer.kernel_size[i] - 1 for layer in chain) for i in (0, 1))
    stride = tuple(math.prod(layer.stride[i] for layer in chain) for i in (0, 1))
    geometry = {"stride": stride, "padding": first.padding, "groups": first.groups}
    return nn.Conv2d(first.in_channels, last.out_channels, kernel, **geometry, bias=has_bias, device=device)


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
        if not is_plain(layer) or layer.groups != first.groups:
            yield i, "needs dilation 1, padding with a number of zeros and the first one's groups"
        if i and layer.padding != (0, 0):
            pads = f"pads its own input by {layer.padding}"
            yield i, f"{pads}: all padding must be on the first layer, or the border differs"
        if layer.stride != (1, 1) and any(after.kernel_size != (1, 1) for after in chain[i + 1 :]):
            yield i, f"has stride {layer.stride}: after a stride only 1x1 layers may follow"


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether ``conv`` has no dilation and is padded with a number of zeros."""
    return conv.dilation == (1, 1) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
