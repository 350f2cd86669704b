r"""Differences: claims that compare two networks, judged by the confidence interval of their difference. No torch.

A message such as "depth gains nothing without regulators" survives a recipe that is not the authors', where the
accuracies themselves do not. So its two networks are compared with each other, both trained by the same recipe.

**Which records count.** Two configurations, one that fits the claim's ``setting`` and one that fits ``against``, with
equal recipes to the last detail. The claim's own recipes decide; where several pairs of configurations fit, the one
with the most runs. Each run gives the claim's own statistic, as for any claim: the best epoch favours both sides.

**Numbers.** d is the difference of the two means, with the 90 % interval of two independent samples and Welch's degrees
of freedom v; n is the number of runs of the side that has fewer::

    d  +-  t(0.95, v) sqrt(s1^2 / n1 + s2^2 / n2)

Runs of one seed share the order of their images and its augmentation. That is no reason to pair them: over the six
pairs of configurations with five seeds each on record when this rule was fixed (SmallNet 3x3, CIFAR-10), the accuracies
of equal seeds correlate by -0.61 to 0.59, 0.13 in the mean, and the paired interval is wider in three of six. So
samples are independent, whatever their seeds, unless the claim says what else two runs of one seed share (``paired``:
the weights that both start from, say). Only then d is the mean of the pair differences, and the interval Student's.
Nothing is corrected for the number of claims: of 20 true differences of zero one interval misses zero on the claimed
side by chance.

**What is claimed** (``relation``):

- *greater*: the difference is above 0;
- *no gain*: it is at most the ``margin``;
- *equal*: it is within the ``margin`` on both sides. A margin is ours unless the claim says otherwise;
- *value*: it is the claimed gain c, whose reading error is e.

**The words**, for the first three, from three runs of each side on: *reproduced* where the whole interval is as
claimed, *not reproduced* where no part of it is. An interval that reaches to both sides, or fewer than three runs of a
side, decides nothing: *consistent* or *at odds* then, by the side that d is on. So a difference that was not found is
not taken for equality: that needs an interval as narrow as the margin.

A *value* is judged as an accuracy is, but close is half the claimed gain: the band is e + \|c\| / 2 on either side of
c. The interval of d - c has the paper's uncertainty too, unpaired as its runs were: the spreads that it states of both
sides, each over its runs; a side whose spread is not known scatters as ours does, its mean being that of the claim's
runs, or of 1. *Reproduced*: the whole interval of d - c lies within the band, and the interval of d lies on c's side of
zero. An interval that holds zero never reproduces a gain. A claimed gain of no more than its reading error has no sign,
and is never *reproduced* as a gain; that it is small is a claim with a margin.

With another recipe, the same one on both sides, the number is shown as *other recipe*, and decides nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from thriftylib.evidence.claims import SEEDS, Claim, Setting, Spread
from thriftylib.evidence.intervals import ROUND, Mean, decide, half_width
from thriftylib.evidence.records import Record
from thriftylib.evidence.statuses import Status, Verdict, behind, mean, notes, outcome


class Side(NamedTuple):
    """One network's runs: their variance, and how many there are."""

    variance: float
    runs: int

    def scatter(self, more: float = 0.0) -> Mean:
        """How their mean scatters, with that of ``more`` further (1 / runs) values that scatter as they do."""
        return Mean(self.variance * (1 / self.runs + more), self.runs - 1)


