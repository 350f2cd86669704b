"""How long an epoch takes: what a rough model says, what was measured, and how wrong one is about the other.

**The model** of an epoch with its evaluation, in seconds, is::

    steps x layers x LAUNCH + (images + test images / 3) x (3 MACs / COMPUTE + 4 activation bytes / BANDWIDTH)

A training step computes three times the forward pass (itself, gradient of the input, gradient of the weights), touches
its activations about four times, and starts its kernels layer by layer, which small batches on a GPU mostly wait for.
The three constants are rough.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from thriftylib.errors import SpecError
from thriftylib.evidence.records import Record
from thriftylib.spec import Run


@dataclass(frozen=True)
class Machine:
    """The model's constants: seconds per layer and step, MACs per second, bytes per second."""

    launch: float
    compute: float
    bandwidth: float


CPU = Machine(launch=500e-6, compute=50e9, bandwidth=5e9)  # two cores of a server
GPU = Machine(launch=250e-6, compute=100e12, bandwidth=1e12)  # one of a data centre


def family(run: Run) -> tuple[str, str | None]:
    """Runs whose costs may be scaled to one another: the network's name and its method's."""
    return run.network.name, run.method.name if run.method else None


def modelled_epoch(run: Run, machine: Machine) -> float:
    """Modelled seconds of an epoch with its evaluation; of a run that only measures, of one pass over the data."""
    data, cost = run.data, run.cost
    uses = run.network.options.get("iterations", len(cost.terms))
    layers = sum(uses) if isinstance(uses, list | tuple) else uses
    image = 3 * cost.ptflops_macs / machine.compute + 4 * cost.activation_bytes() / machine.bandwidth
    tested = data.test_images or data.info.test
    if run.recipe is None:
        pixels = math.prod(data.info.image_shape) / machine.bandwidth
        return (data.training_images + tested) * (image / 3 + pixels)
    steps = data.training_images / run.recipe.batch_size
    return steps * layers * machine.launch + (data.training_images + tested / 3) * image


@dataclass(frozen=True)
class Measured:
    """Seconds that an epoch of ``run`` took; ``scatter``: the standard deviation of their logarithm, where known."""

    run: Run
    seconds: float
    device: str
    threads: int
    precision: str
    source: str
    jobs: int | None = None  # None: not known
    scatter: float = 0.0

    @cached_property
    def configuration(self) -> str:
        """The id that all seeds of the run share."""
        return self.run.configuration

    @cached_property
    def family(self) -> tuple[str, str | None]:
        """See :func:`family`."""
        return family(self.run)

    @property
    def machine(self) -> Machine:
        """The model's constants for its device."""
        return CPU if self.device.endswith("(CPU)") else GPU

    @cached_property
    def modelled(self) -> float:
        """What the model says instead of ``seconds``."""
        return modelled_epoch(self.run, self.machine)

    @classmethod
    def of(cls, record: Record) -> Measured:
        """What a record says; work that a kill threw away is in no epoch of it."""
        seconds = math.fsum(record.series["seconds"]) / record.epochs
        return cls(record.run, seconds, record.device, record.threads, record.precision, f"record {record.id}")


@dataclass(frozen=True)
class Errors:
    """Errors of each kind of prediction, as the logarithm of their factor, the largest last.

    ``model`` has one for each family, its largest: records of one family are wrong together. ``reach`` is the logarithm
    of the largest ratio of modelled times between two records of ``family``.
    """

    seeds: list[float]
    family: list[float]
    model: list[float]
    reach: float


def prediction_errors(records: Iterable[Record], machine: Machine = CPU) -> Errors:
    """How wrong each kind of estimate is among these records, each predicted from each other one.

    Only pairs on the same device with the same threads and precision are compared, and ``model`` holds the records of
    the kind of device whose constants ``machine`` has.
    """
    known = list(usable(records))
    seeds, within, reach = [], [], 0.0
    alone: dict[tuple[str, str | None], float] = {}
    for one, other in combinations(known, 2):
        if _where(one) != _where(other) or one.family != other.family:
            continue
        ratio = math.log(one.modelled / other.modelled)
        error = abs(math.log(one.seconds / other.seconds) - ratio)
        if one.configuration == other.configuration:
            seeds.append(error)
        else:
            within.append(error)
            reach = max(reach, abs(ratio))
    for one in known:
        if one.machine is machine:
            alone[one.family] = max(alone.get(one.family, 0.0), abs(math.log(one.seconds / one.modelled)))
    return Errors(sorted(seeds), sorted(within), sorted(alone.values()), reach)


def _where(measured: Measured) -> tuple[str, int, str]:
    return measured.device, measured.threads, measured.precision


def usable(records: Iterable[Record]) -> Iterator[Measured]:
    """What records measured, but those without an epoch or of a network that no paper here registers."""
    for record in records:
        if record.epochs and record.run.recipe and math.fsum(record.series["seconds"]):
            with suppress(SpecError):
                measured = Measured.of(record)
                if measured.modelled:
                    yield measured


def together(measurements: Iterable[Measured]) -> list[Measured]:
    """The seeds of a configuration under the same conditions as one measurement: their geometric mean."""
    groups: dict[tuple, list[Measured]] = {}
    for one in measurements:
        groups.setdefault((one.configuration, *_where(one)), []).append(one)
    found = []
    for group in groups.values():
        first = min(group, key=lambda one: one.run.seed)
        source = first.source if len(group) == 1 else f"{len(group)} records"
        found.append(replace(first, seconds=statistics.geometric_mean(one.seconds for one in group), source=source))
    return found
