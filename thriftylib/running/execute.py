"""Train what is missing of a list of runs, one after the other or some at once, until all are done or time is up.

A small network keeps neither two cores nor a GPU busy: its operations are too short. Several trainings at once do, each
in a process of its own. They share nothing but the folders that they write to, so each ends with the weights that it
would end with alone on as many threads; only the times in its record are those of a machine that others use too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thriftylib.errors import BusyError, CheckpointError, DiedError, RunError, ThriftyError
from thriftylib.evidence.records import Record
from thriftylib.running.board import Board
from thriftylib.running.folders import OutputFolders, known_records
from thriftylib.running.processes import Pool, attempt
from thriftylib.running.queue import Queue, orphans, parents_first
from thriftylib.spec import Run
from thriftylib.training.signals import collect_signals

Announce = Callable[[Run, int, int], None]
Stop = Literal["budget", "signal", "left out"]
"""Why runs are missing in the end; left out: trained by others, unreadable checkpoints, or they cannot go on."""
Outcome = Stop | None | ThriftyError
"""How a training ended: stopped, done, or by an error."""


@dataclass
class QueueResult:
    """What came of one call: the records by run id, the runs still missing, and what stopped it (None: all done).

    ``failed``: those of the missing runs that died, cannot go on, or whose checkpoint cannot be read.
    """

    records: dict[str, Record]
    missing: list[Run] = field(default_factory=list)
    stopped: Stop | None = None
    failed: list[Run] = field(default_factory=list)


def threads_each(threads: int | None, jobs: int) -> int | None:
    """Threads of a CPU for each of so many trainings at once: as given, else shared out; None: as PyTorch is set."""
    if jobs == 1 or threads is not None:
        return threads
    import torch

    return max(1, torch.get_num_threads() // jobs)  # however many runs are left: last digits depend on it


def train_missing(
    runs: Iterable[Run],
    folders: OutputFolders,
    *,
    data: Path | None = None,
    device: str = "auto",
    budget: float | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    execution: Literal["auto", "eager", "compiled", "graph"] = "auto",
    threads: int | None = None,
    jobs: int = 1,
    progress: bool = True,
    announce: Announce | None = None,
    expected: Mapping[str, float] | None = None,
    anew: bool = False,
) -> QueueResult:
    """Train every run that has no record yet, in the order given but parents before their children.

    A run that was stopped goes on from its checkpoint. One that another process is training, whose checkpoint cannot be
    read, that its method ends, or that dies, is left out, with a line on standard error.

    Args:
        budget: seconds for all of them together.
        execution: of steps; see :mod:`thriftylib.training.execution`.
        threads: of a CPU, for each training; None: as PyTorch is set, shared out where ``jobs`` are several.
        device: with several GPUs, "auto" and "cuda" are all of them.
        jobs: how many are trained at once on a device; several need a process each.
        announce: called before each training with the run, its number and how many there are.
        expected: seconds that each run takes, by its id: none begins that would not end within the budget, unless no
            shorter one is left (see :class:`thriftylib.running.queue.Queue`).
        anew: set a checkpoint aside that cannot be gone on from, and start its run anew.

    Raises:
        ThriftyError: the data, the device or a record cannot be used; or, before anything is trained, a run would start
            from weights that are neither here nor trained by this call.
    """
    deadline = None if budget is None else time.monotonic() + budget
    known = known_records(folders.results)
    pending = parents_first(runs)
    todo = [run for run in pending if run.id not in known]
    for run in orphans(todo, folders):
        raise ThriftyError(
            f"run {run.id} starts from the trained weights of {run.parent} with seed {run.seed}: they are not in "
            f"{folders.weights}, beside its record, and it is not among the runs to train now"
        )
    arguments = {name: getattr(folders, name) for name in ("results", "weights", "checkpoints")}
    arguments |= {"data": data, "device": device, "precision": precision, "progress": progress, "anew": anew}
    arguments |= {"execution": execution}
    arguments["threads"] = threads_each(threads, jobs)
    queue = Queue(list(todo), folders, expected)
    slots = _slots(device, jobs) if len(todo) > 1 else [device]
    train_all = _in_parallel if len(slots) > 1 else _one_by_one
    stopped = train_all(queue, slots, arguments, deadline, announce or (lambda *_: None))
    known = known_records(folders.results)
    records = {run.id: known[run.id] for run in pending if run.id in known}
    missing = [run for run in todo if run.id not in known]
    failed = [run for run, why in queue.left_out.items() if isinstance(why, CheckpointError | RunError | DiedError)]
    return QueueResult(records, missing, (stopped or "left out") if missing else None, failed)


def _slots(device: str, jobs: int) -> list[str]:
    """The device of each run that trains at once: on all devices one, then the next."""
    from thriftylib.training.device import all_devices  # imports torch

    return all_devices(device) * jobs


def _one_by_one(
    queue: Queue, slots: list[str], arguments: dict[str, Any], deadline: float | None, announce: Announce
) -> Stop | None:
    of = len(queue.waiting)
    with collect_signals() as received:
        while queue.waiting:
            left = _left(deadline)
            if received or (left is not None and left <= 0):
                return "signal" if received else "budget"
            if (run := queue.next(left)) is None:  # the parents of all that wait are left out
                return None
            announce(run, of - len(queue.waiting), of)
            if stopped := _settle(queue, run, attempt(_train, run.model_dump(mode="json"), arguments, deadline)):
                return stopped
    return None


def _in_parallel(
    queue: Queue, slots: list[str], arguments: dict[str, Any], deadline: float | None, announce: Announce
) -> Stop | None:
    """Train the runs in their order, one in each of the ``slots`` at once; returns what stopped them.

    Raises:
        ThriftyError: what a training raised. The others have stopped then, with checkpoints.
    """
    of, stopped, places = len(queue.waiting), None, dict[Run, str]()
    with collect_signals() as received, Board(shown=arguments["progress"]) as board, Pool() as pool:
        arguments |= {"progress": arguments["progress"] and not board.drawn}
        while pool or (queue.waiting and not stopped):
            if received or stopped == "signal":
                stopped = "signal"
                pool.stop()
            elif deadline is not None and time.monotonic() >= deadline:
                stopped = stopped or "budget"
            while not stopped and slots and (run := queue.next(_left(deadline))):
                announce(run, of - len(queue.waiting), of)
                places[run] = slots.pop(0)
                board.begins(run, places[run])
                pool.start(run, _train, run.model_dump(mode="json"), arguments | {"device": places[run]}, deadline)
            if not pool and not stopped:  # the parents of all that wait are left out
                break
            ended = pool.ended()
            while pool.news:
                board.epoch(*pool.news.pop(0))
            for run, outcome in ended:
                slots.append(places.pop(run))
                board.ends(run, "complete" if outcome is None else outcome if isinstance(outcome, str) else "left out")
                stopped = _settle(queue, run, outcome) or stopped
    return stopped


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()  # the clock is the machine's, not the process's


def _train(run: dict[str, Any], arguments: dict[str, Any], deadline: float | None) -> Stop | None:
    from thriftylib.training.engine import train  # imports torch

    left = _left(deadline)
    return train(Run.recorded(run), **arguments, budget=None if left is None else max(0.0, left)).stopped


def _settle(queue: Queue, run: Run, outcome: Outcome) -> Stop | None:
    """Take note of how a training ended; returns what stopped it.

    Raises:
        ThriftyError: what it raised, if that may concern the other runs too.
    """
    left_out = outcome if isinstance(outcome, BusyError | CheckpointError | RunError | DiedError) else None
    queue.ended(run, left_out)
    if left_out:
        return None
    if isinstance(outcome, ThriftyError):
        raise outcome
    return outcome


def verify_weights(record: Record, folder: Path, *, device: str = "auto", data: Path | None = None) -> float:
    """The accuracy (percent) of a record's weights on its whole test set, evaluated now, in fp32.

    Raises:
        ThriftyError: the weights are missing or not those of the record, or the data or the device cannot be used.
    """
    from thriftylib.datasets.load import load
    from thriftylib.training.device import choose_device
    from thriftylib.training.evaluation import evaluate
    from thriftylib.training.finishing import rebuild

    chosen = choose_device(device)
    network = rebuild(record, folder)
    dataset = load(record.run.data, root=data, device=chosen, seed=record.run.seed)
    _, accuracy = evaluate(network.to(chosen), dataset.test, dataset, chosen)
    return accuracy
