"""About how long a run takes on a machine: an estimate with the range that its basis has earned, never a measurement.

The model of :mod:`thriftylib.running.timing` is scaled by a measurement wherever there is one on the same device in
the same precision: the records of the run's other seeds, a record of its family, or a calibration of this machine. A
**family** is a network's name with its training method's; a record of another family scales nothing.

**The range** of an estimate is a factor up and down. It is the error that nine of ten predictions of that kind make
among the records themselves, each predicted from each other one:

- *other seeds*: from records of the same configuration;
- *family*: from records of another configuration. Beyond the sizes that these pairs span, the factor's logarithm grows
  in proportion to the distance in modelled time, as the error of a wrong exponent does;
- *model*: alone, once for each family. For a kind of device with records of few families (both kinds, today) it is
  STATED, not measured.

A kind with fewer than ENOUGH predictions takes the next wider one's factor. A calibration has its kind's factor and
the scatter of its own steps. A record of another number of threads says that the time lies between no gain and a
gain in proportion; jobs that share a GPU, or have more threads than there are cores, lengthen a run by 1 to as many
times. The middle is estimated, and the range contains both ends. The measurement with the narrowest range counts, which
is never taken to be wider than the model's; the model alone only where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from thriftylib.evidence.records import Record
from thriftylib.running.timing import (
    CPU,
    GPU,
    Measured,
    family,
    modelled_epoch,
    prediction_errors,
    together,
    usable,
)
from thriftylib.spec import Run

STATED = math.log(10)
"""The model's range where no record measures it."""
ENOUGH = 5
"""Predictions from which on their errors are a measurement."""


@dataclass(frozen=True)
class Conditions:
    """Where and how runs are trained.

    Args:
        device: as records name it; a processor's name ends in "(CPU)".
        threads: of a processor, for each run; None: not known, any record counts.
        jobs: runs at once.
        precision: None: any.
        cores: of a processor; None: not known.
    """

    device: str
    threads: int | None = None
    jobs: int = 1
    precision: str | None = None
    cores: int | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the device is a processor."""
        return self.device.endswith("(CPU)")

    @property
    def crowding(self) -> float:
        """Times that a run may take longer because others run beside it, at most."""
        if not self.on_cpu:
            return self.jobs
        return max(1.0, self.jobs * self.threads / self.cores) if self.threads and self.cores else 1.0


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run is expected to take, their range, and what that rests on (``source``: the measurement)."""

    seconds: float
    low: float
    high: float
    basis: Literal["other seeds", "family", "model"]
    source: str = ""

    def part(self, fraction: float) -> Estimate:
        """The estimate of a part of the run."""
        return Estimate(*(fraction * x for x in (self.seconds, self.low, self.high)), self.basis, self.source)


def _nine_of_ten(found: Sequence[float], wider: float) -> float:
    return found[math.ceil(0.9 * len(found)) - 1] if len(found) >= ENOUGH else wider


class Estimator:
    """Estimates of runs under some conditions, from records and calibrations.

    Records of other devices only count for the ranges.
    """

    def __init__(
        self, conditions: Conditions, records: Iterable[Record] = (), calibrations: Iterable[Measured] = ()
    ) -> None:
        records = list(records)
        self.conditions = conditions
        self.machine = CPU if conditions.on_cpu else GPU
        found = prediction_errors(records, self.machine)
        self.reach = found.reach
        model = _nine_of_ten(found.model, STATED)
        family_ = _nine_of_ten(found.family, model)
        self.ranges = {"seeds": min(_nine_of_ten(found.seeds, family_), family_), "family": family_}
        self.ranges["model"] = max(model, family_)
        self.measured: dict[tuple[str, str | None], list[Measured]] = {}
        for measured in (*together(usable(records)), *calibrations):
            if self._counts(measured):
                self.measured.setdefault(measured.family, []).append(measured)

    def _counts(self, measured: Measured) -> bool:
        asked = self.conditions
        return (
            measured.device == asked.device
            and asked.precision in (None, measured.precision)
            and measured.jobs in (None, asked.jobs)
        )

    def __call__(self, run: Run) -> Estimate:
        """About how long ``run`` takes from its first step."""
        epoch = modelled_epoch(run, self.machine)
        modelled = epoch * (run.epochs or 1)
        if run.recipe is None:
            return self._ranged(modelled, self.ranges["model"], "model", alone=True)
        found = [self._scaled(run, epoch, measured) for measured in self.measured.get(family(run), ())]
        if not found:
            return self._ranged(modelled, self.ranges["model"], "model", alone=True)
        return min(found, key=lambda candidate: (*candidate[:4], candidate[4].source))[4]

    def _scaled(self, run: Run, modelled: float, measured: Measured) -> tuple[float, float, float, int, Estimate]:
        """What one measurement gives, after what it is chosen by.

        That is the range, the distance in modelled time, the measurement's scatter, and the options that differ.
        """
        ratio = modelled / measured.modelled
        distance = abs(math.log(ratio))
        if measured.configuration == run.configuration:
            basis, spread = "other seeds", self.ranges["seeds"]
        else:
            basis = "family"
            spread = self.ranges["family"] * max(1.0, distance / self.reach if self.reach else 1.0)
        spread = min(spread + measured.scatter, self.ranges["model"])
        seconds = measured.seconds * ratio * run.epochs
        if self.conditions.on_cpu and self.conditions.threads not in (None, measured.threads):
            gain = math.log(measured.threads / self.conditions.threads)
            seconds, spread = seconds * math.exp(gain / 2), spread + abs(gain) / 2
        estimate = self._ranged(seconds, spread, basis, measured.source, alone=measured.jobs is None)
        width = round(math.log(estimate.high / estimate.low), 9)  # so that equal ones are equal
        return width, distance, measured.scatter, _differing(run, measured.run), estimate

    def _ranged(self, seconds: float, spread: float, basis: str, source: str = "", *, alone: bool) -> Estimate:
        """``alone``: measured or modelled without other jobs beside it."""
        if alone:
            half = math.log(self.conditions.crowding) / 2
            seconds, spread = seconds * math.exp(half), spread + half
        return Estimate(seconds, seconds * math.exp(-spread), seconds * math.exp(spread), basis, source)


def _differing(one: Run, other: Run) -> int:
    """Options of network and method in which two runs differ."""

    def flat(run: Run) -> dict[tuple[str, str], object]:
        named = {"network": run.network, "method": run.method}
        return {(kind, key): value for kind, it in named.items() if it for key, value in it.options.items()}

    mine, others = flat(one), flat(other)
    return sum(mine.get(key) != others.get(key) for key in mine.keys() | others.keys())
