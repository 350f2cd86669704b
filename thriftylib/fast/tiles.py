"""Batches cut into tiles of images that fit the cache, threads that take whole tiles, maps kept from step to step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

TILE_BYTES = 1_400_000  # of one fp32 map: the fastest of 0.35 to 2.8 MB, for 32 and for 172 filters
SMALL_BYTES = 250_000  # of a whole batch's fp32 map: one tile


def cut(images: int, elements: int) -> list[slice]:
    """``images`` of ``elements`` each, in equal tiles that fit the cache; always the same, so that results are.

    Their count is a multiple of four, for two or four threads to end together, except where starting the operations
    would take longer than doing them.
    """
    total = 4 * elements * images
    count = min(images, 4 * math.ceil(total / (4 * TILE_BYTES)) if total > SMALL_BYTES else 1)
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
    the little that is left to them keeps them spinning on the cores that the tiles need.
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


def each(body: Callable[[Any], Any], tiles: Iterable[Any]) -> list[Any]:
    """``body`` of every tile, on as many threads as PyTorch may use; the results in the tiles' order.

    One thread per tile beats all threads on each operation: nobody waits for a thread that another process holds up.
    The calling thread takes its share.
    """
    threads = threads_to_use()
    if threads == 1:
        return list(map(body, tiles))
    todo = deque(enumerate(tiles))
    results: list[Any] = [None] * len(todo)
    helpers = min(threads, len(todo)) - 1

    def work() -> None:
        while todo:
            try:
                number, tile = todo.popleft()
            except IndexError:  # another thread took the last
                return
            results[number] = body(tile)

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
