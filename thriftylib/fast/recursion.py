"""The fast path of ThriftyNet's recursion on a CPU: the plain module's numbers, several times sooner.

The plain recursion is bound by memory, not by arithmetic: each of its small operations reads a map of the whole batch
(70 MB for 100 images of 32x32 and 172 filters), and each result is fresh memory that the operating system must first
map and clear. Here one iteration is one pass over the batch, by C code of our own: convolution, activation, weighted
sum and batch norm's sums are done on some rows of an image before the next are touched. The normalisation itself waits
until the next pass reads the rows. The backward pass goes the same way and recomputes what is cheap (the grouped
convolution, the arg max of the pools); a state's gradient takes the place of the activation that it no longer needs.
Maps are kept from step to step: two per iteration, where autograd keeps four.

Each thread takes whole tiles of images, and sums over tiles are added in the tiles' order: however many threads share
the work, and whichever is first, the result is the same to the last bit.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thriftylib.fast.compiled import missing
from thriftylib.fast.recursion_kernel import Plan, leaves
from thriftylib.fast.serving import FORWARD_HOOKS, Fast, Like, Mode, is_conv, is_list, is_norm, is_sequential
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.papers.thriftynet_recursion import ThriftyNet

_FREE = ("iterations", "pools", "kept_states", *FORWARD_HOOKS)
with torch.device("meta"):
    _is_recursion = {
        kind: Like(ThriftyNet(ThriftyNetOptions(filters=3, iterations=1, recursion=kind), nn.Identity()), *_FREE)
        for kind in ("plain", "augmented")
    }
_is_activation = [Like(nn.Tanh()), Like(nn.ReLU()), Like(nn.LeakyReLU(), "negative_slope")]
_plans: WeakKeyDictionary[ThriftyNet, dict[tuple[Any, ...], list[Plan]]] = WeakKeyDictionary()  # those not in use
EVALUATED = 64  # images at once: their maps stay in the cache, and are few


class FastThriftyNet(Fast, ThriftyNet):
    """A ThriftyNet whose recursion is computed tile by tile; the head is called as ever."""

    plain = ThriftyNet
    precisions = ("fp32", "bf16")
    name = "tiled recursion"

    @classmethod
    def missing(cls, dtype: torch.dtype) -> str | None:
        return missing("recursion", dtype)

    @staticmethod
    def is_meant(network: ThriftyNet) -> bool:
        alpha = network._parameters["alpha"]
        mode = Mode(network.training, network.norms[0].running_mean.dtype)
        return (
            _is_recursion["plain" if alpha is None else "augmented"](network, mode)
            and network.iterations > 0
            and _fits(alpha, network.iterations, network.kept_states)
            and is_list(network.convs, mode)
            and is_list(network.norms, mode)
            and all(is_norm(norm, mode) and norm.num_features == network.filters for norm in network.norms)
            and all(_is_convolution(convs, network.filters, mode) for convs in network.convs)
            and len({tuple(conv.weight.shape for conv in leaves(convs)) for convs in network.convs}) == 1
            and any(is_activation(network.activation, mode) for is_activation in _is_activation)
            and getattr(network.activation, "negative_slope", 0.0) >= 0  # else the result does not tell the sign
        )

    def takes(self, images: Tensor) -> bool:
        dtype, autocast = self.norms[0].running_mean.dtype, torch.is_autocast_enabled("cpu")
        reduced = autocast and torch.get_autocast_dtype("cpu") == torch.bfloat16 and dtype == torch.float32
        return (
            images.dim() == 4
            and len(images) > 1
            and images.shape[1] <= self.filters
            and self.training == torch.is_grad_enabled()
            and (reduced if autocast else images.dtype == dtype)
            and images.dtype in ({torch.float32, torch.bfloat16} if reduced else {torch.float32, torch.float64})
        )

    def fast_forward(self, images: Tensor) -> Tensor:
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else images.dtype
        with torch.autocast("cpu", enabled=False):  # the precision of each operation is chosen here
            if not self.training:
                return self.head(torch.cat([self._evaluate(part, dtype) for part in images.split(EVALUATED)]))
            plan = self._plan(images, dtype, self._weights())
            weights = [weight for layers in plan.weights for weight in layers]
            affine = [parameter for norm in self.norms[: self.iterations] for parameter in norm.parameters()]
            parameters = list(dict.fromkeys([*weights, *affine, *([] if self.alpha is None else [self.alpha])]))
            result = _Recursion.apply(plan, self, parameters, images, *parameters)
        return self.head(result)

    def _weights(self) -> list[list[Tensor]]:
        """Of each iteration's convolutions; an over-parameterised block multiplies its own."""
        return [[conv.weight for conv in leaves(convs)] for convs in self.convs[: self.iterations]]

    def _evaluate(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        plan = self._plan(images, dtype, self._weights())
        result = plan.forward(self, images)
        plan.give_back()
        return result

    def _plan(self, images: Tensor, dtype: torch.dtype, weights: list[list[Tensor]]) -> Plan:
        """One that nobody uses; whoever has it gives it back after the batch."""
        needed = self.training and images.requires_grad
        columns = None if self.alpha is None else self.alpha.shape[1]
        structure = self.iterations, self.pools, self.kept_states, self.filters, len(self.norms), columns
        layouts = tuple(tuple(weight.shape for weight in layers) for layers in weights)
        key = images.shape, dtype, self.training, needed, *structure, layouts
        free = _plans.setdefault(self, {}).setdefault(key, [])
        plan = free.pop() if free else Plan(self, images.shape, dtype, training=self.training, needed=needed)
        plan.weights, plan.pool = weights, free
        return plan


FAST = FastThriftyNet


def _fits(alpha: Tensor | None, iterations: int, states: int) -> bool:
    if alpha is None:
        return states == 1
    return alpha.dim() == 2 and iterations <= alpha.shape[0] and 0 < states <= alpha.shape[1]


def _is_convolution(convs: nn.Module, filters: int, mode: Mode) -> bool:
    """Whether ``convs`` is a 3x3 convolution or a grouped one and a 1x1, as RecursionOptions.conv names them."""
    layers = leaves(convs)
    if isinstance(convs, nn.Sequential) and not is_sequential(convs, mode):
        return False
    if not all(is_conv(layer, mode) for layer in layers):
        return False
    narrow = layers[0].out_channels
    plain = [inner for layer in layers for inner in layer.modules() if type(inner) is nn.Conv2d]
    found = [(x.in_channels, x.out_channels, x.kernel_size, x.padding, x.groups) for x in layers]
    classic = [(filters, filters, (3, 3), (1, 1), 1)]
    factorised = [(filters, narrow, (3, 3), (1, 1), narrow), (narrow, filters, (1, 1), (0, 0), 1)]
    return found in (classic, factorised) and all(layer.bias is None for layer in plain)


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, network: ThriftyNet, names: list[Tensor], images: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.plan, ctx.network, ctx.names = plan, network, names  # by their own objects: these are views of them
        ctx.save_for_backward(*parameters)
        return plan.forward(network, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if one has changed since the forward pass
        plan, ctx.plan = ctx.plan, None
        if plan is None:
            raise RuntimeError("the graph of an accelerated ThriftyNet serves one backward pass only")
        images, gradients = plan.backward(ctx.network, gradient)
        plan.give_back()
        return None, None, None, images, *(gradients[parameter] for parameter in ctx.names)
