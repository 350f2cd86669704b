"""Calibration: some training steps of one run of each network family on random images, timed on this machine.

It stands in where no record says how fast a family trains here. The images have the right shape and the steps are the
engine's own, so only what they show is made up. Results are kept in ``local/calibrations.json`` for later plans.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from thriftylib.evidence.records import Text, read_model, write_json
from thriftylib.options import Strict
from thriftylib.running.estimates import Conditions
from thriftylib.running.timing import CPU, GPU, Measured, family, modelled_epoch
from thriftylib.schedules import steps_per_epoch
from thriftylib.spec import Positive, Run

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    import torch

    from thriftylib.datasets.load import Dataset, Split

TOTAL = 60.0
"""Seconds for all families together: those with the shortest steps come first, others are left out."""
SECONDS = 2.0
"""Of timed steps for each family, after one that is not timed; a step that takes longer is done to its end."""
MOST, FEWEST = 40, 2
"""Timed steps."""


class Calibration(Strict):
    """Seconds of single training steps of ``run`` and of one test image, with ``jobs`` of them at once."""

    run: Run
    seconds_per_step: Annotated[list[Positive], Field(min_length=FEWEST)]
    seconds_per_test_image: Positive
    device: Text
    threads: Annotated[int, Field(ge=1)]
    jobs: Annotated[int, Field(ge=1)]
    precision: Literal["fp32", "bf16"]
    versions: dict[str, Text]
    date: str

    def measured(self) -> Measured:
        """What it says of an epoch of its run: the median step, and the scatter of the steps."""
        data = self.run.data
        steps = steps_per_epoch(data.training_images, self.run.recipe.batch_size)
        tested = (data.test_images or data.info.test) * self.seconds_per_test_image
        return Measured(
            run=self.run,
            seconds=steps * statistics.median(self.seconds_per_step) + tested,
            device=self.device,
            threads=self.threads,
            precision=self.precision,
            source=f"calibration of {self.date}",
            jobs=self.jobs,
            scatter=statistics.stdev(map(math.log, self.seconds_per_step)),
        )


class _Calibrations(Strict):
    format: Literal[1] = 1
    calibrations: list[Calibration] = []


def load_calibrations(path: Path) -> list[Calibration]:
    """What was measured on this machine; nothing where there is no such file.

    Raises:
        RecordError: the file is corrupt or foreign.
    """
    return read_model(path, _Calibrations, context={"recorded": True}).calibrations if path.is_file() else []


def save_calibrations(new: Sequence[Calibration], path: Path) -> None:
    """Add to the file; a measurement of the same family under the same conditions takes the older one's place."""
    kept = {_key(one): one for one in (*load_calibrations(path), *new)}
    write_json(_Calibrations(calibrations=list(kept.values())).model_dump(mode="json"), path)


def _key(one: Calibration) -> tuple[object, ...]:
    return family(one.run), one.device, one.threads, one.jobs, one.precision


def representatives(runs: Iterable[Run], device: str) -> list[tuple[Run, float]]:
    """Of each family the run that is modelled to be the shortest, the one that a budget reaches first.

    With the modelled seconds of one step, which they are sorted by.
    """
    machine = CPU if device.endswith("(CPU)") else GPU
    shortest: dict[tuple[str, str | None], tuple[float, Run]] = {}
    for run in runs:
        if run.recipe is not None:
            seconds = modelled_epoch(run, machine) * run.epochs
            if family(run) not in shortest or seconds < shortest[family(run)][0]:
                shortest[family(run)] = (seconds, run)
    found = [
        (run, seconds / run.epochs / run.data.training_images * run.recipe.batch_size)
        for seconds, run in shortest.values()
    ]
    return sorted(found, key=lambda pair: pair[1])


def calibrate_all(
    runs: Iterable[Run],
    device: torch.device,
    conditions: Conditions,
    *,
    done: Callable[[Calibration], None],
    total: float = TOTAL,
) -> list[Run]:
    """Calibrate the families of ``runs``, calling ``done`` for each, while ``total`` seconds last.

    Returns:
        The representatives of the families that are left out: a step of theirs takes too long.
    """
    deadline, left_out = time.monotonic() + total, []
    slower = [1.0]  # than modelled, as far as was seen
    for run, step in representatives(runs, conditions.device):
        if time.monotonic() + statistics.fmean(slower) * (FEWEST + 2) * step > deadline:
            left_out.append(run)
            continue
        found = calibrate(run, device, conditions)
        slower.append(statistics.median(found.seconds_per_step) / step)
        done(found)
    return left_out


def calibrate(run: Run, device: torch.device, conditions: Conditions, *, seconds: float = SECONDS) -> Calibration:
    """Time some steps of a run, in as many processes at once as ``conditions`` has jobs.

    Args:
        device: the one that ``conditions`` names.
        conditions: with threads and precision.
        seconds: of timed steps.
    """
    from thriftylib.training.provenance import versions

    arguments = (run.model_dump(mode="json"), str(device), conditions.threads, conditions.precision, seconds)
    if conditions.jobs == 1:
        answers = [_measure(*arguments)]
    else:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(conditions.jobs)
        with context.Pool(conditions.jobs, _share, (barrier,)) as pool:
            answers = pool.starmap(_measure, [arguments] * conditions.jobs, chunksize=1)
    return Calibration(
        run=run,
        seconds_per_step=[step for steps, _ in answers for step in steps],
        seconds_per_test_image=statistics.fmean(tested for _, tested in answers),
        device=conditions.device,
        threads=conditions.threads,
        jobs=conditions.jobs,
        precision=conditions.precision,
        versions=versions(),
        date=datetime.now(UTC).date().isoformat(),
    )


_barrier: Barrier | None = None


def _share(barrier: Barrier) -> None:
    global _barrier  # a pool hands it to its processes in no other way
    _barrier = barrier


def _measure(
    content: dict, device_name: str, threads: int, precision: Literal["fp32", "bf16"], seconds: float
) -> tuple[list[float], float]:
    """Seconds of each timed step, and of one test image."""
    import torch

    from thriftylib.training.device import keep_freed_memory
    from thriftylib.training.progress import Progress
    from thriftylib.training.trainer import Trainer

    device = torch.device(device_name)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            run = Run.recorded(content).model_copy(update={"parent": None})
            trainer = Trainer(run, _random_images(run, device), device, precision)
            report = Progress(run, trainer.steps * run.epochs, 0, shown=False)

            def timed(what, *arguments) -> float:
                started = time.perf_counter()
                what(*arguments)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return time.perf_counter() - started

            timed(trainer.step, report)  # compiles, allocates
            timed(trainer.evaluate, trainer.dataset.test)
            if _barrier is not None:
                _barrier.wait(600)
            steps: list[float] = []
            while len(steps) < FEWEST or (len(steps) < MOST and sum(steps) < seconds):
                steps.append(timed(trainer.step, report))
            return steps, timed(trainer.evaluate, trainer.dataset.test) / len(trainer.dataset.test)
    finally:
        torch.set_num_threads(before)


def _random_images(run: Run, device: torch.device) -> Dataset:
    """Images for more steps than are timed, so that no epoch ends, and a batch of test images."""
    import torch

    from thriftylib.datasets.load import Dataset, Split

    info, batch = run.data.info, run.recipe.batch_size

    def images(count: int) -> Split:
        return Split(
            torch.randint(256, (count, *info.image_shape), dtype=torch.uint8).to(device),
            torch.randint(len(info.classes), (count,)).to(device),
        )

    return Dataset(info, images(batch * (MOST + 2)), images(batch), None)
