"""The fast path of a stage on a CPU: convolution, batch norm, ReLU and 2x2 max-pool as one operation.

Batch norm keeps the order of a channel's values, or turns it round where gamma is negative, and ReLU keeps it. So the
largest of four normalised values is the normalised largest (or smallest): it is enough to pool the convolution's
output, which batch norm's statistics have seen whole, and to normalise what is left, a quarter. On the way back the
gradient reaches one pixel of four; what batch norm's statistics send to all pixels is a linear function of the
convolution's output.

The batch is cut into parts that fit a core's cache, which threads take in turn, and the parts' sums are added in their
order: the result is the same to the last bit on any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thriftylib.papers.expandnets_chains import ExpandedConv2d
from thriftylib.training.groups import aten, channel_sums, each, equal, rows

PART_BYTES = 1_100_000  # of a part's fp32 map, at most: what a core's own cache holds
_POOL: tuple[Any, ...] = ([2, 2], [2, 2], [0, 0], [1, 1], False)


def is_stage(module: nn.Module) -> bool:
    """Whether ``module`` is an ``nn.Sequential`` of the four operations, as the fast path serves them."""
    if not isinstance(module, nn.Sequential) or len(module) != 4:
        return False
    conv, norm, relu, pool = module
    return (
        (isinstance(conv, ExpandedConv2d) or (type(conv) is nn.Conv2d and conv.padding_mode == "zeros"))
        and conv.groups == 1
        and conv.stride == (1, 1)
        and getattr(conv, "dilation", (1, 1)) == (1, 1)
        and not isinstance(conv.padding, str)
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(relu) is nn.ReLU
        and type(pool) is nn.MaxPool2d
        and (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == (2, 2, 0, 1)
        and not (pool.ceil_mode or pool.return_indices)
    )


class FastStage:
    """The forward of an accelerated stage, in place of its own: (N, C, H, W) to (N, C', H' // 2, W' // 2)."""

    def __init__(self, stage: nn.Sequential) -> None:
        self.stage = stage

    def __call__(self, x: Tensor) -> Tensor:
        stage = self.stage
        plain = stage.training != torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or len(x) < 2
        # Where gamma is 0, all four pixels are equal: the plain pool takes the first, not the convolution's largest.
        if plain or not stage[1].weight.all():
            return type(stage).forward(stage, x)
        x = x.contiguous(memory_format=torch.channels_last)
        if not stage.training:
            return self._evaluate(x)
        conv, norm, *_ = stage
        return _Stage.apply(norm, conv.padding, x, conv.weight, conv.bias, norm.weight, norm.bias)

    def _evaluate(self, x: Tensor) -> Tensor:
        """With batch norm as a part of the convolution."""
        conv, norm, *_ = self.stage
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        weight = _channels_last(conv.weight * scale[:, None, None, None])

        def walk(c: slice) -> Tensor:
            return F.max_pool2d(F.conv2d(x[c], weight, shift, padding=conv.padding), 2).clamp_min_(0)

        return _join(each(walk, _parts(x, weight, conv.padding)))


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        norm: nn.BatchNorm2d,
        padding: tuple[int, int],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
    ) -> Tensor:
        # With the sign of a negative gamma in the convolution, the largest value is the one that survives the pool.
        sign = gamma.sign()
        turned = _channels_last(weight * sign[:, None, None, None])

        def walk(c: slice) -> tuple[Tensor, ...]:
            # A bias would be taken away again with the mean. Images of one channel come out with their channels first.
            y = _channels_last(F.conv2d(x[c], turned, padding=padding))
            mean = channel_sums(y) / (y.numel() // len(gamma))
            apart = rows(y) - mean.repeat(y.shape[3])
            return y, mean, _fold_row(apart.mul_(apart).sum(0), gamma), *aten.max_pool2d_with_indices(y, *_POOL)

        parts = _parts(x, weight, padding)
        maps, means, squares, pooled, places = zip(*each(walk, parts), strict=True)
        pixels = maps[0][0, 0].numel()
        total = pixels * len(x)
        mean = sum(m * (len(y) / len(x)) for m, y in zip(means, maps, strict=True))
        between = (pixels * len(y) * (m - mean).square() for m, y in zip(means, maps, strict=True))
        square = sum(squares) + (sum(between) if len(maps) > 1 else 0.0)
        norm.num_batches_tracked += 1
        seen = mean * sign if bias is None else torch.addcmul(bias, mean, sign)
        norm.running_mean.lerp_(seen, norm.momentum)
        norm.running_var.lerp_(square / (total - 1), norm.momentum)
        invstd = (square / total + norm.eps).rsqrt()
        scale = invstd * gamma.abs()
        largest = _join(pooled)
        repeat = largest.shape[3]
        out = torch.empty_like(largest)
        shift = torch.addcmul(beta, mean, scale, value=-1)
        torch.addcmul(shift.repeat(repeat), rows(largest), scale.repeat(repeat), out=rows(out)).clamp_min_(0)
        ctx.save_for_backward(x, turned, sign, scale, largest, out, mean, invstd, *maps, *places)
        ctx.parts, ctx.padding, ctx.has_bias = parts, list(padding), bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, turned, sign, scale, largest, out, mean, invstd, *kept = ctx.saved_tensors
        maps, places = kept[: len(ctx.parts)], kept[len(ctx.parts) :]
        wanted = ctx.needs_input_grad[2]
        g = aten.threshold_backward(_channels_last(gradient), out, 0)
        of_beta = channel_sums(g)
        # Of the normalised map: only the largest of four pixels gets a gradient.
        of_gamma = (_fold_row((rows(g) * rows(largest)).sum(0), mean) - mean * of_beta) * invstd
        # scale (g - mean(g) - normalised mean(g normalised)) as a linear function of g and of the convolution's output
        total = maps[0][0, 0].numel() * len(x)
        of_map = scale * invstd * of_gamma / -total
        constant = scale * of_beta / -total - of_map * mean
        rows(g).mul_(scale.repeat(g.shape[3]))
        of_map, constant = of_map.repeat(maps[0].shape[3]), constant.repeat(maps[0].shape[3])

        def walk(part: tuple[slice, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            c, y, places = part
            back = aten.max_pool2d_with_indices_backward(g[c], y, *_POOL, places)
            rows(back).addcmul_(rows(y), of_map).add_(constant)
            of_x, of_weight, _ = aten.convolution_backward(
                back, x[c], turned, None, [1, 1], ctx.padding, [1, 1], False, [0, 0], 1, [wanted, True, False]
            )
            return of_x, of_weight

        of_x, of_weights = zip(*each(walk, zip(ctx.parts, maps, places, strict=True)), strict=True)
        of_weight = sum(of_weights) * sign[:, None, None, None]
        of_bias = torch.zeros_like(mean) if ctx.has_bias else None  # the mean takes it away
        return None, None, _join(of_x) if wanted else None, of_weight, of_bias, of_gamma * sign, of_beta


def _parts(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> list[slice]:
    """The batch in parts, always the same, so that results are; twice as many where they would be too large."""
    height, width = (x.shape[i] + 2 * padding[i - 2] - weight.shape[i] + 1 for i in (2, 3))
    total = 4 * len(x) * len(weight) * height * width
    count = 1 << math.ceil(math.log2(max(1, total / PART_BYTES)))
    return equal(len(x), count)


def _fold_row(row: Tensor, like: Tensor) -> Tensor:
    """A sum over :func:`rows`, (W C,), as one over all pixels, (C,)."""
    return row.view(-1, len(like)).sum(0)


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
