r"""Differences: claims that compare two networks, judged by the confidence interval of their difference. No torch.

A message such as "depth gains nothing without regulators" survives a recipe that is not the authors', where the
accuracies themselves do not. So its two networks are compared with each other, both trained by the same recipe.

**Which records count.** Two configurations, one that fits the claim's ``setting`` and one that fits ``against``, with
equal recipes to the last detail. The claim's own recipes decide; where several pairs of configurations fit, the one
with the most runs. Each run gives the claim's own statistic, as for any claim: the best epoch favours both sides.

**Numbers.** Where both sides have the same seeds, a pair of runs shares its seed, and so the order of the images and
their augmentation: d is the mean of the n pair differences, their deviation s, and the 95 % confidence interval is
Student's, d +- t(0.975, n - 1) s / sqrt(n). Where the seeds are not the same, d is the difference of the means of all
runs and the interval Welch's; n is then the number of runs of the side that has fewer. Nothing is corrected for the
number of claims: of 20 true differences of zero one interval misses zero by chance.

**What is claimed** (``relation``):

- *greater*: the difference is above 0;
- *no gain*: it is at most the ``margin``;
- *equal*: it is within the ``margin`` on both sides. A margin is ours unless the claim says otherwise;
- *value*: it is the claimed c, whose reading error is e.

**The words**, for the first three, from three pairs on: *reproduced* where the whole interval is as claimed, *not
reproduced* where no part of it is. An interval that reaches to both sides, or fewer than three pairs, decides nothing:
*consistent* or *at odds* then, by the side that d is on. So a difference that was not found is not taken for equality:
that needs an interval as narrow as the margin.

A *value* is judged as an accuracy is: from three pairs on, if the interval's half width is at most 1 point, it is
*reproduced* where \|d - c\| is at most e plus what chance explains, t(0.975, v) times the deviation of d - c, the
paper's difference taken to be of one run of each network where it does not say; *partly* where \|d - c\| is at most
e + 1 point; else *not reproduced*. Otherwise *consistent* or *at odds* by whether \|d - c\| is at most e + 1 point.

With another recipe, the same one on both sides, a claim is at most *partly* met: where this rule would say *reproduced*
of it. Otherwise it is *not run*, and the other recipe's number is shown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.special import stdtrit

from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.outcomes import CLOSE, ROUND, Status, Verdict, mean, notes, outcome
from thriftylib.evidence.records import Record

PAIRS = 3
"""Pairs of runs from which on an interval decides."""


class Difference(NamedTuple):
    """One side's mean less the other's, in points; ``spreads``: (variance, runs) of each mean that it is made from."""

    mean: float
    spreads: tuple[tuple[float, int], ...]
    n: int
    paired: bool

    def half(self, more: float = 0.0) -> float | None:
        """Half the 95 % interval of the difference, of ``more`` further runs' share too; None for a single run.

        The degrees of freedom are Welch's, which for one mean are its runs less one.
        """
        if self.n < 2:
            return None
        terms = [(variance * (1 / runs + more), runs - 1) for variance, runs in self.spreads]
        total = math.fsum(term for term, _ in terms)
        if not total:
            return 0.0
        freedom = total**2 / math.fsum(term**2 / own for term, own in terms)
        return float(stdtrit(freedom, 0.975)) * math.sqrt(total)


class Comparison(NamedTuple):
    """The rule's answer, with the tolerance around the claimed value or the margin (0: there is none)."""

    status: Status
    tolerance: float


