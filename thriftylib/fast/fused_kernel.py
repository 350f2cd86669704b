"""One batch through ``native/fused_block.c``: its fields, its maps and the order of its calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thriftylib.fast.compiled import library
from thriftylib.fast.tiles import share


class _Tensor(ctypes.Structure):
    """``struct tensor`` of ``vectors.h``."""

    _fields_ = [("numbers", ctypes.c_void_p), ("strides", 4 * ctypes.c_int64)]

    @classmethod
    def of(cls, tensor: Tensor) -> _Tensor:
        return cls(tensor.data_ptr(), (4 * ctypes.c_int64)(*tensor.stride()))


class _Fields(ctypes.Structure):
    """``struct fused_block`` of ``fused_block.c``."""

    _sizes = "images inputs height width outputs kernel_height kernel_width pad_height pad_width next"
    _channels = "sign mean invstd scale shift map_factor map_constant"
    _given = "weight bias gamma beta running_mean running_var"
    _results = "out grad_gamma grad_beta grad_weight grad_x"
    _fields_ = [
        *((name, ctypes.c_int64) for name in _sizes.split()),
        *((name, ctypes.c_double) for name in ("momentum", "eps")),
        *((name, _Tensor) for name in ("x", "gradient")),
        *((name, ctypes.c_void_p) for name in f"{_given} map pooled sums {_channels} negated {_results}".split()),
    ]


class Kernel:
    """The forward pass of one batch and its backward pass.

    Args:
        norm: whose running statistics move, or are read.
        padding: of the height and of the width.
        x: (N, C, H, W) with any strides.
        parameters: weight (C', C, k, k'), bias (C',) or None, gamma and beta (C',).
        keep: whether the batch's statistics are taken, and a backward pass follows; else the running ones are.
    """

    def __init__(
        self, norm: nn.BatchNorm2d, padding: tuple[int, int], x: Tensor, *parameters: Tensor | None, keep: bool
    ) -> None:
        self.library, (weight, *vectors) = library("fused_block", x.dtype), parameters
        lanes, group = self.library.fused_lanes(), self.library.fused_group()
        outputs, inputs, *kernel = self.shape = weight.shape
        size = map_size(x, kernel, padding)
        self.like, self.size, self.pooled_size = x.new_empty(0), x.shape, [pixels // 2 for pixels in size]
        self.tiles, groups = -(-len(x) // lanes), -(-outputs // group)
        self.macs = len(x) * size[0] * size[1] * weight.numel()
        self.fields = _Fields(len(x), inputs, *x.shape[2:], outputs, *kernel, *padding, 0, norm.momentum, norm.eps)
        self.fields.x = _Tensor.of(x)
        channels = _Fields._channels.split()
        doubles = x.new_empty(len(channels), outputs, dtype=torch.float64)
        self.tensors = dict(zip(channels, doubles, strict=True)) | {
            "sums": x.new_empty(self.tiles, outputs, 2, dtype=torch.float64),
            "weight": weight.contiguous(),
            "negated": x.new_empty(self.shape),
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
            "pooled": x.new_empty(self.tiles, groups, *self.pooled_size, group, lanes),
            "map": x.new_empty(self.tiles, groups, *size, group, lanes) if keep else None,
        }
        for name, vector in zip(("bias", "gamma", "beta"), vectors, strict=True):
            self.tensors[name] = None if vector is None else vector.contiguous()
        self._point(**self.tensors)

    def forward(self) -> Tensor:
        """(N, C', H' // 2, W' // 2)."""
        out = self._batch_innermost(self.shape[0], *self.pooled_size)
        self._point(out=out)
        self._call("negate")
        self._share("forward", self.macs, out)
        self._call("statistics")
        self._share("normalise", out.numel(), out)
        return out

    def release(self, *names: str) -> list[Tensor]:
        """Give away tensors that :meth:`backward` needs again."""
        return [self.tensors.pop(name) for name in names]

    def backward(
        self, gradient: Tensor, map_: Tensor, pooled: Tensor, x: Tensor, *, needed: bool
    ) -> tuple[Tensor | None, ...]:
        """The gradients of x, if ``needed``, and of weight, bias, gamma and beta."""
        self._point(map=map_, pooled=pooled)
        self.fields.x, self.fields.gradient = _Tensor.of(x), _Tensor.of(gradient)
        grad_gamma, grad_beta = self.like.new_empty(2, self.shape[0])
        grad_weight = self.like.new_empty(self.tiles, *self.shape)
        grad_x = self._batch_innermost(*self.size[1:]) if needed else None
        self._point(grad_gamma=grad_gamma, grad_beta=grad_beta, grad_weight=grad_weight, grad_x=grad_x)
        self._share("reduce", gradient.numel())
        self._call("norm_gradients")
        self._share("backward", self.macs, grad_weight, grad_x)
        self._call("sum")
        grad_bias = torch.zeros_like(grad_beta) if self.fields.bias else None  # batch norm takes it away with the mean
        return grad_x, grad_weight[0], grad_bias, grad_gamma, grad_beta

    def _batch_innermost(self, channels: int, height: int, width: int) -> Tensor:
        images = self.size[0]
        strides = 1, height * width * images, width * images, images
        return self.like.new_empty_strided((images, channels, height, width), strides)

    def _point(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            setattr(self.fields, name, None if tensor is None else tensor.data_ptr())

    def _call(self, name: str) -> int:
        return getattr(self.library, f"fused_{name}")(ctypes.byref(self.fields))

    def _share(self, name: str, work: int, *results: Tensor | None) -> None:
        what = f"a block of {self.shape[0]} channels"
        share(getattr(self.library, f"fused_{name}"), self.fields, self.tiles, work, what, *results)


def map_size(x: Tensor, kernel: Sequence[int], padding: Sequence[int]) -> tuple[int, ...]:
    """(H', W') of the convolution's output."""
    return tuple(n + 2 * pad - k + 1 for n, k, pad in zip(x.shape[2:], kernel, padding, strict=True))
