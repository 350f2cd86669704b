"""Less Is More's proximal steps in C: all neurons of a layer by one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from thriftylib.errors import ThriftyError
from thriftylib.fast.compiled import library


class _Neurons(ctypes.Structure):
    """``struct neurons`` of ``proximal.c``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "size")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "weight_momentum", "bias_momentum")),
    ]


def group_sparsity(weight: Tensor, bias: Tensor | None, step: float, momenta: Sequence[Tensor | None]) -> bool:
    """The step of :func:`~thriftylib.papers.less_is_more_method.group_sparsity`; False: left to PyTorch's operators."""
    code = _code(weight, bias, *momenta)
    if code:
        code.group_sparsity(_neurons(weight, bias, *momenta), ctypes.c_double(step))
    return bool(code)


def low_rank(weight: Tensor, bias: Tensor | None, step: float, momenta: Sequence[Tensor | None]) -> bool:
    """The step of :func:`~thriftylib.papers.less_is_more_method.low_rank`; False: left to PyTorch's operators.

    Raises:
        ThriftyError: there was no memory.
    """
    code = _code(weight, bias, *momenta) if step else None  # without a step, the squares of tiny filters may matter
    if code:
        sizes = [(3 * ctypes.c_int64)(*sizes) for sizes in (weight.shape[1:], weight.stride()[1:])]
        if code.low_rank(_neurons(weight, bias, *momenta), *sizes, ctypes.c_double(step)):
            raise ThriftyError("no memory left for a low-rank step")
    return bool(code)


def _code(*tensors: Tensor | None) -> ctypes.CDLL | None:
    """The code for these tensors; None: some are not where or how it needs them, or no compiler works here."""
    dtype = tensors[0].dtype
    for tensor in tensors:
        if tensor is not None and not (tensor.is_cpu and tensor.dtype == dtype and _in_a_row(tensor)):
            return None
    return library("proximal", dtype)


def _in_a_row(tensor: Tensor) -> bool:
    """Whether each neuron's numbers follow on the last one's, in whatever order (contiguous or channels_last)."""
    return tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def _neurons(weight: Tensor, *others: Tensor | None) -> _Neurons:
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in (weight, *others)]
    return _Neurons(len(weight), weight.numel() // len(weight), *pointers)
