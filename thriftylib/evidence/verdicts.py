r"""Verdicts: a claim against the records, by one rule. No torch, and never typed by hand.

**Which records count.** Those whose network, whole data set, method and every option that the claim names agree. A run
with noisy labels, or one that starts from another run's weights, answers only a claim that says so. The claim's own
recipes, run to their last epoch, decide; each seed is one run. A run that diverged counts with the accuracy it reached
(chance level, 100 / classes, if it reached none). The claim's own statistic decides: for ThriftyNets that is the best
test epoch, which looks at the test set. The last epoch is always reported beside it.

**Numbers.** The claim is c with reading error e; our n runs have mean m and deviation s; the paper's n' runs have
deviation s' (sample deviations both: a paper's population deviation is multiplied by sqrt(n' / (n' - 1)) first, and
shown as it stands). Where the paper's spread is not known it is taken to be ours (S = s, v = n - 1), and n' to be 1
where it is not known. Else S pools both, with v = n + n' - 2 degrees of freedom. The tolerance is such that of 100
differences with nothing but chance behind them 95 stay below it::

    S^2       = ((n - 1) s^2 + (n' - 1) s'^2) / v
    tolerance = e + t(0.975, v) S sqrt(1/n + 1/n')

**Enough seeds** are at least two whose mean is known to one point: t(0.975, v) S / sqrt(n) is at most 1. With fewer, a
single seed above all, only the weak words *consistent* and *at odds* are used, and the tolerance is e + max(1, 2 s').

**The words.**

- *reproduced*: enough seeds, and the difference \|m - c\| is within the tolerance.
- *partly*: enough seeds, and the difference is beyond the tolerance but at most e + 1 point; or only another recipe was
  run, and it reaches the claimed value less the tolerance.
- *not reproduced*: enough seeds, and the difference is larger than that.
- *consistent*: too few seeds to say more; the difference is within their tolerance.
- *at odds*: too few seeds to say more; the difference is beyond their tolerance.
- *not run*: no record of the claim's recipe; the number of another recipe, where there is one, is shown.
- *not testable*: what the claim needs is not known or not to be had; the claim says what.

**Bounds** ("more than 91 %") are judged on one side: from two runs on, reproduced when m - t(0.95, n - 1) s / sqrt(n)
meets the bound, not reproduced when m + t(0.95, n - 1) s / sqrt(n) misses it; else consistent or at odds by the side
that m is on (mirrored for "at most"). "The best run" of several is a maximum, so it is compared as it is: reproduced
from two runs on, not reproduced from five runs on.

**Counts** have no spread: reproduced when ours is equal within the claim's rounding, else not reproduced.

**Differences** between two networks have a rule of their own: :mod:`thriftylib.evidence.differences`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from scipy.special import stdtrit

from thriftylib.errors import RecordError
from thriftylib.evidence.claims import COUNTS, DIFFERENCE, Claim
from thriftylib.evidence.counts import Count, answer
from thriftylib.evidence.differences import judge_difference
from thriftylib.evidence.outcomes import CLOSE, ROUND, Status, Verdict, mean, notes, outcome
from thriftylib.evidence.records import Record

MAXIMUM_RUNS = 5
"""Runs without success before "the best run" of a claim is called not reproduced: as many as the paper repeats."""


class Comparison(NamedTuple):
    """Our runs against the claim: ``reaches`` says whether they are at least as good as it, within the tolerance."""

    status: Status
    ours: float
    tolerance: float
    reaches: bool


def judge(claim: Claim, records: Iterable[Record], counts: Iterable[Count] = ()) -> Verdict:
    """The rule of this module.

    Raises:
        RecordError: a record is given twice, or networks of different counts fit the claim.
    """
    if claim.not_testable is not None:
        return Verdict(claim=claim.id, status="not testable", reason=_sentence(claim.not_testable))
    if claim.quantity in COUNTS:
        return _judge_count(claim, counts)
    fitting = [record for record in records if any(side.fits(record.run) for side in claim.sides)]
    if len({record.id for record in fitting}) < len(fitting):
        raise RecordError(f"claim {claim.id}: a record is given twice")
    if claim.quantity == DIFFERENCE:
        return judge_difference(claim, fitting)
    own = [record for record in fitting if claim.setting.has_recipe(record.run)]
    if own:
        groups = _groups(claim, own)
        group = max(groups, key=lambda group: (len(group), group[0].run.configuration))
        return _verdict(claim, group, len(groups) - 1)
    if fitting:
        verdicts = [_verdict_of_another_recipe(claim, group) for group in _groups(claim, fitting)]
        sign = -1 if claim.bound == "at most" else 1
        return max(verdicts, key=lambda verdict: (verdict.status == "partly", sign * verdict.ours, verdict.recipe))
    wanted = " or ".join(claim.setting.recipes)
    return Verdict(claim=claim.id, status="not run", reason=f"No record of this network with the recipe {wanted}.")


def judge_all(
    claims: Mapping[str, Claim], records: Sequence[Record], counts: Sequence[Count] = ()
) -> dict[str, Verdict]:
    """A verdict for each claim, by its id."""
    return {key: judge(claim, records, counts) for key, claim in claims.items()}


def compare(claim: Claim, values: Sequence[float]) -> Comparison:
    """The rule for claims about accuracies, on the claim's statistic of each of our runs."""
    if claim.bound != "equals" or claim.statistic == "best epoch of the best run":
        return _compare_bound(claim, values)
    n, ours, error = len(values), statistics.fmean(values), claim.reading_error
    theirs = claim.deviation
    weak = CLOSE if theirs is None else max(CLOSE, 2 * theirs)
    enough, chance = False, weak
    if n >= 2:
        spread, freedom = statistics.stdev(values), n - 1
        if theirs is not None:
            freedom = n + claim.runs - 2
            spread = math.sqrt(((n - 1) * spread**2 + (claim.runs - 1) * theirs**2) / freedom)
        width = stdtrit(freedom, 0.975) * spread
        enough = bool(width / math.sqrt(n) <= CLOSE)
        if enough:
            chance = float(width * math.sqrt(1 / n + 1 / (claim.runs or 1)))
    tolerance, difference = error + chance, abs(ours - claim.value) - ROUND
    if not enough:
        status = "consistent" if difference <= tolerance else "at odds"
    elif difference <= tolerance:
        status = "reproduced"
    else:
        status = "partly" if difference <= error + CLOSE else "not reproduced"
    return Comparison(status, ours, tolerance, ours + tolerance + ROUND >= claim.value)


