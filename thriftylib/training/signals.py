"""The signals that end a training, taken between two steps: all alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

_AGAIN = ("SIGINT", "SIGTERM")  # of a person, who may insist; batch systems may send the others several times
_STOPPING = (*_AGAIN, "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPPING = tuple(getattr(signal, name) for name in _STOPPING if hasattr(signal, name))
"""Ctrl-C, a terminal that closes, and what batch systems send before the end."""
_collected: list[list[int]] = []  # that of the outermost context


def collecting() -> bool:
    """Whether signals are collected now: work goes on that a signal ends in order."""
    return bool(_collected)


@contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Collect ``STOPPING`` instead of dying in the middle of a step; contexts within each other share one list.

    A second Ctrl-C or SIGTERM acts as usual. But a process of a parallel training ignores it: it may get one signal
    from outside, as part of its group, and one more from the process that started it. A hang-up that is ignored
    (``nohup``) stays so.
    """
    if _collected or threading.current_thread() is not threading.main_thread():
        yield _collected[0] if _collected else []
        return
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if signal.Signals(number).name in _AGAIN:
            signal.signal(number, signal.SIG_IGN if parent_process() else before[number])

    before = {number: signal.getsignal(number) for number in STOPPING}
    if before.get(hang_up := getattr(signal, "SIGHUP", None)) is signal.SIG_IGN:
        del before[hang_up]
    _collected.append(received)
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        _collected.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def start_ignoring_interrupts() -> Iterator[None]:
    """A process started inside ignores Ctrl-C, which reaches every process of a terminal, until it says otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
