"""Which missing runs to train next: the order by verdicts gained per hour on this machine.

Again and again the bundle of runs with the largest worth per second comes next, given the records and what is planned
before it; :mod:`thriftylib.running.worth` says what a bundle is worth, :mod:`thriftylib.running.estimates` how
long its runs take. A run whose checkpoint is there takes what is left of it, and one that starts from another's
weights needs that one too. Runs that bring no verdict come last: first those that answer a claim, then by seed, then
the shortest first. With a budget, a run that takes longer is left out, and with it every bundle that needs it; and a
bundle that does not fit into what is left of the budget comes after all that do, since a part of it brings nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.records import Record
from thriftylib.experiments.base import Configuration, Where, experiment, select
from thriftylib.running.estimates import Estimate, Estimator
from thriftylib.running.folders import OutputFolders
from thriftylib.running.queue import parents_first
from thriftylib.running.worth import Bundle, Ledger, RunKey, Words
from thriftylib.schedules import steps_per_epoch
from thriftylib.spec import Run


@dataclass(frozen=True)
class Pending:
    """One missing run: the experiments that show it, and how long it takes.

    ``configuration`` is that of the first experiment, with the testable claims alone. ``done`` is the fraction that a
    checkpoint holds; ``estimate`` is of the rest.
    """

    run: Run
    key: RunKey
    configuration: Configuration
    experiments: tuple[str, ...]
    preset: str
    estimate: Estimate
    done: float = 0.0

    @property
    def parent(self) -> RunKey | None:
        """The run from whose weights this one starts."""
        return RunKey(self.run.parent, self.run.seed) if self.run.parent else None


@dataclass(frozen=True)
class Slot:
    """A planned run, its end in seconds from now, and the words that claims get by it."""

    pending: Pending
    end: float
    words: Words


@dataclass(frozen=True)
class Plan:
    """The missing runs in order, and those left out since they, or their parents, take longer than a budget.

    ``ledger`` says what is recorded.
    """

    runs: list[Pending]
    too_long: list[Pending]
    ledger: Ledger

    def within(self, budget: float | None, jobs: int = 1) -> list[Slot]:
        """The runs that end before the budget does, ``jobs`` at once: one that does not fit makes way for the next."""
        free, ends = [0.0] * jobs, dict[RunKey, float]()
        planned = {pending.key for pending in self.runs}
        chosen = []
        for pending in self.runs:
            if pending.parent in planned and pending.parent not in ends:
                continue
            job = min(range(jobs), key=free.__getitem__)
            end = max(free[job], ends.get(pending.parent, 0.0)) + pending.estimate.seconds
            if budget is None or end <= budget:
                free[job] = ends[pending.key] = end
                chosen.append(pending)
        ledger = self.ledger.copy()
        words = {pending.key: ledger.add(pending.key) for pending in sorted(chosen, key=lambda one: ends[one.key])}
        return [Slot(pending, ends[pending.key], words[pending.key]) for pending in chosen]


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
    folders: OutputFolders | None = None,
) -> Plan:
    """The runs of these experiments that have no record, in the order of this module; the same on every call.

    Args:
        longest: seconds; runs that take longer are left out, and bundles that do not fit into what is left of them come
            after all that do: a part of one brings nothing.
        jobs: runs at once within these seconds.
        folders: those of the checkpoints, whose runs need only be finished.
    """
    missing: dict[RunKey, Pending] = {}
    distinct = _distinct(names, presets, where)
    recorded = {RunKey(record.run.configuration, record.run.seed) for record in records.values()}
    for first, (configuration, preset, shown_in) in distinct.items():
        asked = tuple(key for key in configuration.claims if claims[key].not_testable is None)
        configuration = replace(configuration, claims=asked)
        keys = [key for seed in seeds if (key := RunKey(first, seed)) not in recorded]
        whole = estimator(configuration.run) if keys else None
        for key in keys:
            run = configuration.run.with_seed(key.seed)
            done = fraction_done(run, folders) if folders else 0.0
            missing[key] = Pending(run, key, configuration, shown_in, preset, whole.part(1 - done), done)

    def is_short(pending: Pending) -> bool:
        parent = missing.get(pending.parent)
        return (longest is None or pending.estimate.seconds <= longest) and (parent is None or is_short(parent))

    short = {key: pending for key, pending in missing.items() if is_short(pending)}
    headlines = [key for key, (configuration, _, _) in distinct.items() if configuration.headline]
    wanted = dict.fromkeys(claim for pending in missing.values() for claim in pending.configuration.claims)
    runs = {key.configuration: pending.run for key, pending in missing.items()}
    ledger = Ledger({key: claims[key] for key in claims if key in wanted}, runs, records.values(), headlines)
    ordered = _Order(dict(short), ledger.copy(), seeds, math.inf if longest is None else longest * jobs).ordered()
    return Plan(ordered, [pending for key, pending in missing.items() if key not in short], ledger)


def fraction_done(run: Run, folders: OutputFolders) -> float:
    """The fraction of a run's steps that its checkpoint holds; 0 where there is none that can be read."""
    if run.recipe is None or not (path := folders.checkpoint(run)).is_file():
        return 0.0
    from thriftylib.training.checkpoint import saved_values

    values = saved_values(path) or {}
    epoch, batch = (values.get(name, 0) for name in ("epoch", "batch"))  # training says what is wrong with it
    steps = steps_per_epoch(run.data.training_images, run.recipe.batch_size)
    return min(1.0, (epoch + batch / steps) / run.epochs)


