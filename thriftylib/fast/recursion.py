"""The fast path of ThriftyNet's recursion on a CPU: the plain module's numbers, several times sooner.

The plain recursion is bound by memory, not by arithmetic: each of its small operations walks over a map of the whole
batch (70 MB for 100 images of 32x32 and 172 filters), and each result is fresh memory that the operating system must
first map and clear. Here one iteration is one walk: the batch is cut into groups of images that fit the cache, and
convolution, activation, weighted sum and batch norm's sums are done on one group before the next is touched. The
normalisation itself waits until the next walk reads the group. Backward walks the same way and recomputes what is cheap
(the 3x3 convolution, the arg max of the pools). Whole maps live in buffers that are kept from step to step: two per
iteration, where autograd keeps four.

Each thread takes whole groups, and the groups' sums are added in the groups' order: however many threads share the
work, and whichever is first, the result is the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thriftylib.fast.recursion_passes import Pass
from thriftylib.fast.tiles import Activation, Buffers, cut, each
from thriftylib.papers.thriftynet_recursion import ThriftyNet


class FastRecursion:
    """The forward of an accelerated ThriftyNet, in place of its own."""

    def __init__(self, network: ThriftyNet, activation: Activation, dtype: torch.dtype) -> None:
        self.network, self.activation, self.dtype, self.buffers = network, activation, dtype, Buffers()

    def __call__(self, images: Tensor) -> Tensor:
        network = self.network
        if len(images) < 2 or network.training != torch.is_grad_enabled():
            return type(network).forward(network, images)
        if not network.training:
            return self._evaluate(images)
        with torch.autocast("cpu", enabled=False):  # the precision of each operation is chosen here
            walks = Pass(network, self.activation, self.buffers, self.dtype)
            result = _Recursion.apply(walks, images, *walks.parameters)
        return network.head(result)

    def _evaluate(self, images: Tensor) -> Tensor:
        """The plain forward, group by group."""
        network, bf16 = self.network, torch.is_autocast_enabled("cpu")

        def walk(c: slice) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return type(network).forward(network, images[c].contiguous(memory_format=torch.channels_last))

        return torch.cat(each(walk, cut(len(images), network.filters * images[0, 0].numel())))


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walks: Pass, images: Tensor, *parameters: Tensor) -> Tensor:
        ctx.walks = walks
        ctx.save_for_backward(*parameters)
        return walks.forward(images, ctx.needs_input_grad[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if one has changed since the forward pass
        walks, ctx.walks = ctx.walks, None
        if walks is None:
            raise RuntimeError("an accelerated ThriftyNet's graph can be walked backward only once")
        images, gradients = walks.backward(gradient)
        return None, images, *(gradients[parameter] for parameter in walks.parameters)
