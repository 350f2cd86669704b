"""The recursion's operations on the maps of one tile, (n, f, H, W) with channels last in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten


def rows(x: Tensor) -> Tensor:
    """(n, f, H, W) as (n H, W f), the same memory: long rows are what makes broadcasting over channels fast."""
    n, f, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * height, width * f)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The sum of the products of all elements."""
    return torch.dot(x.permute(0, 2, 3, 1).reshape(-1), y.permute(0, 2, 3, 1).reshape(-1))


def channel_sums(x: Tensor) -> Tensor:
    """(n, f, H, W) to (f,)."""
    return rows(x).sum(0).view(x.shape[3], x.shape[1]).sum(0)


@dataclass(frozen=True)
class Activation:
    """An activation whose gradient follows from its result alone."""

    forward: Callable[[Tensor, Tensor], Tensor]  # (x, out) -> out
    backward: Callable[[Tensor, Tensor], Tensor]  # (gradient, result) -> the gradient, in place


def activation(module: nn.Module) -> Activation:
    """How to compute ``module``, which is a Tanh, ReLU or LeakyReLU."""
    match module:
        case nn.Tanh():
            return Activation(
                lambda x, out: torch.tanh(x, out=out),
                lambda g, a: aten.tanh_backward.grad_input(g, a, grad_input=g),
            )
        case nn.ReLU():
            return Activation(
                lambda x, out: torch.clamp_min(x, 0, out=out),
                lambda g, a: aten.threshold_backward.grad_input(g, a, 0, grad_input=g),
            )
        case nn.LeakyReLU(negative_slope=slope):
            return Activation(
                lambda x, out: aten.leaky_relu.out(x, slope, out=out),
                lambda g, a: aten.leaky_relu_backward.grad_input(g, a, slope, True, grad_input=g),
            )
    raise NotImplementedError(type(module).__name__)


@dataclass(frozen=True)
class Conv:
    """A convolution without bias: 3x3 with padding 1, in groups, or 1x1."""

    source: Tensor  # the weight whose gradient is needed
    weight: Tensor  # the same in the precision of the maps
    groups: int

    @classmethod
    def of(cls, conv: nn.Module, dtype: torch.dtype) -> Conv:
        """What ``conv`` computes; an over-parameterised block is multiplied for it."""
        weight = conv.weight
        return cls(weight, weight.detach().to(dtype), conv.groups)

    @property
    def pointwise(self) -> bool:
        """Whether the kernel is 1x1."""
        return self.weight.shape[2] == 1

    def forward(self, x: Tensor) -> Tensor:
        """(n, f, H, W) to (n, f', H, W)."""
        if self.pointwise:
            return _as_images(F.conv2d(_as_lines(x), self.weight), x.shape[2])
        return F.conv2d(x, self.weight, padding=1, groups=self.groups)

    def backward(self, x: Tensor, gradient: Tensor, needed: bool) -> tuple[Tensor | None, Tensor]:
        """The gradients with respect to ``x`` (if ``needed``) and to the weight."""
        args = (_as_lines(gradient), _as_lines(x)) if self.pointwise else (gradient, x)
        padding = [0, 0] if self.pointwise else [1, 1]
        grad_x, grad_weight, _ = aten.convolution_backward(
            *args, self.weight, None, [1, 1], padding, [1, 1], False, [0, 0], self.groups, [needed, True, False]
        )
        return _as_images(grad_x, x.shape[2]) if self.pointwise and needed else grad_x, grad_weight


def leaves(convs: nn.Module) -> list[nn.Module]:
    """The convolutions of one iteration, in their order; an over-parameterised block counts as one."""
    return list(convs) if isinstance(convs, nn.Sequential) else [convs]


def _as_lines(x: Tensor) -> Tensor:
    """Each line of pixels as an image, (n H, f, 1, W): PyTorch gives 1x1 convolutions of many images to oneDNN."""
    n, f, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * height, 1, width, f).permute(0, 3, 1, 2)


def _as_images(x: Tensor, height: int) -> Tensor:
    lines, f, _, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(lines // height, height, width, f).permute(0, 3, 1, 2)


def unpool(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of ``x`` (n, f, H, W) from that of its 2x2 max-pool; the arg max is found anew."""
    _, places = F.max_pool2d(x, 2, return_indices=True)
    return aten.max_pool2d_with_indices_backward(gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)
