"""Trainings side by side, each in a process of its own.

A small network keeps neither two cores nor a GPU busy: its operations are too short. Several trainings at once do. They
share nothing but the folders that they write to, so each ends with the weights that it would end with alone on as many
threads; only the times in its record are those of a machine that others use too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from thriftylib.errors import DiedError, ThriftyError
from thriftylib.spec import Run
from thriftylib.training.signals import collect_signals, starting_deaf_to_interrupts

Stop = Literal["budget", "signal"]
LOOK = 0.2  # seconds between two looks for a signal


@dataclass
class _Training:
    run: Run
    process: BaseProcess
    answer: connection.Connection


def train_side_by_side(
    todo: Sequence[Run],
    jobs: int,
    arguments: dict[str, Any],
    deadline: float | None,
    announce: Callable[[Run, int, int], None] | None,
) -> Stop | None:
    """Train the runs in their order, ``jobs`` at once; a run waits for the one from whose weights it starts.

    Args:
        arguments: of :func:`thriftylib.training.engine.train`, but for the run and its budget.
        deadline: when they stop, by the monotonic clock.
        announce: called before each training with the run, its number and how many there are.

    Returns:
        What stopped them.

    Raises:
        ThriftyError: what a training raised, or how its process died. The others have stopped then, with checkpoints.
    """
    waiting, running = list(todo), list[_Training]()
    stopped: Stop | None = None
    asked = False
    with collect_signals() as received:
        try:
            while running or (waiting and not stopped):
                if (received or stopped == "signal") and not asked:
                    stopped, asked = "signal", True
                    _ask_to_stop(running)
                elif deadline is not None and time.monotonic() >= deadline:
                    stopped = stopped or "budget"
                while not stopped and len(running) < jobs and (run := _next(waiting, running)):
                    waiting.remove(run)
                    if announce:
                        announce(run, len(todo) - len(waiting), len(todo))
                    running.append(_start(run, arguments, deadline))
                connection.wait([training.process.sentinel for training in running], LOOK)
                for training in [training for training in running if not training.process.is_alive()]:
                    running.remove(training)
                    stopped = _what_stopped(training, asked or bool(received)) or stopped
        finally:
            if not asked:
                _ask_to_stop(running)
            for training in running:
                training.process.join()
    return stopped


def _next(waiting: Sequence[Run], running: Sequence[_Training]) -> Run | None:
    """The first run whose parent is neither waiting nor running."""
    pending = {(run.configuration, run.seed) for run in (*waiting, *(training.run for training in running))}
    return next((run for run in waiting if (run.parent, run.seed) not in pending), None)


def _start(run: Run, arguments: dict[str, Any], deadline: float | None) -> _Training:
    context = multiprocessing.get_context("spawn")
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(end, run.model_dump(mode="json"), arguments, deadline))
    with starting_deaf_to_interrupts():  # this process acts on Ctrl-C and asks the others
        process.start()
    end.close()
    return _Training(run, process, answer)


def _train(
    answer: connection.Connection, run: dict[str, Any], arguments: dict[str, Any], deadline: float | None
) -> None:
    """In the process: train, then tell what stopped it and what was wrong."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    from thriftylib.training.engine import train  # imports torch

    left = None if deadline is None else max(0.0, deadline - time.monotonic())  # the clock is the machine's
    try:
        told = (train(Run.model_validate(run), **arguments, budget=left).stopped, None)
    except ThriftyError as error:
        told = (None, str(error))
    with suppress(OSError):  # nobody is there any more
        answer.send(told)


def _stop_with_parent() -> None:
    """However the process that started this one ends: else a killed one's trainings would go on unseen."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _ask_to_stop(running: Sequence[_Training]) -> None:
    for training in running:
        training.process.terminate()


def _what_stopped(training: _Training, asked: bool) -> Stop | None:
    """Of a process that has ended."""
    code = training.process.exitcode
    try:
        stopped, error = training.answer.recv()
    except EOFError:
        if asked and code == -signal.SIGTERM:  # before the training had begun, or after its last step
            return "signal"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        message = f"run {training.run.id}: its process {how}; the same command goes on from its checkpoint"
        raise DiedError(message) from None
    if error:
        raise ThriftyError(error)
    return stopped
