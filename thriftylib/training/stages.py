"""The fast path of a stage on a CPU: convolution, batch norm, ReLU and 2x2 max-pool as one operation.

Batch norm keeps the order of a channel's values, or turns it round where gamma is negative, and ReLU keeps it. So the
largest of four normalised values is the normalised largest (or smallest): it is enough to pool the convolution's
output, which batch norm's statistics have seen whole, and to normalise what is left, a quarter. On the way back the
gradient reaches one pixel of four; what batch norm's statistics send to all pixels is a linear function of the
convolution's output.

The batch is cut into groups of images, a thread each, and their sums are added in the groups' order: the result is the
same to the last bit on any number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thriftylib.papers.expandnets_chains import ExpandedConv2d
from thriftylib.training.groups import Buffers, aten, channel_sums, cut, each, rows

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
        self.stage, self.conv, self.norm, self.buffers = stage, stage[0], stage[1], Buffers()

    def __call__(self, x: Tensor) -> Tensor:
        plain = self.stage.training != torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        if plain or len(x) < 2 or not self.norm.weight.all():  # gamma = 0: all four are equal, and the first is taken
            return type(self.stage).forward(self.stage, x)
        x = x.contiguous(memory_format=torch.channels_last)
        if not self.stage.training:
            return self._evaluate(x)
        norm = self.norm
        return _Stage.apply(self, x, self.conv.weight, self.conv.bias, norm.weight, norm.bias)

    def _evaluate(self, x: Tensor) -> Tensor:
        """With batch norm as a part of the convolution."""
        conv, norm = self.conv, self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        weight = _channels_last(conv.weight * scale[:, None, None, None])

        def walk(c: slice) -> Tensor:
            return F.max_pool2d(F.conv2d(x[c], weight, shift, padding=conv.padding), 2).clamp_min_(0)

        return torch.cat(each(walk, self.groups(x, weight)))

    def groups(self, x: Tensor, weight: Tensor) -> list[slice]:
        """The batch in parts, by the size of the convolution's output."""
        return cut(len(x), len(weight) * x[0, 0].numel())


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fast: FastStage, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor
    ) -> Tensor:
        norm, padding = fast.norm, fast.conv.padding
        # With the sign of a negative gamma in the convolution, the largest value is the one that survives the pool.
        sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
        turned = _channels_last(weight * sign[:, None, None, None])
        groups = fast.groups(x, weight)

        def walk(c: slice) -> tuple[Tensor, ...]:
            y = F.conv2d(x[c], turned, padding=padding)  # a bias would be taken away again with the mean
            return y, *torch.batch_norm_update_stats(y, None, None, 0.0), *aten.max_pool2d_with_indices(y, *_POOL)

        maps, means, variances, pooled, places = zip(*each(walk, groups), strict=True)
        pixels = maps[0][0, 0].numel()
        counts = torch.tensor([float(pixels * len(y)) for y in maps], dtype=torch.float64)
        total = pixels * len(x)
        means, variances = torch.stack(means).double(), torch.stack(variances).double()
        mean = counts @ means / total
        var = counts @ (variances + (means - mean).square()) / total
        norm.num_batches_tracked += 1
        seen = mean * sign if bias is None else mean * sign + bias
        norm.running_mean.lerp_(seen.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((var * (total / (total - 1))).to(norm.running_var), norm.momentum)
        invstd = (var + norm.eps).rsqrt()
        scale = invstd * gamma.abs()
        largest = torch.cat(pooled)
        factor, constant = (v.to(x).repeat(largest.shape[3]) for v in (scale, beta - mean * scale))
        out = torch.empty_like(largest)
        torch.addcmul(constant, rows(largest), factor, out=rows(out)).clamp_min_(0)
        ctx.save_for_backward(x, turned, sign, gamma, largest, out, mean, invstd, *maps, *places)
        ctx.fast, ctx.has_bias = fast, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, turned, sign, gamma, largest, out, mean, invstd, *kept = ctx.saved_tensors
        maps, places = kept[: len(kept) // 2], kept[len(kept) // 2 :]
        fast, wanted = ctx.fast, ctx.needs_input_grad[1]
        groups = fast.groups(x, turned)
        g = aten.threshold_backward(_channels_last(gradient), out, 0)
        of_beta = channel_sums(g)
        # Of the normalised map: only the largest of four pixels gets a gradient.
        of_gamma = (channel_sums(g * largest).double() - mean * of_beta) * invstd
        # scale (g - mean(g) - normalised mean(g normalised)) as a linear function of g and of the convolution's output
        total = maps[0][0, 0].numel() * len(x)
        scale = invstd * gamma.abs()
        of_map = -scale * invstd * of_gamma / total
        constant = -scale * of_beta / total - of_map * mean
        rows(g).mul_(scale.to(x).repeat(g.shape[3]))
        of_map, constant = (v.to(x).repeat(maps[0].shape[3]) for v in (of_map, constant))

        def walk(number: int) -> tuple[Tensor, Tensor]:
            c, y = groups[number], maps[number]
            back = aten.max_pool2d_with_indices_backward(g[c], y, *_POOL, places[number])
            rows(back).addcmul_(rows(y), of_map).add_(constant)
            of_x, of_weight, _ = aten.convolution_backward(
                back,
                x[c],
                turned,
                None,
                [1, 1],
                list(fast.conv.padding),
                [1, 1],
                False,
                [0, 0],
                1,
                [wanted, True, False],
            )
            return of_x, of_weight

        of_x, of_weights = zip(*each(walk, range(len(groups))), strict=True)
        of_weight = torch.stack(of_weights).sum(0) * sign[:, None, None, None]
        of_bias = torch.zeros_like(gamma) if ctx.has_bias else None  # the mean takes it away
        return None, torch.cat(of_x) if wanted else None, of_weight, of_bias, (of_gamma * sign).to(gamma), of_beta


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
