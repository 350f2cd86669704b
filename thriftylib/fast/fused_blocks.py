"""The fast path of a stage on a CPU: convolution, batch norm, ReLU and 2x2 max-pool as one operation.

Batch norm keeps the order of a channel's values, or turns it round where gamma is negative, and ReLU keeps it. So the
largest of four normalised values is the normalised largest (or smallest): it is enough to pool the convolution's
output, which batch norm's statistics have seen whole, and to normalise what is left, a quarter. On the way back the
gradient reaches one pixel of four; what batch norm's statistics send to all pixels is a linear function of the
convolution's output.

All of it is C, in ``native/``: PyTorch's convolutions want more channels, and a stage of eight spends its time between
operations. Without a C compiler there is no fast path. What a stage gives has its images innermost in memory: shape
(N, C, H, W), strides of (C, H, W, N); that is also what it reads fastest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thriftylib.errors import ThriftyError
from thriftylib.fast.compiled import library
from thriftylib.fast.tiles import each, threads_to_use
from thriftylib.papers.expandnets_expansion import ExpandedConv2d

WORTH_SHARING = 2_000_000  # operations on a number: fewer are done before another thread is awake
MOST_INPUTS = 16  # channels: from 32 on PyTorch's convolutions are the faster


def is_stage(module: nn.Module) -> bool:
    """Whether ``module`` is an ``nn.Sequential`` of the four operations, as the fast path serves them."""
    if not isinstance(module, nn.Sequential) or len(module) != 4:
        return False
    conv, norm, relu, pool = module
    return (
        (isinstance(conv, ExpandedConv2d) or (type(conv) is nn.Conv2d and conv.padding_mode == "zeros"))
        and conv.groups == 1
        and conv.in_channels <= MOST_INPUTS
        and conv.stride == (1, 1)
        and getattr(conv, "dilation", (1, 1)) == (1, 1)
        and not isinstance(conv.padding, str)
        and all(pad < size for pad, size in zip(conv.padding, conv.kernel_size, strict=True))
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(relu) is nn.ReLU
        and type(pool) is nn.MaxPool2d
        and (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == (2, 2, 0, 1)
        and not (pool.ceil_mode or pool.return_indices)
    )


def can_serve(dtype: torch.dtype) -> bool:
    """Whether this machine has the compiled code for numbers of ``dtype``."""
    return library("stage", dtype) is not None


class FastStage:
    """The forward of an accelerated stage, in place of its own: (N, C, H, W) to (N, C', H' // 2, W' // 2)."""

    def __init__(self, stage: nn.Sequential) -> None:
        self.stage = stage

    def __call__(self, x: Tensor) -> Tensor:
        stage = self.stage
        if not self._serves(x):
            return type(stage).forward(stage, x)
        conv, norm, *_ = stage
        arguments = norm, conv.padding, x, conv.weight, conv.bias, norm.weight, norm.bias
        return _Stage.apply(*arguments) if stage.training else _Pass(*arguments, keep=False).forward()

    def _serves(self, x: Tensor) -> bool:
        stage = self.stage
        conv, norm, *_ = stage
        layer = conv.chain[0] if isinstance(conv, ExpandedConv2d) else conv
        running = norm.running_mean, norm.running_var
        return (
            stage.training == norm.training == torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and all(t.is_cpu and t.dtype == x.dtype for t in (x, *layer.parameters(), *norm.parameters(), *running))
            and all(statistics.is_contiguous() for statistics in running)
            and x.dim() == 4
            and x.shape[1] == conv.in_channels
            and can_serve(x.dtype)
            and 2 * len(x) >= library("stage", x.dtype).stage_lanes()  # else most of the lanes would be idle
            and min(_map_size(x, conv.kernel_size, conv.padding)) > 1
            # Where gamma is 0, all four pixels are equal: the plain pool takes the first, not the map's largest.
            and bool(norm.weight.all())
        )


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norm: nn.BatchNorm2d, padding: tuple[int, int], x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        weight, _, gamma, _ = parameters
        ctx.walk = _Pass(norm, padding, x, *parameters, keep=True)
        out = ctx.walk.forward()
        norm.num_batches_tracked += 1
        # What is large is autograd's, which lets go of it after the way back; the rest to see that nobody changes it.
        ctx.save_for_backward(*ctx.walk.release("map", "pooled"), x, weight, gamma)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.walk.backward(gradient, *ctx.saved_tensors[:3], wanted=ctx.needs_input_grad[2])


class _Tensor(ctypes.Structure):
    """``struct tensor`` of ``lanes.h``."""

    _fields_ = [("numbers", ctypes.c_void_p), ("strides", 4 * ctypes.c_int64)]

    @classmethod
    def of(cls, tensor: Tensor) -> _Tensor:
        return cls(tensor.data_ptr(), (4 * ctypes.c_int64)(*tensor.stride()))


class _CStage(ctypes.Structure):
    """``struct stage`` of ``stage.c``."""

    _image = "images", "inputs", "height", "width"
    _kernel = "outputs", "kernel_height", "kernel_width", "pad_height", "pad_width"
    _given = "weight", "bias", "gamma", "beta", "running_mean", "running_var"
    _between = "map", "pooled", "sums", "sign", "mean", "invstd", "scale", "shift", "of_map", "constant", "turned"
    _results = "out", "of_gamma", "of_beta", "of_weight", "of_x"
    _fields_ = [
        *((name, ctypes.c_int64) for name in (*_image, *_kernel, "next")),
        *((name, ctypes.c_double) for name in ("momentum", "eps")),
        *((name, _Tensor) for name in ("x", "gradient")),
        *((name, ctypes.c_void_p) for name in (*_given, *_between, *_results)),
    ]


class _Pass:
    """One batch through ``stage.c``, and its way back.

    Args:
        norm: whose running statistics move, or are read.
        padding: of the height and of the width.
        x: (N, C, H, W) with any strides.
        weight: (C', C, k, k').
        bias, gamma, beta: (C',); ``bias`` may be None.
        keep: whether the batch's statistics are taken, and a way back follows; else the running ones are.
    """

    def __init__(
        self,
        norm: nn.BatchNorm2d,
        padding: tuple[int, int],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        *,
        keep: bool,
    ) -> None:
        self.library = library("stage", x.dtype)
        lanes, group = self.library.stage_lanes(), self.library.stage_group()
        outputs, inputs, *kernel = self.shape = weight.shape
        size = _map_size(x, kernel, padding)
        self.like, self.size, self.pooled_size = x.new_empty(0), x.shape, [pixels // 2 for pixels in size]
        self.blocks, groups = -(-len(x) // lanes), -(-outputs // group)
        self.macs = len(x) * size[0] * size[1] * weight.numel()
        self.fields = _CStage(len(x), inputs, *x.shape[2:], outputs, *kernel, *padding, 0, norm.momentum, norm.eps)
        self.fields.x = _Tensor.of(x)
        doubles = x.new_empty(7, outputs, dtype=torch.float64).unbind()
        self.tensors = dict(
            zip(("sign", "mean", "invstd", "scale", "shift", "of_map", "constant"), doubles, strict=True)
        )
        self.tensors |= {
            "sums": x.new_empty(self.blocks, outputs, 2, dtype=torch.float64),
            "weight": weight.contiguous(),
            "turned": x.new_empty(self.shape),
            "bias": None if bias is None else bias.contiguous(),
            "gamma": gamma.contiguous(),
            "beta": beta.contiguous(),
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
            "pooled": x.new_empty(self.blocks, groups, *self.pooled_size, group, lanes),
            "map": x.new_empty(self.blocks, groups, *size, group, lanes) if keep else None,
        }
        self._point(**self.tensors)

    def forward(self) -> Tensor:
        """(N, C', H' // 2, W' // 2)."""
        out = self._images_last(self.shape[0], *self.pooled_size)
        self._point(out=out)
        self._call("turn")
        self._share("forward", self.macs, out)
        self._call("statistics")
        self._share("normalise", out.numel(), out)
        return out

    def release(self, *names: str) -> list[Tensor]:
        """Give away tensors that :meth:`backward` wants back."""
        return [self.tensors.pop(name) for name in names]

    def backward(
        self, gradient: Tensor, map_: Tensor, pooled: Tensor, x: Tensor, *, wanted: bool
    ) -> tuple[Tensor | None, ...]:
        """The gradients of x, if ``wanted``, and of weight, bias, gamma and beta."""
        self._point(map=map_, pooled=pooled)
        self.fields.x, self.fields.gradient = _Tensor.of(x), _Tensor.of(gradient)
        of_gamma, of_beta = of_norm = self.like.new_empty(2, self.shape[0])
        of_weight = self.like.new_empty(self.blocks, *self.shape)
        of_x = self._images_last(*self.size[1:]) if wanted else None
        self._point(of_gamma=of_gamma, of_beta=of_beta, of_weight=of_weight, of_x=of_x)
        self._share("reduce", gradient.numel())
        self._call("of_norm")
        self._share("backward", self.macs, of_weight, of_x)
        self._call("sum")
        of_bias = torch.zeros_like(of_beta) if self.fields.bias else None  # batch norm takes it away with the mean
        return of_x, of_weight[0], of_bias, *of_norm

    def _images_last(self, channels: int, height: int, width: int) -> Tensor:
        images = self.size[0]
        strides = 1, height * width * images, width * images, images
        return self.like.new_empty_strided((images, channels, height, width), strides)

    def _point(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            setattr(self.fields, name, None if tensor is None else tensor.data_ptr())

    def _call(self, name: str) -> int:
        return getattr(self.library, f"stage_{name}")(ctypes.byref(self.fields))

    def _share(self, name: str, work: int, *results: Tensor | None) -> None:
        """Threads take blocks until none is left; one alone where there is too little ``work``.

        ``results`` live as long as a thread is at work, even if this one is interrupted.
        """
        self.fields.next = 0
        threads = min(threads_to_use(), self.blocks) if work > WORTH_SHARING else 1
        if any(each(lambda _, results=results: self._call(name), range(threads))):
            raise ThriftyError(f"no memory left for a stage of {self.shape[0]} channels")


def _map_size(x: Tensor, kernel: Sequence[int], padding: Sequence[int]) -> tuple[int, ...]:
    """(H', W') of the convolution's output."""
    return tuple(n + 2 * pad - k + 1 for n, k, pad in zip(x.shape[2:], kernel, padding, strict=True))
