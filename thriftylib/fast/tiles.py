"""Threads that take whole tiles of a batch, and PyTorch's own threads, which step back for them."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from threading import Barrier
from typing import Any

import torch

from thriftylib.errors import ThriftyError

WORTH_SHARING = 2_000_000  # operations on a number: fewer are done before another thread is awake


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


def share(
    function: Callable[[Any], int], fields: ctypes.Structure, tiles: int, work: int, what: str, *kept: Any
) -> None:
    """Let threads call a function of the C code that takes tiles until none is left; with little ``work`` one alone.

    Args:
        fields: its argument; ``next`` is the tile to be taken next.
        work: operations on a number.
        what: is computed.
        kept: lives as long as a thread is at work, even if this one is interrupted.

    Raises:
        ThriftyError: there was no memory.
    """
    fields.next = 0
    threads = min(threads_to_use(), tiles) if work > WORTH_SHARING else 1
    if any(each(lambda _, kept=kept: function(ctypes.byref(fields)), range(threads))):
        raise ThriftyError(f"no memory left for {what}")
