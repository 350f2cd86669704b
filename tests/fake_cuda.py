"""A CUDA device that is not there: tensors with shapes, strides, types and a device, and no numbers.

Within :func:`fake_cuda`, PyTorch's fake tensors refuse an operation on tensors of two devices, and whatever would need
their numbers. On top of that, every wait of the host for the device is counted by the function of ours that causes it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import thriftylib
from thriftylib.papers import ebcle_entropy
from thriftylib.training import streams, trainer

CUDA = torch.device("cuda", 0)
OURS = str(Path(thriftylib.__file__).parent)
_aten = torch.ops.aten


def _one(x: Tensor) -> float | int | bool:
    return True if x.dtype == torch.bool else 1.0 if x.is_floating_point() else 1


_STAND_INS: dict[Any, Callable] = {  # for numbers that only a device could give
    _aten._local_scalar_dense.default: _one,
    _aten.bincount.default: lambda x, *_: x.new_empty(256),
}


class CudaGenerator(torch.Generator):
    """Stands for a generator on the device: the real one cannot be made without."""

    device = CUDA


class Watch(TorchDispatchMode):
    """Counts, by the function of ours, what makes the host wait: numbers read back, and copies between the devices."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.pinned: set[int] = set()
        self.norms: set[torch.dtype] = set()  # of the running statistics that batch norms updated

    def wait(self) -> None:
        """The host waits for the device, because of the innermost function of ours."""
        frame = sys._getframe(1)
        while not frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
            if frame is None:
                return  # the test itself looks
        self.waits[frame.f_code.co_qualname.partition(".<locals>")[0]] += 1

    def tolist(self, x: Tensor) -> Any:
        """``Tensor.tolist``, for which the host waits once."""
        if x.is_cuda:
            self.wait()
        return _ones(x.shape, _one(x))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _STAND_INS:
            if args[0].is_cuda:
                self.wait()
            return _STAND_INS[func](*args)
        if func is _aten._linalg_eigh.default and args[0].is_cuda:
            self.wait()  # for whether it has converged
        result = func(*args, **kwargs)
        tensors = [x for x in (*args, result) if isinstance(x, Tensor)]
        copies = func in (_aten._to_copy.default, _aten.copy_.default) and len({x.device.type for x in tensors}) > 1
        if copies and not (kwargs.get("non_blocking") and id(args[0]) in self.pinned):
            self.wait()
        if "batch_norm" in func.overloadpacket.__name__:
            self.norms |= {x.dtype for x in args[3:5] if isinstance(x, Tensor)}
        return result


class _Methods(TorchFunctionMode):
    """Methods of tensors that a fake one cannot answer, or not as the device does."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.numpy:
            assert not args[0].is_cuda, "numpy reads the CPU's memory alone"
            return np.ones(args[0].shape, str(args[0].dtype).removeprefix("torch."))
        if func is Tensor.pin_memory:
            self.watch.pinned.add(id(args[0]))
            return args[0]
        if func is Tensor.data_ptr:
            return args[0].untyped_storage()._cdata
        result = func(*args, **(kwargs or {}))
        if generator := (kwargs or {}).get("generator"):
            assert generator.device.type == result.device.type, f"{func.__name__}: generator of another device"
        return result


def _ones(shape: torch.Size, one: float) -> Any:
    return [_ones(shape[1:], one) for _ in range(shape[0])] if shape else one


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply``, by new parameters: PyTorch's own cannot move a real one to a fake device."""
    made: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, old in part._parameters.items():
            if old is not None:
                if old not in made:
                    made[old] = nn.Parameter(convert(old.detach()), old.requires_grad)
                part._parameters[name] = made[old]
        for name, old in part._buffers.items():
            if old is not None:
                part._buffers[name] = convert(old)
    return module


class _Serial:
    """A thread pool without threads, which would leave the modes."""

    def __init__(self, threads: int) -> None:
        self.map = map

    def __enter__(self) -> _Serial:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def fake_cuda() -> Iterator[Watch]:
    """Within it ``CUDA`` can be named; real tensors become fake ones where they are used.

    The backward pass cannot run there: its place takes a gradient for each parameter, of the parameter's strides.
    """
    real_stream = streams.stream

    def stream(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
        if torch.device(device).type == "cpu":
            return real_stream(device, seed, *names)
        return CudaGenerator().manual_seed(streams.stream_seed(seed, *names))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "stream", stream)
        patch.setattr(ebcle_entropy, "ThreadPoolExecutor", _Serial)
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.autograd, "grad", lambda loss, inputs, *_: [torch.zeros_like(x) for x in inputs])
        with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch, _Methods(watch):
            patch.setattr(FakeTensor, "tolist", lambda x: watch.tolist(x))
            yield watch
