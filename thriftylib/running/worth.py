"""What runs are worth: the verdicts that they make possible. No torch.

A claim that a training can answer is as far as its side with the fewest seeds, where both sides of a difference need
runs of one configuration each by the same recipe: with one side alone nothing is gained. Seen so,

- the first seed brings a *weak* word (consistent, at odds): FIRST;
- with SEEDS seeds on each side a *strong* word (reproduced, not reproduced) can be said: 1. "The best of several runs"
  needs as many as the rule fixes in advance, since a maximum of fewer is another number;
- each further seed up to MOST narrows the interval: NARROWS.

Seeds in between bring nothing by themselves, so what is compared is not a run but a :class:`Bundle`: the missing runs
of all sides that take a claim to its next step. A claim of an abstract, or one that a headline run answers, counts
WEIGHT times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.records import Record
from thriftylib.spec import Run

FIRST = 0.25
NARROWS = 0.1
WEIGHT = 2.0
MOST = 5

RunKey = tuple[str, int]
"""(configuration, seed)."""


@dataclass(frozen=True)
class Bundle:
    """Runs that take a claim to ``seeds`` seeds of each of ``configurations``, one a side."""

    claim: str
    configurations: tuple[str, ...]
    seeds: int


class Words(NamedTuple):
    """Claims that get their first, weak word, and claims that have the seeds for a strong one."""

    weak: int
    strong: int


def value(claim: Claim, seeds: int) -> float:
    """What a claim with so many seeds on its weakest side is worth, without its weight."""
    if seeds < claim.seeds_needed:
        return FIRST if seeds else 0.0
    return 1.0 + NARROWS * (min(seeds, MOST) - claim.seeds_needed)


class Ledger:
    """Which seeds each configuration has, and so how far each claim is.

    Args:
        claims: by id; those that no training answers are left out.
        runs: one or more of each configuration that is recorded or may be planned.
        records: what is there already.
        headlines: configurations whose claims count more.
    """

    def __init__(
        self,
        claims: Mapping[str, Claim],
        runs: Iterable[Run],
        records: Iterable[Record] = (),
        headlines: Iterable[str] = (),
    ) -> None:
        self.claims = {
            claim.id: claim
            for claim in claims.values()
            if claim.not_testable is None and not claim.is_counted and claim.sides
        }
        known = {run.configuration: run for run in runs}
        self.seeds: dict[str, set[int]] = defaultdict(set)
        for record in records:
            configuration = record.run.configuration
            known.setdefault(configuration, record.run)
            self.seeds[configuration].add(record.run.seed)
        self.candidates = {key: _candidates(claim, known) for key, claim in self.claims.items()}
        self.asked_by: dict[str, set[str]] = defaultdict(set)
        for key, candidates in self.candidates.items():
            for configuration in {each for candidate in candidates for each in candidate}:
                self.asked_by[configuration].add(key)
        headline = {key for configuration in headlines for key in self.asked_by.get(configuration, ())}
        self.weights = {
            key: WEIGHT if claim.mark == "ABSTRACT" or key in headline else 1.0 for key, claim in self.claims.items()
        }

    def reached(self, claim: str, more: Mapping[str, int] | None = None) -> int:
        """Seeds on the claim's weakest side, of the candidates that have the most; with ``more`` of a configuration."""
        more = more or {}

        def there(configuration: str) -> int:
            return len(self.seeds.get(configuration, ())) + more.get(configuration, 0)

        return max((min(map(there, candidate)) for candidate in self.candidates[claim]), default=0)

    def gain(self, runs: Iterable[RunKey]) -> float:
        """What these runs, none of which is there, are worth together."""
        more: dict[str, int] = defaultdict(int)
        for configuration, _ in runs:
            more[configuration] += 1
        gained = 0.0
        for key in sorted({key for configuration in more for key in self.asked_by.get(configuration, ())}):
            claim = self.claims[key]
            step = value(claim, self.reached(key, more)) - value(claim, self.reached(key))
            gained += self.weights[key] * step
        return gained

    def add(self, run: RunKey) -> Words:
        """Count a run as there; returns the words that it brings by coming after the others."""
        configuration, seed = run
        asked = sorted(self.asked_by.get(configuration, ()))
        before = {key: self.reached(key) for key in asked}
        self.seeds[configuration].add(seed)
        after = {key: self.reached(key) for key in asked}
        weak = sum(not before[key] and after[key] > 0 for key in asked)
        strong = sum(before[key] < self.claims[key].seeds_needed <= after[key] for key in asked)
        return Words(weak, strong)

    def bundles(self) -> list[Bundle]:
        """Every step of every claim, by each candidate."""
        return [
            Bundle(key, candidate, seeds)
            for key, candidates in self.candidates.items()
            for candidate in candidates
            for seeds in range(1, MOST + 1)
            if value(self.claims[key], seeds) > value(self.claims[key], seeds - 1)
        ]

    def missing(self, bundle: Bundle, allowed: Sequence[int]) -> list[RunKey] | None:
        """The runs that a bundle lacks, seed by seed, with the lowest of the ``allowed`` seeds; None: too few seeds."""
        runs = []
        for side, configuration in enumerate(bundle.configurations):
            there = self.seeds.get(configuration, set())
            free = [seed for seed in sorted(allowed) if seed not in there]
            lacking = max(0, bundle.seeds - len(there))
            if lacking > len(free):
                return None
            runs += [(seed, side, configuration) for seed in free[:lacking]]
        return [(configuration, seed) for seed, _, configuration in sorted(runs)]


def _candidates(claim: Claim, known: Mapping[str, Run]) -> list[tuple[str, ...]]:
    """The configurations that answer a claim, one a side; of two sides, those with the same recipe."""
    sides = [[key for key, run in known.items() if side.fits(run) and side.has_recipe(run)] for side in claim.sides]
    return [
        chosen
        for chosen in product(*sides)
        if len({known[key].recipe for key in chosen}) == 1 and len(set(chosen)) == len(chosen)
    ]
