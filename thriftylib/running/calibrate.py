"""Calibration: some training steps of one run of each network family on random images, timed on this machine.

It counts where no record says how fast a family trains here. The images have the right shape and the steps are the
engine's own, so only what they show is made up. Results are kept in ``local/calibrations.json`` for later plans.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    kept = {(one.family, *one.where): one for one in (*load_calibrations(path), *new)}
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
    runs: Iterable[Run], device: torch.device, conditions: Conditions, *, total: float = TOTAL
) -> Iterator[tuple[Run, Measured | None]]:
    """The shortest run of each family of ``runs``, calibrated while ``total`` seconds last.

    None for those that are left out: a step of theirs takes too long.
    """
    deadline = time.monotonic() + total
    slower = [1.0]  # than modelled, as far as was seen
    for run, step in representatives(runs, conditions):
        found = None
        if time.monotonic() + statistics.fmean(slower) * (MIN_STEPS + 2) * step <= deadline:
            found = calibrate(run, device, conditions)
            slower.append(found.seconds / _steps(run) / step)
        yield run, found


def calibrate(run: Run, device: torch.device, conditions: Conditions, *, seconds: float = SECONDS) -> Measured:
    """Time some steps of a run, alone on the device that ``conditions`` names, for so many ``seconds``."""
    import torch

    from thriftylib.training.device import keep_freed_memory
    from thriftylib.training.progress import Progress
    from thriftylib.training.trainer import Trainer

    def timed(what: Callable[..., object], *arguments: object) -> float:
        started = time.perf_counter()
        what(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    before = torch.get_num_threads()
    torch.set_num_threads(conditions.threads)
    if device.type == "cpu":
        keep_freed_memory()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            alone = run.model_copy(update={"parent": None})
            trainer = Trainer(alone, _random_images(run, device), device, conditions.precision, execution="auto")
            progress = Progress(run, trainer.steps * run.epochs, 0, shown=False)
            timed(trainer.step, progress)  # compiles, allocates
            timed(trainer.evaluate, trainer.dataset.test)
            steps: list[float] = []
            while len(steps) < MIN_STEPS or (len(steps) < MAX_STEPS and sum(steps) < seconds):
                steps.append(timed(trainer.step, progress))
            image = timed(trainer.evaluate, trainer.dataset.test) / len(trainer.dataset.test)
    finally:
        torch.set_num_threads(before)
    return Measured(
        run=run,
        seconds=_steps(run) * statistics.median(steps) + (run.data.test_images or run.data.info.test) * image,
        device=conditions.device,
        threads=conditions.threads,
        precision=conditions.precision,
        source=f"calibration of {datetime.now(UTC).date().isoformat()}",
        scatter=statistics.stdev(map(math.log, steps)),
    )


def _steps(run: Run) -> int:
    return steps_per_epoch(run.data.training_images, run.recipe.batch_size)


def _random_images(run: Run, device: torch.device) -> Dataset:
    """Images for more steps than are timed, so that no epoch ends, and a batch of test images."""
    import torch

    from thriftylib.datasets.load import Dataset, Split

    info, batch = run.data.info, run.recipe.batch_size

    def images(count: int) -> Split:
        pixels = torch.randint(256, (count, *info.image_shape), dtype=torch.uint8)
        return Split(pixels.to(device), torch.randint(len(info.classes), (count,)).to(device))

    return Dataset(info, images(batch * (MAX_STEPS + 2)), images(batch), None)
