"""Which missing runs to train next, and about how long each takes: an estimate, never a measurement.

The model of one run, in seconds, is::

    epochs x (steps x layers x LAUNCH + images x (3 MACs / COMPUTE + 4 activation bytes / BANDWIDTH))

with a third of the image term for each test image: a training step computes three times the forward pass (itself,
gradient of the input, gradient of the weights), touches its activations about four times, and starts its kernels layer
by layer, which small batches on a GPU mostly wait for. The three constants are rough. So where there are records
of the same device, the model is scaled by measured over modelled seconds of one of them: the one whose run is modelled
closest in seconds per image, within a factor of ten. So another seed of a recorded run is expected to take as long.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.records import Record
from thriftylib.experiments.base import Cell, Where, experiment, select
from thriftylib.experiments.execute import parents_first
from thriftylib.spec import Run


@dataclass(frozen=True)
class Machine:
    """The model's constants: seconds per layer and step, MACs per second, bytes per second."""

    launch: float
    compute: float
    bandwidth: float


CPU = Machine(launch=500e-6, compute=50e9, bandwidth=5e9)  # two cores of a server
GPU = Machine(launch=250e-6, compute=100e12, bandwidth=1e12)  # one of a data centre
NEAR = math.log(10)  # a record of a run ten times larger or smaller says nothing


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run is expected to take, and what that rests on."""

    seconds: float
    basis: str


@dataclass(frozen=True)
class Step:
    """One missing run: the experiments that show it, the claims that it answers, and about how long it takes.

    ``labels`` are those of the first experiment.
    """

    run: Run
    labels: Mapping[str, str | int | float]
    configuration: str
    experiments: tuple[str, ...]
    preset: str
    claims: tuple[str, ...]
    headline: bool
    estimate: Estimate


def estimate(run: Run, device: str, records: Iterable[Record]) -> Estimate:
    """About how long ``run`` takes on ``device``, named as records name it (a processor's name ends in "(CPU)")."""
    machine = CPU if device.endswith("(CPU)") else GPU
    modelled = _modelled(run, machine)

    def distance(record: Record) -> float:
        return abs(math.log(_per_image(record.run, machine) / _per_image(run, machine)))

    near = [record for record in records if record.device == device and record.epochs and distance(record) < NEAR]
    if not near:
        return Estimate(modelled, "model, no record of this device and size")
    closest = min(near, key=lambda record: (distance(record), record.id))
    measured = closest.seconds / closest.epochs * closest.run.recipe.epochs
    basis = (
        "another seed" if closest.run.configuration == run.configuration else f"model, scaled by record {closest.id}"
    )
    return Estimate(modelled * measured / _modelled(closest.run, machine), basis)


def _modelled(run: Run, machine: Machine) -> float:
    return _per_image(run, machine) * run.recipe.epochs * run.data.training_images


def _per_image(run: Run, machine: Machine) -> float:
    """Modelled seconds of an epoch, its evaluation included, per training image."""
    info = run.data.info
    cost = run.cost
    uses = run.network.options.get("iterations", len(cost.terms))
    layers = sum(uses) if isinstance(uses, list | tuple) else uses
    image = 3 * cost.ptflops_macs / machine.compute + 4 * cost.activation_bytes() / machine.bandwidth
    tested = (run.data.test_images or info.test) / run.data.training_images
    return layers * machine.launch / run.recipe.batch_size + image * (1 + tested / 3)


def plan(
    names: Sequence[str],
    presets: Sequence[str],
    seeds: Sequence[int],
    *,
    device: str,
    records: Mapping[str, Record],
    claims: Mapping[str, Claim],
    where: Where | None = None,
) -> list[Step]:
    """The runs of these experiments that have no record, most valuable first; the same order on every call.

    First come the headline runs' first seeds, in the order of the presets, those of an abstract's claim before others
    and else by worth per second. Then, again and again, the run with the largest worth per second given the records and
    what is planned before it. A run from whose weights another starts comes before that one.
    """
    cells = _distinct(names, presets, where)
    answers = _Answers(claims, records)
    steps = []
    for preset, cell, shown_in in cells:
        expected = None
        for seed in seeds:
            run = cell.run.with_seed(seed)
            if run.id not in records:
                expected = expected or estimate(run, device, records.values())
                first = cell.headline and seed == seeds[0]
                steps.append(Step(run, cell.labels, cell.run.id, shown_in, preset, cell.claims, first, expected))

    def rate(step: Step) -> float:
        return answers.worth(step) / step.estimate.seconds

    def rank(step: Step) -> tuple[int, bool, float]:
        abstract = any(claims[key].mark == "ABSTRACT" for key in step.claims)
        return presets.index(step.preset), not abstract, -rate(step)

    ordered = sorted((step for step in steps if step.headline), key=rank)
    for step in ordered:
        answers.count(step)
    rest = [step for step in steps if not step.headline]
    while rest:
        best = max(rest, key=rate)  # the first of equals
        answers.count(best)
        rest.remove(best)
        ordered.append(best)
    by_run = {step.run.id: step for step in ordered}
    return [by_run[run.id] for run in parents_first(step.run for step in ordered)]


def _distinct(
    names: Sequence[str], presets: Sequence[str], where: Where | None
) -> list[tuple[str, Cell, tuple[str, ...]]]:
    """(preset, cell, experiments) of each different run, in the order in which the experiments name them."""
    found: dict[str, tuple[str, Cell, tuple[str, ...]]] = {}
    for preset in presets:
        for name in names:
            for cell in select(experiment(name), preset, where):
                _, before, shown_in = found.get(cell.run.id, (preset, cell, ()))
                headline = before.headline or cell.headline
                found[cell.run.id] = (preset, replace(before, headline=headline), (*shown_in, name))
    return list(found.values())


class _Answers:
    """How often each claim, and each run that no claim asks for, is answered by records and by what is planned."""

    def __init__(self, claims: Mapping[str, Claim], records: Mapping[str, Record]) -> None:
        self.claims = claims
        self.counts: Counter[str] = Counter(record.run.configuration for record in records.values())
        for claim in claims.values():
            self.counts[claim.id] = sum(matches(claim, record.run) for record in records.values())

    def worth(self, step: Step) -> float:
        """5 for a claim of an abstract, 1 for another, 0.1 for a run that no claim asks for; less with each answer."""
        if not step.claims:
            return 0.1 / (1 + self.counts[step.configuration])
        return sum((5 if self.claims[key].mark == "ABSTRACT" else 1) / (1 + self.counts[key]) for key in step.claims)

    def count(self, step: Step) -> None:
        self.counts.update((step.configuration, *step.claims))


def within(steps: Sequence[Step], budget: float | None) -> list[Step]:
    """The steps that begin before the budget ends; the last of them may go on in the next sitting."""
    chosen, spent = [], 0.0
    for step in steps:
        if budget is not None and spent >= budget:
            break
        chosen.append(step)
        spent += step.estimate.seconds
    return chosen
