"""Which missing runs to train next: the order by verdicts gained per hour on this machine.

Again and again the bundle of runs with the largest worth per second comes next, given the records and what is planned
before it; :mod:`thriftylib.running.worth` says what a bundle is worth, :mod:`thriftylib.running.estimates` how
long its runs take. A run whose checkpoint is there takes what is left of it, and one that starts from another's
weights needs that one too. Runs that bring no verdict come last: first those that answer a claim, then by seed, then
the shortest first. With a budget, a run that takes longer is left out, and with it every bundle that needs it; and a
bundle that does not fit into what is left of the budget comes after all that do, since a part of it brings nothing.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.records import Record
from thriftylib.experiments.base import Configuration, Where, experiment, select
from thriftylib.running.estimates import Estimate, Estimator
from thriftylib.running.execute import parents_first
from thriftylib.running.worth import Bundle, Ledger, RunKey, Words
from thriftylib.schedules import steps_per_epoch
from thriftylib.spec import Run


@dataclass(frozen=True)
class Step:
    """One missing run: the experiments that show it, the testable claims that ask for it, and how long it takes.

    ``labels`` are those of the first experiment. ``done`` is the fraction that a checkpoint holds; ``estimate`` is of
    the rest.
    """

    run: Run
    labels: Mapping[str, str | int | float]
    configuration: str
    experiments: tuple[str, ...]
    preset: str
    claims: tuple[str, ...]
    estimate: Estimate
    done: float = 0.0

    @property
    def key(self) -> RunKey:
        """(configuration, seed)."""
        return self.configuration, self.run.seed

    @property
    def parent(self) -> RunKey | None:
        """The run from whose weights this one starts."""
        return (self.run.parent, self.run.seed) if self.run.parent else None


@dataclass(frozen=True)
class Slot:
    """A planned run, its end in seconds from now, and the words that claims get by it."""

    step: Step
    end: float
    words: Words


@dataclass(frozen=True)
class Plan:
    """The missing runs in order, and those left out since they, or their parents, take longer than a budget."""

    steps: list[Step]
    too_long: list[Step]
    claims: Mapping[str, Claim]
    records: Mapping[str, Record]

    def within(self, budget: float | None, jobs: int = 1) -> list[Slot]:
        """The steps that end before the budget does, ``jobs`` at once: one that does not fit makes way for the next."""
        free, ends = [0.0] * jobs, dict[RunKey, float]()
        planned = {step.key for step in self.steps}
        chosen = []
        for step in self.steps:
            if step.parent in planned and step.parent not in ends:
                continue
            job = min(range(jobs), key=free.__getitem__)
            end = max(free[job], ends.get(step.parent, 0.0)) + step.estimate.seconds
            if budget is None or end <= budget:
                free[job] = ends[step.key] = end
                chosen.append((step, end))
        ledger = Ledger(self.claims, (step.run for step in self.steps), self.records.values())
        words = {step.key: ledger.add(step.key) for step, _ in sorted(chosen, key=lambda pair: pair[1])}
        return [Slot(step, end, words[step.key]) for step, end in chosen]


def plan(
    names: Sequence[str],
    presets: Sequence[str],
    seeds: Sequence[int],
    *,
    estimator: Estimator,
    records: Mapping[str, Record],
    claims: Mapping[str, Claim],
    where: Where | None = None,
    longest: float | None = None,
    jobs: int = 1,
    checkpoints: Path | None = None,
) -> Plan:
    """The runs of these experiments that have no record, in the order of this module; the same on every call.

    Args:
        longest: seconds; runs that take longer are left out, and bundles that do not fit into what is left of them come
            after all that do: a part of one brings nothing.
        jobs: runs at once within these seconds.
        checkpoints: the folder of checkpoints, whose runs need only be finished.
    """
    found: dict[RunKey, Step] = {}
    headlines = []
    for preset, configuration, shown_in in _distinct(names, presets, where):
        if configuration.headline:
            headlines.append(configuration.run.id)
        asked = tuple(key for key in configuration.claims if claims[key].not_testable is None)
        expected: Estimate | None = None
        for seed in seeds:
            run = configuration.run.with_seed(seed)
            if run.id not in records:
                expected = expected or estimator(run)
                done = fraction_done(run, checkpoints) if checkpoints else 0.0
                step = Step(
                    run,
                    configuration.labels,
                    configuration.run.id,
                    shown_in,
                    preset,
                    asked,
                    expected.part(1 - done),
                    done,
                )
                found[step.key] = step
    steps = _startable(found, longest)
    ledger = Ledger(claims, (step.run for step in found.values()), records.values(), headlines)
    ordered = _ordered(steps, ledger, seeds, math.inf if longest is None else longest * jobs)
    return Plan(ordered, [step for key, step in found.items() if key not in steps], claims, records)


def fraction_done(run: Run, checkpoints: Path) -> float:
    """The fraction of a run's steps that its checkpoint holds; 0 where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    from thriftylib.training.checkpoint import checkpoint_path

    path = checkpoint_path(checkpoints, run.id)
    if run.recipe is None or not path.is_file():
        return 0.0
    try:
        with safe_open(path, framework="np") as file:
            values = json.loads((file.metadata() or {})["values"])
            epoch, batch = values["epoch"], values["batch"]
    except (SafetensorError, OSError, KeyError, ValueError):
        return 0.0  # training says what is wrong with it
    steps = steps_per_epoch(run.data.training_images, run.recipe.batch_size)
    return min(1.0, (epoch + batch / steps) / run.epochs)


