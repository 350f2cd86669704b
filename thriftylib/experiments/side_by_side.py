"""Trainings side by side, each in a process of its own.

A small network keeps neither two cores nor a GPU busy: its operations are too short. Several trainings at once do. They
share nothing but the folders that they write to, so each gives the record that it would give alone on as many threads.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from thriftylib.errors import ThriftyError
from thriftylib.spec import Run
from thriftylib.training.signals import collect_signals

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
) -> tuple[list[Run], Stop | None]:
    """Train the runs in their order, ``jobs`` at once; a run waits for the one from whose weights it starts.

    Args:
        arguments: of :func:`thriftylib.training.engine.train`, but for the run and its budget. If ``threads`` is None,
            the trainings share out those that PyTorch would use.
        deadline: when they stop, by the monotonic clock.
        announce: called before each training with the run, its number and how many there are.

    Returns:
        The runs that have no record now, and what stopped them.

    Raises:
        ThriftyError: what a training raised, or how its process died. The others have stopped then, with checkpoints.
    """
    waiting, running, missing = list(todo), list[_Training](), list[Run]()
    stopped: Stop | None = None
    asked = False
    with collect_signals() as received:
        try:
            while running or (waiting and not stopped):
                left = None if deadline is None else deadline - time.monotonic()
                if (received or stopped == "signal") and not asked:  # once: a second signal would kill
                    stopped, asked = "signal", True
                    _ask_to_stop(running)
                elif left is not None and left <= 0:
                    stopped = stopped or "budget"
                while not stopped and len(running) < jobs and (run := _next(waiting, running)):
                    waiting.remove(run)
                    if announce:
                        announce(run, len(todo) - len(waiting), len(todo))
                    running.append(_start(run, jobs, {**arguments, "budget": left}))
                connection.wait([training.process.sentinel for training in running], LOOK)
                for training in [training for training in running if not training.process.is_alive()]:
                    running.remove(training)
                    if reason := _what_stopped(training, asked):
                        stopped = stopped or reason
                        missing.append(training.run)
        finally:
            _ask_to_stop(running)
            for training in running:
                training.process.join()
    return [run for run in todo if run in missing or run in waiting], stopped


def _next(waiting: Sequence[Run], running: Sequence[_Training]) -> Run | None:
    """The first run whose parent is neither waiting nor running."""
    pending = {(run.configuration, run.seed) for run in (*waiting, *(training.run for training in running))}
    return next((run for run in waiting if (run.parent, run.seed) not in pending), None)


def _start(run: Run, jobs: int, arguments: dict[str, Any]) -> _Training:
    context = multiprocessing.get_context("spawn")
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(end, run.model_dump(mode="json"), jobs, arguments))
    process.start()
    end.close()
    return _Training(run, process, answer)


def _train(answer: connection.Connection, run: dict[str, Any], jobs: int, arguments: dict[str, Any]) -> None:
    """In the process: train, then tell what stopped it and what was wrong."""
    # A terminal's Ctrl-C reaches every process; the first acts on it and asks the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    from thriftylib.training.engine import train

    if arguments["threads"] is None:
        arguments["threads"] = max(1, torch.get_num_threads() // jobs)
    try:
        answer.send((train(Run.model_validate(run), **arguments).stopped, None))
    except ThriftyError as error:
        answer.send((None, str(error)))


def _ask_to_stop(running: Sequence[_Training]) -> None:
    for training in running:
        training.process.terminate()


def _what_stopped(training: _Training, asked: bool) -> Stop | None:
    """Of a process that has ended; None if it leaves a record."""
    try:
        stopped, error = training.answer.recv()
    except EOFError:
        if asked:  # before the training had begun
            return "signal"
        code = training.process.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise ThriftyError(
            f"run {training.run.id}: its process {how}; the same command goes on from its checkpoint"
        ) from None
    if error:
        raise ThriftyError(error)
    return stopped
