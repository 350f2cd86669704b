"""About how long a run takes on a machine: an estimate with the range that its basis has earned, never a measurement.

**The model** of an epoch with its evaluation, in seconds, is::

    steps x layers x LAUNCH + (images + test images / 3) x (3 MACs / COMPUTE + 4 activation bytes / BANDWIDTH)

since a training step computes three times the forward pass, touches its activations about four times, and starts its
kernels layer by layer. The constants (``CPU``, ``GPU``) are guesses, which the first record or calibration of a device
replaces for its family: the model is then scaled by a measurement on the same device in the same precision, the records
of the run's other seeds, a record of its family, or a calibration. What another family took scales nothing.

**The range** is a factor up and down: the error that nine of ten predictions of that kind make among the records
themselves, each predicted from each other one. Beyond the sizes that pairs of a family span, the factor's logarithm
grows in proportion to the distance in modelled time, as the error of a wrong exponent does. A kind with fewer than
ENOUGH predictions takes the next wider one's range (other seeds, family, model, STATED). A calibration adds the scatter
of its steps. Another number of threads may bring no gain or one in proportion, and jobs that share a GPU, or have more
threads than there are cores, lengthen a run by 1 to as many times: the middle is estimated, the range contains both
ends. The measurement with the narrowest range counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

from thriftylib.errors import SpecError
from thriftylib.evidence.records import Record
from thriftylib.options import Strict
from thriftylib.spec import Run

STATED = math.log(10)
"""The model's range where no record measures it."""
ENOUGH = 5
"""Predictions from which on their errors are a measurement."""
FORWARD_PASSES, ACTIVATION_PASSES = 3, 4
"""Of a training step: computation in forward passes, and how often its activations are read or written."""
Family = tuple[str, str | None]


class Machine(NamedTuple):
    """The model's rough constants: seconds per layer and step, MACs per second, bytes per second."""

    launch: float
    compute: float
    bandwidth: float


CPU = Machine(launch=500e-6, compute=50e9, bandwidth=5e9)  # two cores of a server
GPU = Machine(launch=250e-6, compute=100e12, bandwidth=1e12)  # one of a data centre


def family(run: Run) -> Family:
    """Runs that may be scaled to one another: the network's name with the method's."""
    return run.network.name, run.method.name if run.method else None


def modelled_epoch(run: Run, machine: Machine) -> float:
    """Modelled seconds of an epoch with its evaluation; of a run that only measures, of one pass over the data."""
    data, cost = run.data, run.cost
    moved = ACTIVATION_PASSES * cost.activation_bytes()
    image = FORWARD_PASSES * cost.ptflops_macs / machine.compute + moved / machine.bandwidth
    tested = data.test_images or data.info.test
    if run.recipe is None:
        pixels = math.prod(data.info.image_shape) / machine.bandwidth
        return (data.training_images + tested) * (image / 3 + pixels)
    uses = run.network.options.get("iterations", len(cost.terms))
    layers = sum(uses) if isinstance(uses, list | tuple) else uses
    steps = data.training_images / run.recipe.batch_size
    return steps * layers * machine.launch + (data.training_images + tested / 3) * image


@dataclass(frozen=True)
class Conditions:
    """Where and how runs are trained: what is not known is None, and anything matches it.

    ``device``: as records name it; a processor's name ends in "(CPU)". ``threads`` and ``cores`` are a processor's,
    ``threads`` for each of the ``jobs`` runs at once.
    """

    device: str
    threads: int | None = None
    jobs: int = 1
    precision: str | None = None
    cores: int | None = None

    @property
    def machine(self) -> Machine:
        """The model's constants."""
        return CPU if self.device.endswith("(CPU)") else GPU

    @property
    def crowding(self) -> float:
        """Times that a run may take longer because others run beside it, at most."""
        if self.machine is GPU:
            return self.jobs
        return max(1.0, self.jobs * self.threads / self.cores) if self.threads and self.cores else 1.0


class Measured(Strict):
    """Seconds that an epoch of ``run`` took; ``scatter``: the standard deviation of their logarithm, where known."""

    run: Run
    seconds: float
    device: str
    threads: int
    precision: str
    source: str
    scatter: float = 0.0

    @cached_property
    def configuration(self) -> str:
        """The id that all seeds of the run share."""
        return self.run.configuration

    @cached_property
    def modelled(self) -> float:
        """What the model says instead of ``seconds``."""
        return modelled_epoch(self.run, Conditions(self.device).machine)

    @property
    def family(self) -> Family:
        """That of its run."""
        return family(self.run)

    @property
    def where(self) -> tuple[str, int, str]:
        """What must be equal for times to be comparable."""
        return self.device, self.threads, self.precision


def usable(records: Iterable[Record]) -> Iterator[Measured]:
    """What records measured, but those without an epoch or of a network that no paper here registers."""
    for record in records:
        where = {name: getattr(record, name) for name in ("run", "device", "threads", "precision")}
        if record.run.recipe and (total := math.fsum(record.series["seconds"])):  # without what a kill threw away
            with suppress(SpecError):
                measured = Measured(seconds=total / record.epochs, source=f"record {record.id}", **where)
                if measured.modelled:
                    yield measured


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
        return replace(self, **{name: fraction * getattr(self, name) for name in ("seconds", "low", "high")})


