"""Calibration: some training steps of one run of each network family on random images, timed on this machine.

It counts where no record says how fast a family trains here. The images have the right shape and the steps are the
engine's own, so only what they show is made up. Results are kept in ``local/calibrations.json`` for later plans.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thriftylib.evidence.records import read_model, write_json
from thriftylib.options import Strict
from thriftylib.running.estimates import Conditions, Family, Measured, family, modelled_epoch
from thriftylib.schedules import steps_per_epoch
from thriftylib.spec import Run

if TYPE_CHECKING:
    import torch

    from thriftylib.datasets.load import Dataset, Split

TOTAL = 60.0
"""Seconds for all families together: those with the shortest steps come first, others are left out."""
SECONDS = 2.0
"""Of timed steps for each family, after one that is not timed; a step that takes longer is done to its end."""
MAX_STEPS, MIN_STEPS = 40, 2
"""Timed steps."""


class _Calibrations(Strict):
    format: Literal[2] = 2
    calibrations: list[Measured] = []


def load_calibrations(path: Path) -> list[Measured]:
    """What was measured on this machine; nothing where there is no such file.

    Raises:
        RecordError: the file is corrupt or foreign.
    """
    return read_model(path, _Calibrations, context={"recorded": True}).calibrations if path.is_file() else []


def save_calibrations(new: Sequence[Measured], path: Path) -> None:
    """Add to the file; a measurement of the same family under the same conditions takes the older one's place."""
    kept = {(family(one.run), *one.where, one.jobs): one for one in (*load_calibrations(path), *new)}
    write_json(_Calibrations(calibrations=list(kept.values())).model_dump(mode="json"), path)


def representatives(runs: Iterable[Run], conditions: Conditions) -> list[tuple[Run, float]]:
    """Of each family the run that is modelled to be the shortest, the one that a budget reaches first.

    With the modelled seconds of one step, which they are sorted by.
    """
    shortest: dict[Family, tuple[float, Run]] = {}
    for run in runs:
        if run.recipe is not None:
            seconds = modelled_epoch(run, conditions.machine) * run.epochs
            shortest[family(run)] = min(
                shortest.get(family(run), (math.inf, run)), (seconds, run), key=lambda it: it[0]
            )
    found = [(run, seconds / (run.epochs * _steps(run))) for seconds, run in shortest.values()]
    return sorted(found, key=lambda pair: pair[1])


def calibrate_all(
    runs: Iterable[Run],
    device: torch.device,
    conditions: Conditions,
    *,
    done: Callable[[Measured], None],
    total: float = TOTAL,
) -> list[Run]:
    """Calibrate the families of ``runs``, calling ``done`` for each, while ``total`` seconds last.

    Returns:
        The representatives of the families that are left out: a step of theirs takes too long.
    """
    deadline, left_out = time.monotonic() + total, []
    slower = [1.0]  # than modelled, as far as was seen
    for run, step in representatives(runs, conditions):
        if time.monotonic() + statistics.fmean(slower) * (MIN_STEPS + 2) * step > deadline:
            left_out.append(run)
            continue
        found = calibrate(run, device, conditions)
        slower.append(found.seconds / _steps(run) / step)
        done(found)
    return left_out


def calibrate(run: Run, device: torch.device, conditions: Conditions, *, seconds: float = SECONDS) -> Measured:
    """Time some steps of a run, in as many processes at once as ``conditions`` has jobs.

    Args:
        device: the one that ``conditions`` names.
        conditions: with threads and precision.
        seconds: of timed steps.
    """
    arguments = (run.model_dump(mode="json"), str(device), conditions.threads, conditions.precision, seconds)
    if conditions.jobs == 1:
        answers = [_time_steps(*arguments)]
    else:
        with ProcessPoolExecutor(conditions.jobs, multiprocessing.get_context("spawn")) as pool:
            started = [pool.submit(_time_steps, *arguments) for _ in range(conditions.jobs)]
            answers = [future.result() for future in started]
    steps = [step for timed, _ in answers for step in timed]
    tested = (run.data.test_images or run.data.info.test) * statistics.fmean(tested for _, tested in answers)
    return Measured(
        run=run,
        seconds=_steps(run) * statistics.median(steps) + tested,
        device=conditions.device,
        threads=conditions.threads,
        precision=conditions.precision,
        source=f"calibration of {datetime.now(UTC).date().isoformat()}",
        jobs=conditions.jobs,
        scatter=statistics.stdev(map(math.log, steps)),
    )


def _steps(run: Run) -> int:
    return steps_per_epoch(run.data.training_images, run.recipe.batch_size)


def _time_steps(
    content: dict[str, Any], device_name: str, threads: int, precision: Literal["fp32", "bf16"], seconds: float
) -> tuple[list[float], float]:
    """Seconds of each timed step, and of one test image."""
    import torch

    from thriftylib.training.device import keep_freed_memory
    from thriftylib.training.progress import Report
    from thriftylib.training.trainer import Trainer

    device, before = torch.device(device_name), torch.get_num_threads()
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            run = Run.recorded(content).model_copy(update={"parent": None})
            trainer = Trainer(run, _random_images(run, device), device, precision)
            report = Report(run, trainer.steps * run.epochs, 0, shown=False)

            def timed(what: Callable[..., object], *arguments: object) -> float:
                started = time.perf_counter()
                what(*arguments)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return time.perf_counter() - started

            timed(trainer.step, report)  # compiles, allocates
            timed(trainer.evaluate, trainer.dataset.test)
            steps: list[float] = []
            while len(steps) < MIN_STEPS or (len(steps) < MAX_STEPS and sum(steps) < seconds):
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
        pixels = torch.randint(256, (count, *info.image_shape), dtype=torch.uint8)
        return Split(pixels.to(device), torch.randint(len(info.classes), (count,)).to(device))

    return Dataset(info, images(batch * (MAX_STEPS + 2)), images(batch), None)
