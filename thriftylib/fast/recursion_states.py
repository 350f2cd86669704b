"""What ``native/recursion.c`` is given of one iteration, and the states of a recursion that it is about."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch
from torch import Tensor


class Part(ctypes.Structure):
    """``struct part``."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("map", "scale", "shift", "coefficient", "grad_coefficient")]


class Fields(ctypes.Structure):
    """``struct recursion``."""

    _sizes = "images height width channels narrow group filters classic tiles next activation count"
    _forward = "own map scale shift mean parts activated result weight grouped kernel back depthwise sums gamma beta"
    _norm = "running_mean running_var result_mean result_scale result_shift invstd"
    _backward = "pooled gradient result_gradient factor result_factor constant grad_own dots grad_kernel grad_depthwise"
    _sums = "sum_kernel sum_depthwise grad_weight grad_grouped grad_gamma grad_beta"
    _made = "made_factor made_result_factor made_constant"
    _fields_ = [
        *((name, ctypes.c_int64) for name in _sizes.split()),
        *((name, ctypes.c_double) for name in ("slope", "momentum", "eps")),
        *((name, ctypes.c_void_p) for name in f"{_forward} {_norm} {_backward} {_sums} {_made}".split()),
    ]

    def point(self, **tensors: Tensor | None) -> None:
        """Where tensors are that outlive the call."""
        for name, tensor in tensors.items():
            setattr(self, name, None if tensor is None else tensor.data_ptr())


@dataclass(eq=False)
class State:
    """One state at one resolution."""

    map: Tensor  # (N, H, W, channels): of what an iteration mixed, of the images, or of what a pool left
    needed: bool = True  # whether its gradient is
    made: Normalised | None = None  # what batch norm makes of the map; None: it stays as it is
    mixed: list[tuple[Step, int]] = field(default_factory=list)  # the iterations that mix it in, by which coefficient
    reader: Step | None = None  # the one whose convolution reads it
    pooled: State | None = None
    gradient: Tensor | None = None


class Normalised:
    """Batch norm of one iteration: its factors for the map, and those from a gradient to the map's."""

    def __init__(self, t: int, channels: int, filters: int, dtype: torch.dtype) -> None:
        self.t = t
        self.mean, self.scale, self.shift = torch.zeros(3, channels, dtype=dtype)
        self.factors = torch.zeros(3, channels, dtype=dtype)
        self.invstd = torch.empty(filters, dtype=torch.float64)


@dataclass(eq=False)
class Step:
    """Iteration t: what it reads and leaves."""

    t: int
    states: list[State]
    result: State
    activated: Tensor | None  # None: not kept


class Kernels:
    """W of one iteration or of all, as the C code has it, and its gradient."""

    def __init__(self, channels: int, depth: int, real: torch.dtype, dtype: torch.dtype) -> None:
        self.kernel, self.back = torch.zeros(2, channels * depth, dtype=dtype)
        self.depthwise = torch.zeros(9 * channels, dtype=real)
        self.sum_kernel, self.sum_depthwise = (
            torch.zeros(channels * depth, dtype=real),
            torch.zeros_like(self.depthwise),
        )