class Estimator:
    """Estimates of runs under some conditions, from records and calibrations.

    Records of other devices only count for the ranges.
    """

    def __init__(
        self, conditions: Conditions, records: Iterable[Record] = (), calibrations: Iterable[Measured] = ()
    ) -> None:
        known = list(usable(records))
        self.conditions = conditions
        self.errors, self.reach = prediction_errors(known, conditions.machine)
        model = _nine_of_ten(self.errors["model"], STATED)
        within = _nine_of_ten(self.errors["family"], model)
        seeds = _nine_of_ten(self.errors["other seeds"], within)
        within = max(within, seeds)  # on a busy machine equal runs scatter as much as those of one family
        self.ranges = {"other seeds": seeds, "family": within, "model": max(model, within)}
        self.measured: dict[Family, list[Measured]] = {}
        for one in (*_together(known), *calibrations):
            if one.device == conditions.device and conditions.precision in (None, one.precision):
                self.measured.setdefault(one.family, []).append(one)

    def __call__(self, run: Run) -> Estimate:
        """About how long ``run`` takes from its first step."""
        epoch = modelled_epoch(run, self.conditions.machine)
        measured = self.measured.get(family(run), ()) if run.recipe else ()
        if not measured:
            return self._ranged(epoch * (run.epochs or 1), self.ranges["model"], "model")
        return min((self._scaled(run, epoch, one) for one in measured), key=lambda scaled: scaled[0])[1]

    def _scaled(self, run: Run, epoch: float, measured: Measured) -> tuple[tuple[float, ...], Estimate]:
        """What one measurement gives, after what it is chosen by.

        That is the range, the distance in modelled time, the measurement's scatter, and the options that differ.
        """
        ratio = epoch / measured.modelled
        distance = abs(math.log(ratio))
        basis = "other seeds" if measured.configuration == run.configuration else "family"
        beyond = max(1.0, distance / self.reach) if basis == "family" and self.reach else 1.0
        spread = min(self.ranges[basis] * beyond + measured.scatter, self.ranges["model"])
        seconds = measured.seconds * ratio * run.epochs
        if self.conditions.machine is CPU and self.conditions.threads not in (None, measured.threads):
            gain = math.log(measured.threads / self.conditions.threads)
            seconds, spread = seconds * math.exp(gain / 2), spread + abs(gain) / 2
        estimate = self._ranged(seconds, spread, basis, measured.source)
        width = round(math.log(estimate.high / estimate.low), 9)  # so that equal ones are equal
        return (width, distance, measured.scatter, len(_options(run) ^ _options(measured.run))), estimate

    def _ranged(self, seconds: float, spread: float, basis: str, source: str = "") -> Estimate:
        """``seconds``: without other jobs beside it."""
        half = math.log(self.conditions.crowding) / 2
        seconds, spread = seconds * math.exp(half), spread + half
        return Estimate(seconds, seconds * math.exp(-spread), seconds * math.exp(spread), basis, source)


def prediction_errors(known: Sequence[Measured], machine: Machine) -> tuple[dict[str, list[float]], float]:
    """How wrong each kind of estimate is, the logarithms of its factors, the largest last; and the family's reach.

    Only pairs on the same device with the same threads and precision are compared. The model's are those of the kind
    of device whose constants ``machine`` has, for each family the largest: its records are wrong together. The reach is
    the logarithm of the largest ratio of modelled times between two records of a family.
    """
    errors: dict[str, list[float]] = {"other seeds": [], "family": []}
    reach, alone = 0.0, dict[Family, float]()
    for one, other in combinations(known, 2):
        if (one.where, one.family) == (other.where, other.family):
            ratio = math.log(one.modelled / other.modelled)
            kind = "other seeds" if one.configuration == other.configuration else "family"
            errors[kind].append(abs(math.log(one.seconds / other.seconds) - ratio))
            reach = max(reach, abs(ratio))
    for one in known:
        if Conditions(one.device).machine is machine:
            alone[one.family] = max(alone.get(one.family, 0.0), abs(math.log(one.seconds / one.modelled)))
    errors["model"] = list(alone.values())
    return {kind: sorted(found) for kind, found in errors.items()}, reach


def _nine_of_ten(errors: Sequence[float], wider: float) -> float:
    return errors[math.ceil(0.9 * len(errors)) - 1] if len(errors) >= ENOUGH else wider


def _together(measurements: Iterable[Measured]) -> Iterator[Measured]:
    """The seeds of a configuration under the same conditions as one measurement: their geometric mean."""
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for one in sorted(measurements, key=lambda one: one.run.seed):
        groups.setdefault((one.configuration, *one.where), []).append(one)
    for first, *others in groups.values():
        seconds = statistics.geometric_mean(one.seconds for one in (first, *others))
        source = f"{1 + len(others)} records" if others else first.source
        yield first.model_copy(update={"seconds": seconds, "source": source})


def _options(run: Run) -> set[tuple[str, str]]:
    return {(key, str(value)) for one in (run.network, run.method) if one for key, value in one.options.items()}
