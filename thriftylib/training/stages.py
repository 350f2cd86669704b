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
from thriftylib.papers.expandnets_chains import ExpandedConv2d
from thriftylib.training.compiled import library
from thriftylib.training.groups import each, threads_to_use

ALONE = 2_000_000  # multiplications: a loop of fewer is over before another thread is awake


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
        return (
            stage.training == torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and x.dim() == 4
            and len(x) > 1
            and x.shape[1] == conv.in_channels
            and x.dtype == norm.weight.dtype
            and can_serve(x.dtype)
            and min(_map_size(x, conv.kernel_size, conv.padding)) > 1
            # Where gamma is 0, all four pixels are equal: the plain pool takes the first, not the map's largest.
            and bool(norm.weight.all())
        )


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, padding: tuple[int, int], x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.done = _Pass(norm, padding, x, *parameters, keep=True)
        ctx.save_for_backward(x)  # that nobody has changed it is seen on the way back
        norm.num_batches_tracked += 1
        return ctx.done.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018
        return None, None, *ctx.done.backward(gradient, wanted=ctx.needs_input_grad[2])


class _Tensor(ctypes.Structure):
    """``struct tensor`` of ``lanes.h``."""

    _fields_ = [("numbers", ctypes.c_void_p), ("strides", 4 * ctypes.c_int64)]

    @classmethod
    def of(cls, tensor: Tensor) -> _Tensor:
        return cls(tensor.data_ptr(), (4 * ctypes.c_int64)(*tensor.stride()))


class _Fields(ctypes.Structure):
    """``struct stage`` of ``stage.c``."""

    _image = "images", "inputs", "height", "width"
    _kernel = "outputs", "kernel_height", "kernel_width", "pad_height", "pad_width"
    _given = "weight", "bias", "gamma", "beta", "running_mean", "running_var"
    _between = "map", "pooled", "sums", "mean", "invstd", "scale", "shift", "of_map", "constant", "turned"
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
        self.x, self.pooled_size = x, [pixels // 2 for pixels in size]
        self.blocks, groups = -(-len(x) // lanes), -(-outputs // group)
        self.macs = len(x) * size[0] * size[1] * weight.numel()
        doubles = x.new_empty(6 + 2 * self.blocks, outputs, dtype=torch.float64)
        numbers = dict(zip(("mean", "invstd", "scale", "shift", "of_map", "constant", "sums"), doubles, strict=False))
        self.tensors = numbers | {
            "weight": weight.contiguous(),
            "turned": x.new_empty(self.shape),
            "bias": bias,
            "gamma": gamma,
            "beta": beta,
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
            "pooled": x.new_empty(self.blocks, groups, *self.pooled_size, group, lanes),
            "map": x.new_empty(self.blocks, groups, *size, group, lanes) if keep else None,
        }
        self.fields = _Fields(len(x), inputs, *x.shape[2:], outputs, *kernel, *padding, 0, norm.momentum, norm.eps)
        self.fields.x = _Tensor.of(x)
        self._point(**self.tensors)

    def forward(self) -> Tensor:
        """(N, C', H' // 2, W' // 2)."""
        out = self.x.new_empty(self.shape[0], *self.pooled_size, len(self.x))
        self._point(out=out)
        self._call("turn")
        self._share("forward", self.macs)
        self._call("statistics")
        self._share("normalise", out.numel())
        return out.permute(3, 0, 1, 2)

    def backward(self, gradient: Tensor, *, wanted: bool) -> tuple[Tensor | None, ...]:
        """The gradients of x, if ``wanted``, and of weight, bias, gamma and beta."""
        images, inputs, *size = self.x.shape
        self.fields.gradient = _Tensor.of(gradient)
        of_norm = self.x.new_empty(2, self.shape[0])
        of_weight = self.x.new_empty(self.blocks, *self.shape)
        of_x = self.x.new_empty(inputs, *size, images).permute(3, 0, 1, 2) if wanted else None
        self._point(of_gamma=of_norm[0], of_beta=of_norm[1], of_weight=of_weight, of_x=of_x)
        self._share("reduce", gradient.numel())
        self._call("of_norm")
        self._share("backward", self.macs)
        of_bias = torch.zeros_like(of_norm[0]) if self.fields.bias else None  # batch norm takes it away with the mean
        return of_x, of_weight.sum(0), of_bias, *of_norm

    def _point(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            setattr(self.fields, name, None if tensor is None else tensor.data_ptr())

    def _call(self, name: str) -> int:
        return getattr(self.library, f"stage_{name}")(ctypes.byref(self.fields))

    def _share(self, name: str, work: int) -> None:
        """Threads take blocks until none is left; one alone where ``work``, in multiplications, is too little."""
        self.fields.next = 0
        threads = min(threads_to_use(), self.blocks) if work > ALONE else 1
        if any(each(lambda _: self._call(name), range(threads))):
            raise ThriftyError(f"no memory left for a stage of {self.shape[0]} channels")


def _map_size(x: Tensor, kernel: Sequence[int], padding: Sequence[int]) -> tuple[int, ...]:
    """(H', W') of the convolution's output."""
    return tuple(n + 2 * pad - k + 1 for n, k, pad in zip(x.shape[2:], kernel, padding, strict=True))