def _distinct(
    names: Sequence[str], presets: Sequence[str], where: Where | None
) -> dict[str, tuple[Configuration, str, tuple[str, ...]]]:
    """Each different run by its id, in the order of the experiments: configuration, preset, experiments."""
    found: dict[str, tuple[Configuration, str, tuple[str, ...]]] = {}
    for preset, name in product(presets, names):
        for configuration in select(experiment(name), preset, where):
            key = configuration.run.id
            first, _, shown_in = found.get(key, (configuration, preset, ()))
            first = replace(first, headline=first.headline or configuration.headline)
            found[key] = (first, preset, (*shown_in, name))
    return found


@dataclass
class _Order:
    """Bundle by bundle, that with the largest worth per second first."""

    waiting: dict[RunKey, Pending]
    ledger: Ledger
    seeds: Sequence[int]
    room: float

    @cached_property
    def parents(self) -> dict[str, str]:
        return {key.configuration: one.run.parent for key, one in self.waiting.items() if one.run.parent}

    def ordered(self) -> list[Pending]:
        ordered: list[Pending] = []
        bundles = self.ledger.bundles()
        touched_by = {bundle: self._touched_by(bundle) for bundle in bundles}
        rates = {bundle: self._rate(bundle) for bundle in bundles}
        while True:
            possible = [bundle for bundle in bundles if rates[bundle][0] > 0]
            fitting = [bundle for bundle in possible if self._seconds(rates[bundle][1]) <= self.room]
            best = max(fitting or possible, key=lambda bundle: rates[bundle][0], default=None)  # the first of equals
            if best is None:
                break
            runs = rates[best][1]
            self.room = self.room - self._seconds(runs) if fitting else 0.0
            for key in runs:
                self.ledger.add(key)
                ordered.append(self.waiting.pop(key))
            changed = {key.configuration for key in runs}
            rates |= {bundle: self._rate(bundle) for bundle in bundles if touched_by[bundle] & changed}
        place = {seed: number for number, seed in enumerate(self.seeds)}
        rest = self.waiting.values()
        ordered += sorted(
            rest, key=lambda one: (not one.configuration.claims, place[one.run.seed], one.estimate.seconds)
        )
        by_run = {pending.run.id: pending for pending in ordered}
        return [by_run[run.id] for run in parents_first(pending.run for pending in ordered)]

    def _rate(self, bundle: Bundle) -> tuple[float, list[RunKey]]:
        """The worth per second of a bundle's runs, with their missing parents; 0: it gains nothing or cannot be."""
        runs = self.ledger.missing(bundle, self.seeds)
        if not runs or not all(key in self.waiting for key in runs):
            return 0.0, []
        needed: dict[RunKey, None] = {}
        for key in runs:
            family = [RunKey(each, key.seed) for each in self._family(key.configuration)]
            needed |= dict.fromkeys(each for each in reversed(family) if each in self.waiting)
        return self.ledger.gain(needed) / max(self._seconds(needed), 1e-9), list(needed)

    def _family(self, configuration: str | None) -> list[str]:
        """A configuration, its parent, its parent's parent ..."""
        return [configuration, *self._family(self.parents.get(configuration))] if configuration else []

    def _touched_by(self, bundle: Bundle) -> set[str]:
        """The configurations whose runs, once planned, may change what a bundle brings or needs."""
        families = {each for configuration in bundle.configurations for each in self._family(configuration)}
        claims = {claim for configuration in families for claim in self.ledger.asked_by[configuration]}
        return families | {each for claim in claims for one in self.ledger.candidates[claim] for each in one}

    def _seconds(self, keys: Iterable[RunKey]) -> float:
        return math.fsum(self.waiting[key].estimate.seconds for key in keys)