def _compare_bound(claim: Claim, values: Sequence[float]) -> Comparison:
    n, error = len(values), claim.reading_error
    sign = -1 if claim.bound == "at most" else 1

    def meets(number: float) -> bool:
        room = sign * (number - claim.value) + error
        return room > ROUND if claim.bound == "more than" else room >= -ROUND

    if claim.statistic == "best epoch of the best run":
        ours, chance, patience = max(values), 0.0, MAXIMUM_RUNS
    else:
        ours, patience = statistics.fmean(values), 2
        chance = float(stdtrit(n - 1, 0.95) * statistics.stdev(values) / math.sqrt(n)) if n >= 2 else 0.0
    if n >= 2 and meets(ours - sign * chance):
        status = "reproduced"
    elif n >= patience and not meets(ours + sign * chance):
        status = "not reproduced"
    else:
        status = "consistent" if meets(ours) else "at odds"
    return Comparison(status, ours, error + chance, meets(ours))


def _groups(claim: Claim, records: Sequence[Record]) -> list[list[Record]]:
    """Runs that are one another's seeds; for the best of several runs, all runs of a recipe."""
    together = claim.statistic == "best epoch of the best run"

    def key(record: Record) -> str:
        return record.run.recipe.name if together else record.run.configuration

    if together and all(claim.setting.has_recipe(record.run) for record in records):
        return [sorted(records, key=lambda record: record.run.seed)]
    ordered = sorted(records, key=lambda record: (key(record), record.run.seed))
    return [list(group) for _, group in groupby(ordered, key)]