def _distinct(
    names: Sequence[str], presets: Sequence[str], where: Where | None
) -> list[tuple[str, Configuration, tuple[str, ...]]]:
    """(preset, configuration, experiments) of each different run, in the order in which the experiments name them."""
    found: dict[str, tuple[str, Configuration, tuple[str, ...]]] = {}
    for preset in presets:
        for name in names:
            for configuration in select(experiment(name), preset, where):
                _, before, shown_in = found.get(configuration.run.id, (preset, configuration, ()))
                headline = before.headline or configuration.headline
                found[configuration.run.id] = (preset, replace(before, headline=headline), (*shown_in, name))
    return list(found.values())


def _startable(found: Mapping[RunKey, Step], longest: float | None) -> dict[RunKey, Step]:
    """The steps that are short enough, as are their missing parents."""

    def short(step: Step) -> bool:
        parent = found.get(step.parent) if step.parent else None
        return (longest is None or step.estimate.seconds <= longest) and (parent is None or short(parent))

    return {key: step for key, step in found.items() if short(step)}


def _ordered(steps: Mapping[RunKey, Step], ledger: Ledger, seeds: Sequence[int], room: float) -> list[Step]:
    waiting = dict(steps)
    ordered: list[Step] = []
    bundles = ledger.bundles()
    rates: dict[Bundle, tuple[float, list[RunKey]]] = {}
    touching: dict[str, set[Bundle]] = defaultdict(set)  # bundles whose rate changes when a claim comes further
    for bundle in bundles:
        for configuration in bundle.configurations:
            for claim in ledger.asked_by[configuration]:
                touching[claim].add(bundle)
    stale: Iterable[Bundle] = bundles
    while True:
        for bundle in stale:
            rates[bundle] = _rate(bundle, ledger, waiting, steps, seeds)
        possible = [bundle for bundle in bundles if rates[bundle][0] > 0]
        fitting = [bundle for bundle in possible if _seconds(rates[bundle][1], waiting) <= room]
        best = max(fitting or possible, key=lambda bundle: rates[bundle][0], default=None)  # the first of equals
        if best is None:
            break
        room = room - _seconds(rates[best][1], waiting) if fitting else 0.0
        changed = set()
        for key in rates[best][1]:
            ledger.add(key)
            ordered.append(waiting.pop(key))
            changed |= ledger.asked_by.get(key[0], set())
        stale = {bundle for claim in changed for bundle in touching[claim]} | {
            bundle for bundle in bundles if rates[bundle][0] > 0 and not waiting.keys() >= set(rates[bundle][1])
        }
    places = {seed: place for place, seed in enumerate(seeds)}
    ordered += sorted(
        waiting.values(), key=lambda step: (not step.claims, places[step.run.seed], step.estimate.seconds)
    )
    by_run = {step.run.id: step for step in ordered}
    return [by_run[run.id] for run in parents_first(step.run for step in ordered)]


def _rate(
    bundle: Bundle, ledger: Ledger, waiting: Mapping[RunKey, Step], steps: Mapping[RunKey, Step], seeds: Sequence[int]
) -> tuple[float, list[RunKey]]:
    """The worth per second of a bundle's runs, their missing parents among them; 0: it gains nothing or cannot be."""
    runs = ledger.missing(bundle, seeds)
    if not runs or not all(key in waiting for key in runs):
        return 0.0, []
    needed: dict[RunKey, None] = {}
    for key in runs:
        chain = [key]
        while (parent := steps[chain[-1]].parent) in waiting:
            chain.append(parent)
        needed |= dict.fromkeys(reversed(chain))
    return ledger.gain(needed) / max(_seconds(needed, waiting), 1e-9), list(needed)


def _seconds(keys: Iterable[RunKey], waiting: Mapping[RunKey, Step]) -> float:
    return math.fsum(waiting[key].estimate.seconds for key in keys)
