"""Processes that train or execute notebooks: how they start, what they answer, and that they end with this one.

A process that is asked to stop gets SIGTERM, keeps its work and answers. However this one ends, killed ones included,
each of its processes asks itself to stop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

from thriftylib.errors import DiedError, StoppedError, ThriftyError, debugging
from thriftylib.training import progress
from thriftylib.training.signals import STOPPING, collect_signals, collecting, start_ignoring_interrupts

POLL = 0.2
"""Seconds between two looks for a signal."""


class News(dict[str, Any]):
    """What a process tells while it works."""


@dataclass
class _Process:
    process: BaseProcess
    answer: connection.Connection
    outcome: tuple[Any, ...] = ()  # what it returned, once it has


class Pool:
    """Processes of one call, each known by a key; leaving the context asks all that run to stop and waits for them."""

    def __init__(self) -> None:
        self.running: dict[Hashable, _Process] = {}
        self.asked = False
        self.news: list[tuple[Any, News]] = []  # since they were looked at last, by key

    def __len__(self) -> int:
        return len(self.running)

    def start(self, key: Hashable, work: Callable[..., Any], *arguments: Any) -> None:
        """Let a process of its own call ``work``, a function of a module, and send what it returns."""
        context = multiprocessing.get_context("spawn")
        answer, end = context.Pipe(duplex=False)
        process = context.Process(target=_work_here, args=(end, work, arguments))
        with start_ignoring_interrupts():  # this process acts on Ctrl-C and asks the others
            process.start()
        end.close()
        self.running[key] = _Process(process, answer)

    def ended(self) -> list[tuple[Any, Any]]:
        """Wait a moment; keys and answers of those that have ended meanwhile.

        The answer is "signal" where one was asked to stop before it could listen, the error where it raised one, and
        a :class:`~thriftylib.errors.DiedError` where it sent nothing.
        """
        connection.wait([each.process.sentinel for each in self.running.values()], POLL)
        for key, each in self.running.items():
            self._listen(key, each)
        gone = [key for key, each in self.running.items() if not each.process.is_alive()]
        return [(key, self._answer(key, self.running.pop(key))) for key in gone]

    def stop(self) -> None:
        """Ask all to stop, once."""
        if not self.asked:
            self.asked = True
            for each in self.running.values():
                each.process.terminate()

    def _listen(self, key: Hashable, each: _Process) -> None:
        with suppress(EOFError, OSError):
            while each.answer.poll():
                said = each.answer.recv()
                if isinstance(said, News):
                    self.news.append((key, said))
                else:
                    each.outcome = (said,)

    def _answer(self, key: Hashable, ended: _Process) -> Any:
        code = ended.process.exitcode
        self._listen(key, ended)
        if ended.outcome:
            return ended.outcome[0]
        if -code in STOPPING:  # before the work had begun, or after its last step
            return "signal"
        return DiedError(
            f"its process {f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
        for each in self.running.values():
            each.process.join()


def _work_here(answer: connection.Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the process: work, then send what came of it."""
    follow_parent()
    progress.listener = lambda numbers: _tell(answer, News(numbers))
    with collect_signals():
        outcome = attempt(work, *arguments)
    _tell(answer, outcome)


def _tell(answer: connection.Connection, what: Any) -> None:
    with suppress(OSError):  # nobody is there any more
        answer.send(what)


def follow_parent() -> None:
    """End with the process that started this one, however that ends: else a killed one's work would go on unseen."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` returns; or its error, where that is none of ours a :class:`~thriftylib.errors.DiedError`."""
    try:
        return work(*arguments)
    except ThriftyError as error:
        return error
    except Exception as error:  # whatever it is, other work is not concerned
        if debugging():
            traceback.print_exc()
        return DiedError(f"it ended by {type(error).__name__}: {' '.join(str(error).split())}; --debug shows where")


def stop_with_parent() -> None:
    """In a Jupyter kernel: end with the process that started it, however that ends, but after a checkpoint.

    ipykernel looks for its parent too and would end at once, in the middle of a step.
    """
    poller, parent = sys.modules.get("ipykernel.parentpoller"), os.getppid()
    if poller is None or isinstance(poller.os, _Orphanage) or "JPY_PARENT_PID" not in os.environ:
        return
    poller.os = _Orphanage(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        if collecting():
            os.kill(os.getpid(), signal.SIGTERM)
        while collecting():
            time.sleep(POLL)
        os._exit(StoppedError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


class _Orphanage:
    """What the module ``os`` is for ipykernel's own look at its parent: always there."""

    def __init__(self, parent: int) -> None:
        self.getppid = lambda: parent

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