def subtract(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """The difference of two sides' accuracies by seed: paired where the seeds are the same."""
    centre = statistics.fmean(ours.values()) - statistics.fmean(theirs.values())
    paired = ours.keys() == theirs.keys()
    sides = [[ours[seed] - theirs[seed] for seed in ours]] if paired else [list(ours.values()), list(theirs.values())]
    n = min(map(len, sides))
    spreads = [(statistics.variance(side), len(side)) for side in sides] if n >= 2 else []
    return Difference(centre, tuple(spreads), n, paired)


def compare_difference(claim: Claim, found: Difference) -> Comparison:
    """The rule of this module, for one difference."""
    half = found.half()
    if claim.relation == "value":
        return _compare_value(claim, found, half)
    margin = claim.margin or 0.0
    lowest = {"greater": ROUND, "equal": -margin - ROUND}.get(claim.relation, -math.inf)
    highest = math.inf if claim.relation == "greater" else margin + ROUND
    if found.n >= PAIRS:
        if lowest <= found.mean - half and found.mean + half <= highest:
            return Comparison("reproduced", margin)
        if found.mean + half < lowest or found.mean - half > highest:
            return Comparison("not reproduced", margin)
    return Comparison("consistent" if lowest <= found.mean <= highest else "at odds", margin)


def _compare_value(claim: Claim, found: Difference, half: float | None) -> Comparison:
    weak = claim.reading_error + CLOSE
    distance = abs(found.mean - claim.value) - ROUND
    if found.n < PAIRS or half > CLOSE:
        return Comparison("consistent" if distance <= weak else "at odds", weak)
    tolerance = claim.reading_error + found.half(1 / (claim.runs or 1))
    if distance <= tolerance:
        return Comparison("reproduced", tolerance)
    return Comparison("partly" if distance <= weak else "not reproduced", tolerance)


class _Pair(NamedTuple):
    ours: list[Record]
    theirs: list[Record]
    found: Difference


def judge_difference(claim: Claim, records: Sequence[Record]) -> Verdict:
    """The rule of this module, on records of which each fits one side of the claim."""
    left, right = (_configurations(side, records) for side in claim.sides)
    pairs = [
        _Pair(ours, theirs, subtract(_by_seed(claim, ours), _by_seed(claim, theirs)))
        for ours in left
        for theirs in right
        if ours[0].run.recipe == theirs[0].run.recipe
    ]
    own = [pair for pair in pairs if all(map(Setting.has_recipe, claim.sides, (pair.ours[0].run, pair.theirs[0].run)))]
    if own:
        return _verdict(claim, max(own, key=_size), len(own) - 1)
    if pairs:
        verdicts = [_verdict_of_another_recipe(claim, pair) for pair in sorted(pairs, key=_size)]
        return max(verdicts, key=lambda verdict: (verdict.status == "partly", verdict.n))
    there = [sum(map(len, side)) for side in (left, right)]
    reason = f"No records of both networks with the recipe {' or '.join(claim.setting.recipes)}, nor with another"
    if any(there):
        reason += f" that both have: {there[0]} of the first and {there[1]} of the second"
    return Verdict(claim=claim.id, status="not run", reason=reason + ".")


def _configurations(side: Setting, records: Sequence[Record]) -> list[list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.run.seed):
        if side.fits(record.run):
            found.setdefault(record.run.configuration, []).append(record)
    return list(found.values())


def _by_seed(claim: Claim, group: Sequence[Record]) -> dict[int, float]:
    return {record.run.seed: outcome(claim, record) for record in group}


def _size(pair: _Pair) -> tuple[int, int, str]:
    names = pair.ours[0].run.configuration + pair.theirs[0].run.configuration  # any order, as long as it is one
    return pair.found.n, len(pair.ours) + len(pair.theirs), names


def _verdict(claim: Claim, pair: _Pair, others: int = 0) -> Verdict:
    both, found = [*pair.ours, *pair.theirs], pair.found
    compared = compare_difference(claim, found)
    half = found.half()
    return Verdict(
        claim=claim.id,
        status=compared.status,
        reason=f"{_measured(found)}: {_told(claim, compared, found)}{notes(both, others)}.",
        ours=found.mean,
        interval=None if half is None else (found.mean - half, found.mean + half),
        n=found.n,
        seeds=tuple(sorted({record.run.seed for record in both})),
        best=_gap(*([record.best and record.best.test_accuracy for record in side] for side in pair[:2])),
        final=_gap(*([record.final and record.final.test_accuracy for record in side] for side in pair[:2])),
        tolerance=compared.tolerance,
        recipe=both[0].run.recipe.name,
        seconds=math.fsum(record.seconds for record in both),
        device=", ".join(sorted({record.device for record in both})),
        records=tuple(record.id for record in both),
    )


def _verdict_of_another_recipe(claim: Claim, pair: _Pair) -> Verdict:
    verdict = _verdict(claim, pair)
    recipe = f"with another recipe, {verdict.recipe} ({pair.ours[0].run.recipe.epochs} epochs) on both sides"
    return verdict.model_copy(
        update={
            "status": "partly" if verdict.status == "reproduced" else "not run",
            "reason": f"{verdict.reason.removesuffix('.')}, {recipe}; the claim's own recipe was not run.",
        }
    )


def _measured(found: Difference) -> str:
    half = found.half()
    if half is None:
        return f"{found.mean:+.2f} points, from a single {'pair of runs' if found.paired else 'run of one side'}"
    how = f"{found.n} pairs of runs with the same seeds" if found.paired else f"at least {found.n} runs of each side"
    return f"{found.mean:+.2f} points, 95 % interval {found.mean - half:+.2f} to {found.mean + half:+.2f}, from {how}"


def _told(claim: Claim, compared: Comparison, found: Difference) -> str:
    if claim.relation == "value":
        within = f"the claimed {claim.value:+g} points within {compared.tolerance:.2f}"
        return {
            "reproduced": f"agrees with {within}",
            "partly": f"does not agree with {within}, but differs by no more than {CLOSE:g} point",
            "not reproduced": f"disagrees with {within}",
            "consistent": f"is consistent with {within}; only more seeds can say more",
            "at odds": f"is at odds with {within}; only more seeds can say more",
        }[compared.status]
    claimed = {
        "greater": "a difference above 0",
        "no gain": f"a gain of at most {compared.tolerance:g}",
        "equal": f"equality within {compared.tolerance:g}",
    }[claim.relation]
    reach = "the interval reaches beyond" if found.n >= PAIRS else f"fewer than {PAIRS} pairs decide nothing"
    return {
        "reproduced": f"{claimed}, by the whole interval",
        "not reproduced": f"not {claimed}, by the whole interval",
        "consistent": f"as claimed, {claimed}, but {reach}",
        "at odds": f"not as claimed, {claimed}, but {reach}",
    }[compared.status]


def _gap(ours: list[float | None], theirs: list[float | None]) -> float | None:
    first, second = mean(ours), mean(theirs)
    return None if first is None or second is None else first - second
