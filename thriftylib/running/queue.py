"""Which of the waiting runs is trained next: parents before their children, and what ends in time before the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from thriftylib.errors import DiedError, ThriftyError
from thriftylib.escaping import tell
from thriftylib.evidence.records import load_records
from thriftylib.paths import results_dir, weights_dir
from thriftylib.running.folders import OutputFolders
from thriftylib.spec import Run


@dataclass
class Queue:
    """Runs that wait for their training, in order.

    A run waits for the one from whose weights it starts. With ``expected``, the seconds that each run takes by its id,
    the first that ends within the time left comes next. Where none does, one that has a checkpoint goes on, else the
    first begins: what it does until the time is up is kept in a checkpoint too.
    """

    waiting: list[Run]
    folders: OutputFolders
    expected: Mapping[str, float] | None = None
    running: list[Run] = field(default_factory=list)
    left_out: dict[Run, ThriftyError] = field(default_factory=dict)

    def next(self, left: float | None) -> Run | None:
        """Take the next run, with so many seconds left; None: none can start now."""
        absent = {(run.configuration, run.seed) for run in (*self.waiting, *self.running, *self.left_out)}
        ready = [run for run in self.waiting if (run.parent, run.seed) not in absent]
        if self.expected is not None and left is not None:
            fitting = [run for run in ready if self.expected.get(run.id, math.inf) <= left]
            ready = fitting or sorted(ready, key=lambda run: not self.folders.checkpoint(run).is_file())
        if not ready:
            return None
        self.waiting.remove(ready[0])
        self.running.append(ready[0])
        return ready[0]

    def ended(self, run: Run, why: ThriftyError | None = None) -> None:
        """A run has ended; or it cannot be trained now, as ``why`` says."""
        self.running.remove(run)
        if why is not None:
            self.left_out[run] = why
            then = "; the same command goes on from its checkpoint" if isinstance(why, DiedError) else ""
            tell(f"run {run.id} is left out: {why}{then}", lines=False)


def parents_first(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in the order given, but a run whose weights another starts from comes before that one."""
    given = list(runs)
    family = {(run.configuration, run.seed): run for run in given}
    ordered: dict[str, Run] = {}

    def place(run: Run) -> None:
        if (parent := family.get((run.parent, run.seed))) is not None:
            place(parent)
        ordered.setdefault(run.id, run)

    for run in given:
        place(run)
    return list(ordered.values())


def orphans(todo: Sequence[Run], folders: OutputFolders) -> list[Run]:
    """Those of ``todo`` that start from weights that are neither here, beside their record, nor trained with them."""
    if not (children := [run for run in todo if run.parent]):
        return []
    there = {(run.configuration, run.seed) for run in todo} | {
        (record.run.configuration, record.run.seed)
        for results, weights in ((folders.results, folders.weights), (results_dir(), weights_dir()))
        for record in load_records(results / "runs")
        if record.weights and (weights / record.weights.file).is_file()
    }
    return [run for run in children if (run.parent, run.seed) not in there]
