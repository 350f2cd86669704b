"""The fast path of a conv-BN-ReLU-pool block on a CPU: convolution, batch norm, ReLU and 2x2 max-pool as one operation.

Batch norm keeps the order of a channel's values, or reverses it where gamma is negative, and ReLU keeps it. So the
largest of four normalised values is the normalised largest (or smallest): it is enough to pool the convolution's
output, which batch norm's statistics have seen whole, and to normalise what is left, a quarter. In the backward pass
the gradient reaches one pixel of four; what batch norm's statistics send to all pixels is a linear function of the
convolution's output.

All of it is C, in ``native/``: PyTorch's convolutions want more channels, and a block of eight spends its time between
operations. Without a C compiler there is no fast path. A block's output is in batch-innermost layout, shape
(N, C, H, W) with strides of (C, H, W, N); that is also what it reads fastest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thriftylib.fast.compiled import compiler_version, library, missing
from thriftylib.fast.fused_kernel import Kernel, map_size
from thriftylib.fast.serving import FORWARD_HOOKS, Fast, Like, Mode, is_conv, is_norm

MAX_INPUTS = 16  # channels: from 32 on PyTorch's convolutions are the faster
MAX_LAYERS = (
    3  # of an over-parameterised block: in CK of 9x9, which has four, merging takes the time, the rest is 1.2 x
)
_is_block, _is_relu, _is_pool = (
    Like(nn.Sequential(), "_modules", *FORWARD_HOOKS),
    Like(nn.ReLU()),
    Like(nn.MaxPool2d(2)),
)


class FusedBlock(Fast, nn.Sequential):
    """A block of four modules as one operation: (N, C, H, W) to (N, C', H' // 2, W' // 2)."""

    plain = nn.Sequential
    precisions = ("fp32",)
    name = "fused conv-BN-ReLU-pool"

    @classmethod
    def title(cls) -> str:
        return f"{cls.name} ({compiler_version()})"

    @classmethod
    def missing(cls, dtype: torch.dtype) -> str | None:
        return missing("fused_block", dtype)

    @staticmethod
    def is_meant(block: nn.Sequential) -> bool:
        conv, norm, relu, pool = block._modules.values()
        mode = Mode(block.training, norm.running_mean.dtype)
        return (
            _is_block(block, mode)
            and is_conv(conv, mode)
            and conv.groups == 1
            and conv.in_channels <= MAX_INPUTS
            and len(getattr(conv, "chain", ())) <= MAX_LAYERS
            and all(0 <= pad < size for pad, size in zip(conv.padding, conv.kernel_size, strict=True))
            and is_norm(norm, mode)
            and norm.affine
            and norm.num_features == conv.out_channels
            and _is_relu(relu, mode)
            and _is_pool(pool, mode)
        )

    def takes(self, x: Tensor) -> bool:
        conv, norm, *_ = self
        c_code = library("fused_block", x.dtype)
        return (
            c_code is not None
            and self.training == torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and norm.running_mean.dtype == x.dtype
            and norm.running_mean.is_contiguous()
            and norm.running_var.is_contiguous()
            and x.dim() == 4
            and x.shape[1] == conv.in_channels
            and 2 * len(x) >= c_code.fused_lanes()  # else most of the lanes would be idle
            and min(map_size(x, conv.kernel_size, conv.padding)) > 1
            # Where gamma is 0, all four pixels are equal: the plain pool takes the first, not the map's largest.
            and bool(norm.weight.all())
        )

    def fast_forward(self, x: Tensor) -> Tensor:
        conv, norm, *_ = self
        arguments = norm, conv.padding, x, conv.weight, conv.bias, norm.weight, norm.bias
        return _Block.apply(*arguments) if self.training else Kernel(*arguments, keep=False).forward()


FAST = FusedBlock


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norm: nn.BatchNorm2d, padding: tuple[int, int], x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        weight, _, gamma, _ = parameters
        ctx.kernel = Kernel(norm, padding, x, *parameters, keep=True)
        out = ctx.kernel.forward()
        norm.num_batches_tracked += 1
        # What is large is autograd's, which frees it after the backward pass; the rest to see that nobody changes it.
        ctx.save_for_backward(*ctx.kernel.release("map", "pooled"), x, weight, gamma)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        arguments = gradient.resolve_neg(), *ctx.saved_tensors[:3]
        return None, None, *ctx.kernel.backward(*arguments, needed=ctx.needs_input_grad[2])
