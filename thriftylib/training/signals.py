"""Ctrl-C and SIGTERM, taken between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process


@contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step.

    A second one acts as usual; but it is ignored in a process of a training side by side, which may get one signal from
    outside, as part of its group, and one more from the process that started it.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_IGN if parent_process() else before[number])

    for number in watched:
        signal.signal(number, note)
    try:
        yield received
    finally:
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