class Difference(NamedTuple):
    """One side's mean less the other's.

    ``sides`` are both samples where each has two runs at least, ``n`` the runs of the side that has fewer; ``pairs``
    are the differences of equal seeds, where runs of one seed are to be paired.
    """

    mean: float
    sides: tuple[Side, ...]
    n: int
    pairs: Side | None = None

    @property
    def half(self) -> float | None:
        """Half the 90 % interval; None for a single run of a side."""
        return half_width(self._own()) if self.sides else None

    def half_beside(self, theirs: Sequence[Spread | None], runs: int) -> float | None:
        """Half the 90 % interval of this less the paper's difference; None for a single run of a side.

        ``theirs`` are the paper's spreads of the two sides; one that is not known is taken to be ours over ``runs``.
        """
        if not self.sides:
            return None
        means = self._own() if self.pairs else []
        for side, spread in zip(self.sides, theirs, strict=True):
            is_known = spread is not None
            if not self.pairs:
                means.append(side.scatter(0 if is_known else 1 / runs))
            elif not is_known:
                means.append(Mean(side.variance / runs, side.runs - 1))
            if is_known:
                means.append(Mean(spread.deviation**2 / spread.runs, spread.runs - 1))
        return half_width(means)

    def _own(self) -> list[Mean]:
        return [self.pairs.scatter()] if self.pairs else [side.scatter() for side in self.sides]


class Comparison(NamedTuple):
    """The rule's answer, the band around the claimed value or the margin, and half the interval of d - c."""

    status: Status
    tolerance: float
    half: float | None = None


def subtract(ours: Mapping[int, float], theirs: Mapping[int, float], *, paired: bool = False) -> Difference:
    """The difference of two sides' numbers by seed; ``paired``: of the seeds that both have, where there are any."""
    common = sorted(ours.keys() & theirs.keys())
    if paired := paired and bool(common):
        ours, theirs = ({seed: side[seed] for seed in common} for side in (ours, theirs))
    sides = [list(side.values()) for side in (ours, theirs)]
    centre = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    n = min(map(len, sides))
    if n < 2:
        return Difference(centre, (), n)
    gaps = [ours[seed] - theirs[seed] for seed in common] if paired else []
    pairs = Side(statistics.variance(gaps), len(gaps)) if gaps else None
    return Difference(centre, tuple(Side(statistics.variance(side), len(side)) for side in sides), n, pairs)


def compare_difference(claim: Claim, found: Difference) -> Comparison:
    """The rule of this module, for one difference."""
    if claim.relation == "value":
        return _compare_value(claim, found)
    margin = claim.margin or 0.0
    infinity = float("inf")
    lowest = {"greater": ROUND, "equal": -margin - ROUND}.get(claim.relation, -infinity)
    highest = infinity if claim.relation == "greater" else margin + ROUND
    return Comparison(decide(found.mean, found.half, lowest, highest, found.n), margin)


def _compare_value(claim: Claim, found: Difference) -> Comparison:
    band = claim.reading_error + abs(claim.value) / 2
    half = found.half_beside(claim.known_side_spreads, claim.runs or 1)
    status = decide(found.mean, half, claim.value - band - ROUND, claim.value + band + ROUND, found.n)
    if status == "reproduced":
        sign = 1 if claim.value > 0 else -1
        has_sign = abs(claim.value) > claim.reading_error and sign * found.mean - found.half > ROUND
        status = "reproduced" if has_sign else "consistent"
    return Comparison(status, band, half)


class _Pair(NamedTuple):
    ours: list[Record]
    theirs: list[Record]
    found: Difference


def judge_difference(claim: Claim, records: Sequence[Record]) -> Verdict:
    """The rule of this module, on records of which each fits one side of the claim."""
    left, right = (_configurations(side, records) for side in claim.sides)
    pairs = [
        _Pair(ours, theirs, subtract(_by_seed(claim, ours), _by_seed(claim, theirs), paired=claim.paired is not None))
        for ours in left
        for theirs in right
        if ours[0].run.recipe == theirs[0].run.recipe
    ]
    own = [pair for pair in pairs if all(map(Setting.has_recipe, claim.sides, (pair.ours[0].run, pair.theirs[0].run)))]
    if own:
        return _verdict(claim, max(own, key=_size), len(own) - 1)
    if pairs:
        return _of_another_recipe(claim, max(pairs, key=_size))
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


