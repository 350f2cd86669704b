"""What runs are worth: the verdicts that they make possible. No torch.

A claim that a training can answer is as far as its side with the fewest seeds, where both sides of a difference need
runs of one configuration each by the same recipe: with one side alone nothing is gained. So

- the first seed brings a *weak* word (consistent, at odds): FIRST;
- with enough seeds on each side a *strong* word (reproduced, not reproduced) can be said: 1. Three are enough; "the
  best of several runs" needs as many as the rule fixes in advance, since a maximum of fewer is another number;
- each further seed up to MAX_SEEDS narrows the interval: NARROWS.

Seeds in between bring nothing by themselves, so what is compared is not a run but a :class:`Bundle`: the missing runs
of all sides that take a claim to its next step. A claim of an abstract, or one that a headline run answers, counts
WEIGHT times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import product
from typing import NamedTuple, Self

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.records import Record
from thriftylib.spec import Run

FIRST = 0.25
NARROWS = 0.1
WEIGHT = 2.0
MAX_SEEDS = 5


class RunKey(NamedTuple):
    """A run by what its seeds share, and its seed."""

    configuration: str
    seed: int


class Bundle(NamedTuple):
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
    return 1.0 + NARROWS * (min(seeds, MAX_SEEDS) - claim.seeds_needed)


class Ledger:
    """Which seeds each configuration has, and so how far each claim is.

    Args:
        claims: by id; those that no training answers are left out.
        runs: one of each configuration that may be planned, by the configuration's id.
        records: what is there already.
        headlines: configurations whose claims count more.
    """

    def __init__(
        self,
        claims: Mapping[str, Claim],
        runs: Mapping[str, Run],
        records: Iterable[Record] = (),
        headlines: Iterable[str] = (),
    ) -> None:
        self.claims = {
            key: claim
            for key, claim in claims.items()
            if claim.not_testable is None and not claim.is_counted and claim.sides
        }
        self.seeds: dict[str, frozenset[int]] = defaultdict(frozenset)
        known = dict(runs)
        for record in records:
            known.setdefault(configuration := record.run.configuration, record.run)
            self.seeds[configuration] |= {record.run.seed}
        kinds: dict[tuple[str, str], dict[str, Run]] = defaultdict(dict)
        for configuration, run in known.items():
            kinds[run.network.name, run.data.name][configuration] = run
        self.candidates = {key: _candidates(claim, kinds) for key, claim in self.claims.items()}
        self.asked_by: dict[str, list[str]] = defaultdict(list)
        for key, candidates in self.candidates.items():
            for configuration in dict.fromkeys(each for candidate in candidates for each in candidate):
                self.asked_by[configuration].append(key)
        headline = {key for configuration in headlines for key in self.asked_by[configuration]}
        weighty = {key for key, claim in self.claims.items() if claim.mark == "ABSTRACT" or key in headline}
        self.weights = {key: WEIGHT if key in weighty else 1.0 for key in self.claims}

    def copy(self) -> Self:
        """Another ledger that goes on from here."""
        other = copy(self)
        other.seeds = self.seeds.copy()
        return other

    def reached(self, claim: str, more: Mapping[str, int] | None = None) -> int:
        """Seeds on the claim's weakest side, of the candidates that have the most; with ``more`` of a configuration."""
        more = more or {}
        sides = ([len(self.seeds[each]) + more.get(each, 0) for each in one] for one in self.candidates[claim])
        return max(map(min, sides), default=0)

    def gain(self, runs: Iterable[RunKey]) -> float:
        """What these runs, none of which is there, are worth together."""
        more = Counter(configuration for configuration, _ in runs)
        asked = dict.fromkeys(key for configuration in more for key in self.asked_by[configuration])
        gained = 0.0
        for key in asked:
            claim, before, after = self.claims[key], self.reached(key), self.reached(key, more)
            gained += self.weights[key] * (value(claim, after) - value(claim, before))
        return gained

    def add(self, run: RunKey) -> Words:
        """Count a run as there; returns the words that it brings by coming after the others."""
        asked = self.asked_by[run.configuration]
        before = list(map(self.reached, asked))
        self.seeds[run.configuration] |= {run.seed}
        steps = [(first, self.reached(key), key) for first, key in zip(before, asked, strict=True)]
        weak = sum(first == 0 < after for first, after, _ in steps)
        return Words(weak, sum(first < self.claims[key].seeds_needed <= after for first, after, key in steps))

    def bundles(self) -> list[Bundle]:
        """Every step of every claim, by each candidate."""
        return [
            Bundle(key, candidate, seeds)
            for key, candidates in self.candidates.items()
            for candidate in candidates
            for seeds in range(1, MAX_SEEDS + 1)
            if value(self.claims[key], seeds) > value(self.claims[key], seeds - 1)
        ]

    def missing(self, bundle: Bundle, allowed: Sequence[int]) -> list[RunKey] | None:
        """The runs that a bundle lacks, seed by seed, with the lowest of the ``allowed`` seeds; None: too few seeds."""
        runs = []
        for side, configuration in enumerate(bundle.configurations):
            there = self.seeds[configuration]
            lacking = max(0, bundle.seeds - len(there))
            free = sorted(set(allowed) - there)[:lacking]
            if len(free) < lacking:
                return None
            runs += [(seed, side, configuration) for seed in free]
        return [RunKey(configuration, seed) for seed, _, configuration in sorted(runs)]


def _candidates(claim: Claim, kinds: Mapping[tuple[str, str], Mapping[str, Run]]) -> list[tuple[str, ...]]:
    """The configurations that answer a claim, one a side; of two sides, those with the same recipe."""
    sides = []
    for side in claim.sides:
        known = kinds.get((side.network, side.dataset), {})
        sides.append([(key, run) for key, run in known.items() if side.fits(run) and side.has_recipe(run)])
    return [
        tuple(key for key, _ in chosen)
        for chosen in product(*sides)
        if len({run.recipe for _, run in chosen}) == 1 and len({key for key, _ in chosen}) == len(chosen)
    ]
