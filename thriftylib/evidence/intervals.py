"""Estimates, their 90 % intervals, and the word that an interval beside a claimed range decides. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from thriftylib.evidence.claims import SEEDS, Claim, Spread
from thriftylib.evidence.statuses import Status, Word

LEVEL = 0.95
"""Of each end of an interval: two ends make it a 90 % interval, that of two one-sided tests at 5 %."""
ROUND = 1e-9
"""Room for rounding in comparisons: sums of two-decimal numbers are not exact."""


class Side(NamedTuple):
    """One network's runs: their sample variance, and how many there are."""

    variance: float
    runs: int


class Estimate(NamedTuple):
    """One network's mean, or the difference of two networks' means."""

    mean: float
    sides: tuple[Side, ...]  # the samples, where each has two runs at least
    n: int  # runs, of the side that has fewer
    pairs: Side | None = None  # the differences of equal seeds, where runs of one seed are to be paired

    @property
    def half(self) -> float | None:
        """Half the 90 % interval; None for a single run of a side."""
        return self.half_beside((None,) * len(self.sides), math.inf)

    def half_beside(self, reported: Sequence[Spread | None], runs: float) -> float | None:
        """Half the 90 % interval of this less the paper's estimate; None for a single run of a side.

        ``reported`` are the paper's spreads of the sides; one that is not known is taken to be ours over ``runs``.
        """
        return _half_width(self.means_beside(reported, runs)) if self.sides else None

    def means_beside(self, reported: Sequence[Spread | None], runs: float) -> list[tuple[float, int]]:
        """The variances of the independent means that ``half_beside`` adds up, each with its degrees of freedom."""
        means = [(self.pairs.variance * (1 / self.pairs.runs), self.pairs.runs - 1)] if self.pairs else []
        for side, spread in zip(self.sides, reported, strict=True):
            own = 0.0 if self.pairs else 1 / side.runs
            means.append((side.variance * (own + (0.0 if spread else 1 / runs)), side.runs - 1))
            if spread:
                means.append((spread.deviation**2 / spread.runs, spread.runs - 1))
        return means


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one network's runs."""
    sides = (Side(statistics.variance(values), len(values)),) if len(values) > 1 else ()
    return Estimate(statistics.fmean(values), sides, len(values))


def subtract(ours: Mapping[int, float], theirs: Mapping[int, float], *, paired: bool = False) -> Estimate:
    """One side's mean less the other's, given by seed; ``paired``: of the seeds that both have, where there are any."""
    common = sorted(ours.keys() & theirs.keys()) if paired else []
    if common:
        ours, theirs = ({seed: side[seed] for seed in common} for side in (ours, theirs))
    left, right = (estimate(list(side.values())) for side in (ours, theirs))
    sides = left.sides + right.sides if left.sides and right.sides else ()
    pairs = estimate([ours[seed] - theirs[seed] for seed in common]).sides if common else ()
    return Estimate(left.mean - right.mean, sides, min(left.n, right.n), *pairs)


def welch(means: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Variance and degrees of freedom, after Welch, of a sum of independent means that are given with theirs."""
    known = [(variance, freedom) for variance, freedom in means if variance > 0]
    total = math.fsum(variance for variance, _ in known)
    return total, total**2 / math.fsum(variance**2 / freedom for variance, freedom in known) if known else math.inf


def _half_width(means: Iterable[tuple[float, int]]) -> float:
    total, freedom = welch(means)
    return student(freedom) * math.sqrt(total) if total else 0.0


@cache
def student(freedom: float) -> float:
    """The LEVEL quantile of Student's distribution, without the third of a second that scipy takes to import.

    Of the angle whose tangent is t / sqrt(freedom) the density is a power of a cosine. Simpson's rule integrates it,
    and Newton's method, which never overshoots here, finds the quantile.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle, change = 0.0, math.inf
    while change > 1e-14:
        at = [scale * math.cos(angle * i / 200) ** (freedom - 1) for i in range(201)]
        area = angle / 600 * (at[0] + 4 * sum(at[1::2]) + 2 * sum(at[2:-1:2]) + at[-1])
        change = (LEVEL - 0.5 - area) / at[-1]
        angle += change
    return math.sqrt(freedom) * math.tan(angle)


def decide(centre: float, half: float | None, lowest: float, highest: float, runs: int) -> Word:
    """The word for an interval ``centre`` +- ``half`` beside the claimed range from ``lowest`` to ``highest``.

    Enough ``runs`` and the whole interval in the range, or the whole of it outside, give a strong word. Anything else
    is undecided and leans to the side that ``centre`` is on. ``half`` is None where there is no interval.
    """
    if half is not None and runs >= SEEDS:
        if lowest <= centre - half and centre + half <= highest:
            return "reproduced"
        if centre + half < lowest or centre - half > highest:
            return "not reproduced"
    return "consistent" if lowest <= centre <= highest else "at odds"


class Finding(NamedTuple):
    """The rule's answer: the word, ours, the room for being off or the margin, and what they were decided by."""

    status: Status
    ours: float
    tolerance: float
    distance: tuple[float, float] | None  # 90 % interval of ours less the claimed
    half: float | None  # of the interval around ours that decides; None: there is none
    band: tuple[float, float]  # in which the claim is met


def compare(claim: Claim, found: Estimate, best: float | None = None) -> Finding:
    """The rule of the verdicts, for what our runs give; ``best``: the best run, of a claim about that."""
    value, error, bound, lowest, highest = claim.value, claim.reading_error, claim.bound, -math.inf, math.inf
    centre, half, tolerance = found.mean, found.half, error
    if claim.is_best_of:  # decided by all runs that were fixed in advance; "the best run reaches c"
        centre, half = best, 0.0 if found.n >= claim.seeds_needed else None
        if bound == "equals":
            bound = "at most" if claim.definition.better == "lower" else "at least"
    if claim.relation not in (None, "value"):
        tolerance = claim.margin or 0.0
        lowest = {"greater": ROUND, "equal": -tolerance - ROUND}.get(claim.relation, lowest)
        highest = highest if claim.relation == "greater" else tolerance + ROUND
    elif bound == "at most":
        highest = value + error + ROUND
    elif bound != "equals":
        lowest = value - error + (ROUND if bound == "more than" else -ROUND)
    else:
        half = found.half_beside(claim.reported_spreads, claim.runs or 1)
        tolerance += abs(value) / 2 if claim.is_difference else claim.definition.closeness(value)
        lowest, highest = value - tolerance - ROUND, value + tolerance + ROUND
    status = decide(centre, half, lowest, highest, found.n)
    if claim.relation == "value" and status == "reproduced":  # a gain needs its sign too
        has_sign = abs(value) > error and math.copysign(1, value) * found.mean - found.half > ROUND
        status = "reproduced" if has_sign else "consistent"
    distance = None if half is None else (centre - value - half, centre - value + half)
    if claim.is_best_of or claim.relation not in (None, "value"):
        distance = None
    return Finding(status, centre, tolerance, distance, half, (lowest, highest))


class Answer(NamedTuple):
    """What the rule makes of runs: a value for each seed of each side, the estimate from them, and the finding."""

    sides: tuple[dict[int, float], ...]
    found: Estimate
    finding: Finding