def _size(pair: _Pair) -> tuple[int, int, int, str]:
    names = pair.ours[0].run.configuration + pair.theirs[0].run.configuration  # any order, as long as it is one
    return pair.found.n, len(pair.ours) + len(pair.theirs), pair.ours[0].run.epochs, names


def _verdict(claim: Claim, pair: _Pair, others: int = 0) -> Verdict:
    both, found = [*pair.ours, *pair.theirs], pair.found
    compared = compare_difference(claim, found)
    off, half = found.mean - claim.value, found.half
    return Verdict(
        claim=claim.id,
        status=compared.status,
        reason=f"{_measured(claim, pair)}: {_told(claim, compared, found)}{notes(both, others)}.",
        ours=found.mean,
        interval=None if half is None else (found.mean - half, found.mean + half),
        distance=None if compared.half is None else (off - compared.half, off + compared.half),
        n=found.n,
        best=_gap(*([record.best_accuracy for record in side] for side in pair[:2])),
        final=_gap(*([record.final_accuracy for record in side] for side in pair[:2])),
        tolerance=compared.tolerance,
        **behind(both),
    )


def _of_another_recipe(claim: Claim, pair: _Pair) -> Verdict:
    verdict = _verdict(claim, pair)
    recipe = f"with another recipe, {verdict.recipe} ({pair.ours[0].run.epochs} epochs) on both sides"
    reason = f"{_measured(claim, pair)}, {recipe}; the claim's own recipe was not run."
    return verdict.model_copy(update={"status": "other recipe", "reason": reason, "tolerance": None, "distance": None})


def _measured(claim: Claim, pair: _Pair) -> str:
    found, unit = pair.found, f" {claim.unit}" if claim.unit else ""
    if found.half is None:
        return f"{found.mean:+.2f}{unit}, from a single run of a side"
    runs = f"{len(pair.ours)} and {len(pair.theirs)} runs"
    if found.pairs:
        runs = f"{found.pairs.runs} pairs of runs that share {claim.paired}"
    ends = f"{found.mean - found.half:+.2f} to {found.mean + found.half:+.2f}"
    return f"{found.mean:+.2f}{unit}, 90 % interval {ends}, from {runs}"


def _told(claim: Claim, compared: Comparison, found: Difference) -> str:
    few = f"; fewer than {SEEDS} runs of a side decide nothing" if found.n < SEEDS else ""
    if claim.relation == "value":
        return _told_value(claim, compared, found) + few
    claimed = {
        "greater": "a difference above 0",
        "no gain": f"a gain of at most {compared.tolerance:g}",
        "equal": f"equality within {compared.tolerance:g}",
    }[claim.relation]
    reach = few or "; the interval reaches beyond"
    return {
        "reproduced": f"{claimed}, by the whole interval",
        "not reproduced": f"not {claimed}, by the whole interval",
        "consistent": f"as claimed, {claimed}{reach}",
        "at odds": f"not as claimed, {claimed}{reach}",
    }[compared.status]


def _told_value(claim: Claim, compared: Comparison, found: Difference) -> str:
    off = found.mean - claim.value
    told = f"off by {off:+.2f} from the claimed {claim.value:+g}"
    if compared.half is not None:
        told += f", 90 % interval {off - compared.half:+.2f} to {off + compared.half:+.2f}"
    where = {
        "reproduced": "the whole of it is within",
        "not reproduced": "the whole of it is outside",
        "consistent": "the middle is within",
        "at odds": "the middle is outside",
    }[compared.status]
    told += f"; {where} the {compared.tolerance:.2f} that count as close to such a gain"
    if abs(claim.value) <= claim.reading_error:
        told += ", which is no larger than its reading error"
    return told


def _gap(ours: list[float | None], theirs: list[float | None]) -> float | None:
    first, second = mean(ours), mean(theirs)
    return None if first is None or second is None else first - second
