"""Trainings side by side, each in a process of its own.

A small network keeps neither two cores nor a GPU busy: its operations are too short. Several trainings at once do. They
share nothing but the folders that they write to, so each ends with the weights that it would end with alone on as many
threads; only the times in its record are those of a machine that others use too.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from thriftylib.errors import BusyError, DiedError, ThriftyError
from thriftylib.spec import Run
from thriftylib.training.signals import collect_signals, start_ignoring_interrupts

Stop = Literal["budget", "signal", "busy"]
"""Why runs are missing in the end; ``busy``: other processes train all that are."""
LOOK = 0.2  # seconds between two looks for a signal


@dataclass
class Queue:
    """Runs that wait for their training, in order.

    A run waits for the one from whose weights it starts. With ``expected``, the seconds that each run takes, the first
    that ends within the time left comes next. Where none does, one that has a checkpoint (``begun``) goes on, else the
    first begins: what it does until the time is up is kept in a checkpoint too.
    """

    waiting: list[Run]
    expected: Mapping[str, float] | None = None
    begun: Callable[[Run], bool] = lambda run: False
    running: list[Run] = field(default_factory=list)
    busy: list[Run] = field(default_factory=list)

    def next(self, left: float | None) -> Run | None:
        """Take the next run, with so many seconds left; None: none can start now."""
        absent = {(run.configuration, run.seed) for run in (*self.waiting, *self.running, *self.busy)}
        ready = [run for run in self.waiting if (run.parent, run.seed) not in absent]
        if self.expected is not None and left is not None:
            fitting = [run for run in ready if self.expected.get(run.id, math.inf) <= left]
            ready = fitting or sorted(ready, key=lambda run: not self.begun(run))
        if not ready:
            return None
        self.waiting.remove(ready[0])
        self.running.append(ready[0])
        return ready[0]

    def ended(self, run: Run, busy: str | None = None) -> None:
        """A run has ended, or never begun: another process trains it, as ``busy`` says."""
        self.running.remove(run)
        if busy:
            self.busy.append(run)
            print(f"run {run.id} is left out: {busy}", file=sys.stderr)


@dataclass
class _Training:
    run: Run
    process: BaseProcess
    answer: connection.Connection


def train_in_parallel(
    queue: Queue,
    jobs: int,
    arguments: dict[str, Any],
    deadline: float | None,
    announce: Callable[[Run, int, int], None] | None,
) -> Stop | None:
    """Train the runs in their order, ``jobs`` at once.

    Args:
        arguments: of :func:`thriftylib.training.engine.train`, but for the run and its budget.
        deadline: when they stop, by the monotonic clock.
        announce: called before each training with the run, its number and how many there are.

    Returns:
        What stopped them.

    Raises:
        ThriftyError: what a training raised, or how its process died. The others have stopped then, with checkpoints.
    """
    running, of = list[_Training](), len(queue.waiting)
    stopped: Stop | None = None
    asked = False
    with collect_signals() as received:
        try:
            while running or (queue.waiting and not stopped):
                if (received or stopped == "signal") and not asked:
                    stopped, asked = "signal", True
                    _ask_to_stop(running)
                elif deadline is not None and time.monotonic() >= deadline:
                    stopped = stopped or "budget"
                left = None if deadline is None else deadline - time.monotonic()
                while not stopped and len(running) < jobs and (run := queue.next(left)):
                    if announce:
                        announce(run, of - len(queue.waiting), of)
                    running.append(_start(run, arguments, deadline))
                if not running and not stopped:  # the parents of all that wait are busy
                    break
                connection.wait([training.process.sentinel for training in running], LOOK)
                for training in [training for training in running if not training.process.is_alive()]:
                    running.remove(training)
                    why, busy = _what_stopped(training, asked or bool(received))
                    queue.ended(training.run, busy)
                    stopped = why or stopped
        finally:
            if not asked:
                _ask_to_stop(running)
            for training in running:
                training.process.join()
    return stopped


def _start(run: Run, arguments: dict[str, Any], deadline: float | None) -> _Training:
    context = multiprocessing.get_context("spawn")
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(end, run.model_dump(mode="json"), arguments, deadline))
    with start_ignoring_interrupts():  # this process acts on Ctrl-C and asks the others
        process.start()
    end.close()
    return _Training(run, process, answer)


def _train(
    answer: connection.Connection, run: dict[str, Any], arguments: dict[str, Any], deadline: float | None
) -> None:
    """In the process: train, then tell what stopped it, what was wrong, and which other process trains the run."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    from thriftylib.training.engine import train  # imports torch

    left = None if deadline is None else max(0.0, deadline - time.monotonic())  # the clock is the machine's
    try:
        told = (train(Run.model_validate(run), **arguments, budget=left).stopped, None, None)
    except BusyError as error:
        told = (None, None, str(error))
    except ThriftyError as error:
        told = (None, str(error), None)
    with suppress(OSError):  # nobody is there any more
        answer.send(told)


def _stop_with_parent() -> None:
    """However the process that started this one ends: else a killed one's trainings would go on unseen."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _ask_to_stop(running: Sequence[_Training]) -> None:
    for training in running:
        training.process.terminate()


def _what_stopped(training: _Training, asked: bool) -> tuple[Stop | None, str | None]:
    """Of a process that has ended: what stopped it, and which other process trains its run."""
    code = training.process.exitcode
    try:
        stopped, error, busy = training.answer.recv()
    except EOFError:
        if asked and code == -signal.SIGTERM:  # before the training had begun, or after its last step
            return "signal", None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        message = f"run {training.run.id}: its process {how}; the same command goes on from its checkpoint"
        raise DiedError(message) from None
    if error:
        raise ThriftyError(error)
    return stopped, busy
