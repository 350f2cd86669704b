"""What :mod:`thriftylib.fast.kernels` is made of: batches cut into groups, threads that take whole groups,
maps kept from step to step, and the operations on one group. Maps are (N, f, H, W) with the channels last in memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten
GROUP_BYTES = 1_400_000  # of one fp32 map: the fastest of 0.35 to 2.8 MB, for 32 and for 172 filters
SMALL_BYTES = 250_000  # of a whole batch's fp32 map: one group
_MINUS_ONE = torch.tensor(-1.0)


def cut(images: int, numbers: int) -> list[slice]:
    """``images`` of ``numbers`` numbers each, in equal groups that fit the cache; always the same, so that results are.

    Their count is a multiple of four, for two or four threads to end together, except where starting the operations
    would take longer than doing them.
    """
    total = 4 * numbers * images
    count = min(images, 4 * math.ceil(total / (4 * GROUP_BYTES)) if total > SMALL_BYTES else 1)
    return [slice(start, stop) for start, stop in pairwise(images * i // count for i in range(count + 1))]


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch itself uses one thread, without gradients."""
    pool, all_there = ThreadPoolExecutor(count), Barrier(count)
    before = torch.get_num_threads()

    def start(_: int) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first question makes it take the process's setting, 1 for the moment
        torch.set_grad_enabled(False)
        all_there.wait()

    list(pool.map(start, range(count)))
    torch.set_num_threads(before)  # a helper's own setting is not to become the process's
    return pool


_shared: ContextVar[int] = ContextVar("_shared", default=0)


@contextmanager
def sharing_threads() -> Iterator[None]:
    """Inside, PyTorch's own operations use one thread, and :func:`each` all that they might have used.

    For training steps whose work is in :func:`each`: PyTorch's threads wait for their next operation by spinning, and
    the little that is left to them keeps them spinning on the cores that the groups want.
    """
    threads = torch.get_num_threads()
    token = _shared.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _shared.reset(token)


def threads_to_use() -> int:
    """How many threads :func:`each` works on."""
    return _shared.get() or torch.get_num_threads()


def each(body: Callable[[Any], Any], groups: Iterable[Any]) -> list[Any]:
    """``body`` of every group, on as many threads as PyTorch may use; the results in the groups' order.

    One thread per group beats all threads on each operation: nobody waits for a thread that another process holds up.
    The calling thread takes its share.
    """
    threads = threads_to_use()
    if threads == 1:
        return list(map(body, groups))
    todo = deque(enumerate(groups))
    results: list[Any] = [None] * len(todo)
    helpers = min(threads, len(todo)) - 1

    def work() -> None:
        while todo:
            try:
                number, group = todo.popleft()
            except IndexError:  # another thread took the last
                return
            results[number] = body(group)

    with nullcontext() if _shared.get() else sharing_threads():
        others = [_helpers(threads - 1).submit(work) for _ in range(helpers)]
        try:
            work()
        finally:
            todo.clear()
            wait(others)
    for other in others:
        other.result()
    return results


class Buffers:
    """Whole maps, kept from step to step: memory fresh from the system costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[Tensor]] = {}

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A map of at least ``shape[0]`` images; what it holds is left over."""
        free = self._free.setdefault((dtype, *shape[1:]), [])
        while free:
            buffer = free.pop()
            if len(buffer) >= shape[0]:
                return buffer
        return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)

    def give(self, buffer: Tensor) -> None:
        """Hand a map back."""
        self._free[(buffer.dtype, *buffer.shape[1:])].append(buffer)


def rows(x: Tensor) -> Tensor:
    """(N, f, H, W) as (N H, W f), the same memory: long rows are what makes broadcasting over channels fast."""
    n, f, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * height, width * f)


def flat(x: Tensor) -> Tensor:
    """The numbers as one row, the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1)


def channel_sums(x: Tensor) -> Tensor:
    """(N, f, H, W) to (f,)."""
    return rows(x).sum(0).view(x.shape[3], x.shape[1]).sum(0)


@dataclass(frozen=True)
class Activation:
    """An activation whose gradient follows from its result alone."""

    forward: Callable[[Tensor, Tensor], Tensor]  # (x, out) -> out; x is scratch
    backward: Callable[[Tensor, Tensor], Tensor]  # (gradient, result) -> the gradient, in place


def activation(module: nn.Module) -> Activation | None:
    """How to compute ``module``; None where its gradient needs more than its result."""
    match module:
        case nn.Tanh():
            return Activation(_tanh, lambda g, a: aten.tanh_backward.grad_input(g, a, grad_input=g))
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
    return None


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return torch.tanh(x, out=out)
    # 2 sigmoid(2x) - 1, within 2e-7 of tanh: seven times faster in PyTorch's vector code.
    torch.sigmoid(x.mul_(2), out=out)
    return torch.add(_MINUS_ONE, out, alpha=2, out=out)


@dataclass(frozen=True)
class Layer:
    """A convolution without bias: 3x3 with padding 1, in groups, or 1x1."""

    source: Tensor  # the weight whose gradient is wanted
    weight: Tensor  # the same in the precision of the maps
    groups: int

    @classmethod
    def of(cls, conv: nn.Module, dtype: torch.dtype) -> Layer:
        """The layer that ``conv`` is, or that the chain ``conv`` makes."""
        source = conv.weight
        return cls(source, source.detach().to(dtype), conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        """(n, f, H, W) to (n, f', H, W)."""
        if self.weight.shape[2] == 1:
            return _as_images(F.conv2d(_as_lines(x), self.weight), x.shape[2])
        return F.conv2d(x, self.weight, padding=1, groups=self.groups)

    def backward(self, x: Tensor, gradient: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
        """The gradients with respect to ``x`` (if ``wanted``) and to the weight."""
        pointwise = self.weight.shape[2] == 1
        padding = [0, 0] if pointwise else [1, 1]
        args = (_as_lines(gradient), _as_lines(x)) if pointwise else (gradient, x)
        of_input, of_weight, _ = aten.convolution_backward(
            *args, self.weight, None, [1, 1], padding, [1, 1], False, [0, 0], self.groups, [wanted, True, False]
        )
        return _as_images(of_input, x.shape[2]) if pointwise and wanted else of_input, of_weight


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
