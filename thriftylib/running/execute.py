"""Train what is missing of a list of runs, one after the other or some at once, until all are done or time is up."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thriftylib.errors import BusyError, SpecError, ThriftyError
from thriftylib.evidence.records import Record, load_records
from thriftylib.paths import local_dir, results_dir, weights_dir
from thriftylib.running.parallel import Queue, Stop, train_in_parallel
from thriftylib.spec import Run


def parse_budget(text: str | float | None) -> float | None:
    """``"9m"``, ``"90s"``, ``"1h30m"`` or a number of seconds -> seconds; nothing -> None.

    Raises:
        SpecError: not of that form, or not above 0.
    """
    if text is None or text == "":
        return None
    if isinstance(text, str):
        parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
        numbers = parts.groups("0") if parts else ()
        seconds = sum(float(number) * unit for number, unit in zip(numbers, (3600, 60, 1), strict=False))
    else:
        seconds = text
    if not 0 < seconds < math.inf:
        raise SpecError(f"budget = {text!r}: must be a time above 0 such as '90s', '9m' or '1h30m'")
    return seconds


@dataclass(frozen=True)
class OutputFolders:
    """Where a training writes: records (``results/runs``), final weights and checkpoints."""

    results: Path
    weights: Path
    checkpoints: Path

    @classmethod
    def below(cls, out: str | Path | None) -> OutputFolders:
        """Everything below ``out``, or in the checkout's ``local`` folder where none is given."""
        if out:
            folder = Path(out).expanduser()
            return cls(folder, folder / "weights", folder / "checkpoints")
        return cls(local_dir() / "results", local_dir() / "weights", local_dir() / "checkpoints")


def known_records(*folders: Path) -> dict[str, Record]:
    """The committed records and those below ``folders`` (``runs/<id>.json``), by run id.

    Raises:
        RecordError: a file is corrupt or foreign.
    """
    return {record.id: record for folder in (results_dir(), *folders) for record in load_records(folder / "runs")}


@dataclass
class QueueResult:
    """What came of one call: the records by run id, the runs still missing, and what stopped it (None: all done)."""

    records: dict[str, Record]
    missing: list[Run] = field(default_factory=list)
    stopped: Stop | None = None


def threads_each(threads: int | None, jobs: int) -> int | None:
    """Threads of a CPU for each of so many trainings at once: as given, else shared out; None: as PyTorch is set."""
    if jobs == 1 or threads is not None:
        return threads
    import torch

    return max(1, torch.get_num_threads() // jobs)  # however many runs are left: last digits depend on it


def train_missing(
    runs: Iterable[Run],
    places: OutputFolders,
    *,
    data: Path | None = None,
    device: str = "auto",
    budget: float | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int | None = None,
    jobs: int = 1,
    progress: bool = True,
    announce: Callable[[Run, int, int], None] | None = None,
    expected: Mapping[str, float] | None = None,
) -> QueueResult:
    """Train every run that has no record yet, in the order given but parents before their children.

    A run that was stopped goes on from its checkpoint. One that another process is training is left out, with a line on
    standard error.

    Args:
        budget: seconds for all of them together.
        threads: of a CPU, for each training; None: as PyTorch is set, shared out where ``jobs`` are several.
        jobs: how many are trained at once; several need a process each.
        announce: called before each training with the run, its number and how many there are.
        expected: seconds that each run takes, by its id: none begins that would not end within the budget, unless no
            shorter one is left (see :class:`thriftylib.running.parallel.Queue`).

    Raises:
        ThriftyError: the data, the device, a record or a checkpoint cannot be used; or, before anything is trained, a
            run would start from weights that are neither here nor trained by this call.
    """
    deadline = None if budget is None else time.monotonic() + budget
    known = known_records(places.results)
    wanted: Sequence[Run] = parents_first(runs)
    sitting = QueueResult({run.id: known[run.id] for run in wanted if run.id in known})
    todo = [run for run in wanted if run.id not in known]
    _check_parents(todo, places)
    arguments: dict[str, Any] = {
        "data": data,
        "device": device,
        "results": places.results,
        "weights": places.weights,
        "checkpoints": places.checkpoints,
        "precision": precision,
        "threads": threads_each(threads, jobs),
        "progress": progress,
    }
    queue = Queue(list(todo), expected, lambda run: has_checkpoint(run, places))
    if min(jobs, len(todo)) > 1:
        stopped = train_in_parallel(queue, jobs, arguments, deadline, announce)
    else:
        stopped = _train_one_by_one(queue, arguments, deadline, announce)
    known = known_records(places.results)
    sitting.records |= {run.id: known[run.id] for run in todo if run.id in known}
    sitting.missing = [run for run in todo if run.id not in known]
    sitting.stopped = (stopped or "busy") if sitting.missing else None
    return sitting


def _train_one_by_one(
    queue: Queue, arguments: dict[str, Any], deadline: float | None, announce: Callable[[Run, int, int], None] | None
) -> Stop | None:
    from thriftylib.training.engine import train  # imports torch

    of = len(queue.waiting)
    while queue.waiting:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return "budget"
        run = queue.next(left)
        if run is None:  # the parents of all that wait are busy
            return None
        if announce:
            announce(run, of - len(queue.waiting), of)
        busy = None
        try:
            if stopped := train(run, **arguments, budget=left).stopped:
                return stopped
        except BusyError as error:
            busy = str(error)
        queue.ended(run, busy)
    return None


def has_checkpoint(run: Run, places: OutputFolders) -> bool:
    """Whether a run was begun and goes on where it stopped."""
    return (places.checkpoints / f"{run.id}.safetensors").is_file()


def parents_first(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in the order given, but a run whose weights another starts from comes before that one."""
    given = {run.id: run for run in runs}
    family = {(run.configuration, run.seed): run for run in given.values()}
    ordered: dict[str, Run] = {}

    def place(run: Run) -> None:
        parent = family.get((run.parent, run.seed))
        if parent is not None:
            place(parent)
        ordered[run.id] = run

    for run in given.values():
        if run.id not in ordered:
            place(run)
    return list(ordered.values())


def orphans(todo: Sequence[Run], places: OutputFolders) -> list[Run]:
    """Those of ``todo`` that start from weights that are neither here, beside their record, nor trained with them."""
    children = [run for run in todo if run.parent]
    if not children:
        return []
    there = {
        (record.run.configuration, record.run.seed)
        for results, weights in ((places.results, places.weights), (results_dir(), weights_dir()))
        for record in load_records(results / "runs")
        if record.weights and (weights / record.weights.file).is_file()
    }
    there |= {(run.configuration, run.seed) for run in todo}
    return [run for run in children if (run.parent, run.seed) not in there]


def _check_parents(todo: Sequence[Run], places: OutputFolders) -> None:
    for run in orphans(todo, places):
        raise ThriftyError(
            f"run {run.id} starts from the trained weights of {run.parent} with seed {run.seed}: they are not in "
            f"{places.weights}, beside its record, and it is not among the runs to train now"
        )


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