def _verdict(claim: Claim, group: Sequence[Record], others: int = 0) -> Verdict:
    found = compare(claim, values := [outcome(claim, record) for record in group])
    sd = statistics.stdev(values) if len(values) > 1 else None
    words = {"equals": "the claimed", "more than": "the claimed more than", "at least": "the claimed at least"}
    against = f"{words.get(claim.bound, 'the claimed at most')} {claim.value:g} {claim.unit}"
    within = f"within {found.tolerance:.2f}"
    reason = (
        f"{_ours(claim, found.ours, sd, group)} "
        + {
            "reproduced": f"agrees with {against} {within}",
            "partly": f"differs from {against} by more than chance and reading explain ({found.tolerance:.2f}), "
            f"but by no more than {CLOSE:g} point",
            "not reproduced": f"disagrees with {against}, which is not {within}",
            "consistent": f"is consistent with {against} {within}; only more seeds can say more",
            "at odds": f"is at odds with {against}, which is not {within}; only more seeds can say more",
        }[found.status]
    )
    reason += notes(group, others)
    return Verdict(
        claim=claim.id,
        status=found.status,
        reason=reason + ".",
        ours=found.ours,
        sd=sd,
        n=len(group),
        seeds=tuple(record.run.seed for record in group),
        best=mean(record.best and record.best.test_accuracy for record in group),
        final=mean(record.final and record.final.test_accuracy for record in group),
        tolerance=found.tolerance,
        recipe=" and ".join(sorted({record.run.recipe.name for record in group})),
        seconds=math.fsum(record.seconds for record in group),
        device=", ".join(sorted({record.device for record in group})),
        records=tuple(record.id for record in group),
    )


def _verdict_of_another_recipe(claim: Claim, group: Sequence[Record]) -> Verdict:
    reaches = compare(claim, [outcome(claim, record) for record in group]).reaches
    verdict = _verdict(claim, group)
    recipe = f"{verdict.recipe} ({group[0].run.recipe.epochs} epochs)"
    shown = f"{_ours(claim, verdict.ours, verdict.sd, group)} with another recipe, {recipe},"
    return verdict.model_copy(
        update={
            "status": "partly" if reaches else "not run",
            "reason": f"{shown} {'reaches' if reaches else 'does not reach'} the claimed {claim.value:g} {claim.unit} "
            f"within {verdict.tolerance:.2f}; the claim's own recipe was not run.",
        }
    )


def _judge_count(claim: Claim, counts: Iterable[Count]) -> Verdict:
    ours = answer(claim, counts)
    if ours is None:
        return Verdict(claim=claim.id, status="not run", reason="This network was not counted.")
    difference = ours - claim.value
    equal = abs(difference) <= claim.reading_error + ROUND * max(1.0, abs(claim.value))
    meets = {"equals": equal, "more than": difference > 0, "at least": equal or difference > 0}
    status = "reproduced" if meets.get(claim.bound, equal or difference < 0) else "not reproduced"
    told, stated = (f"{number:,.7g} {claim.unit}" if claim.unit else f"{number:,.0f}" for number in (ours, claim.value))
    return Verdict(
        claim=claim.id,
        status=status,
        reason=f"Our count is {told}, the claimed one {stated}.",
        ours=ours,
        tolerance=claim.reading_error,
    )


def _ours(claim: Claim, ours: float, sd: float | None, group: Sequence[Record]) -> str:
    if sd is None:
        return f"One seed: {ours:.2f} {claim.unit}"
    if claim.statistic == "best epoch of the best run":
        return f"The best of {len(group)} runs: {ours:.2f} {claim.unit}"
    return f"{ours:.2f} +- {sd:.2f} {claim.unit} over {len(group)} seeds"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."
