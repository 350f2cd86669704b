r"""Verdicts: a claim against the records, by one rule. No torch, and never typed by hand.

**Which records count.** Those whose network, whole data set, method and every option that the claim names agree. A run
with noisy labels, or one that starts from another run's weights, answers only a claim that says so. The claim's own
recipes, run to their last epoch, decide; each seed is one run. A run that diverged counts with the accuracy it reached,
at least with chance level (100 / classes). The claim's own statistic decides: for ThriftyNets that is the best test
epoch, which looks at the test set. The last epoch is always reported beside it.

**Numbers.** The claim is c with reading error e; our n runs have mean m and deviation s; the paper's n' runs have
deviation s' (sample deviations both: a paper's population deviation is multiplied by sqrt(n' / (n' - 1)) first, and
shown as it stands). The 90 % interval of the difference m - c is that of two independent means, with Welch's degrees of
freedom v::

    m - c  +-  t(0.95, v) sqrt(s^2 / n + s'^2 / n')

Where the paper's spread is not known, it is taken to be ours (s' = s, v = n - 1); where its number of runs is not
known, that is taken to be 1. A spread of 0 leaves an interval without width.

**What counts as close** to an accuracy is 1 point, but never more than a fifth of the claimed error rate: 0.126 points
where 99.37 % are claimed. Each quantity has its own, in :mod:`thriftylib.evidence.quantities`. The band is that, and
the reading error: e + close on either side of the claim.

**The words.** A strong word needs at least 3 seeds. Closeness must be shown: this is a test of equivalence, by two
one-sided tests at 5 % (TOST). A wide scatter makes a wide interval, and that decides nothing.

- *reproduced*: the whole interval lies within the band.
- *not reproduced*: the whole interval lies outside it.
- *consistent*: undecided, with m within the band; with fewer than 3 seeds always undecided.
- *at odds*: undecided, with m outside the band.
- *other recipe*: only another recipe was run; its number is shown and decides nothing. Of several recipes it is that of
  the one with the most seeds, then of the longest.
- *not run*: no record of this network on this data.
- *not testable*: what the claim needs is not known or not available; the claim says what.

**Bounds** ("more than 91 %") are judged on one side, by the same interval of m alone: from 3 seeds on *reproduced* when
m - t(0.95, n - 1) s / sqrt(n) meets the bound, *not reproduced* when m + t(0.95, n - 1) s / sqrt(n) misses it; else
*consistent* or *at odds* by the side that m is on (mirrored for "at most").

**The best of several runs** is a maximum, and grows with every run. So the number of runs is fixed in advance: as many
as the claim states, but at least 3, else 5. They are the seeds 0, 1, ... below that number of one configuration, of
that with the most of them; others are named and not counted. With all of them it is *reproduced* when the best one
meets the claim and *not reproduced* when it does not; with fewer it is *consistent* or *at odds*.

**Counts** have no spread, and words of their own:

- *equal*: ours is the claimed one within its rounding or reading error;
- *differs*: it is not;
- *by construction*: it is equal, but the network or the way of counting was inferred from this very number, so that it
  could hardly differ;
- *at odds*: it differs, and how the authors built that network is not known; *consistent*: it is equal all the same;
- *not counted*: run ``thrifty cost --record``.

**A reading that was changed** after results were seen is told with the verdict, in the order of events.

**Differences** between two networks have a rule of their own: :mod:`thriftylib.evidence.differences`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from thriftylib.errors import RecordError
from thriftylib.evidence.claims import SEEDS, Claim
from thriftylib.evidence.counts import Count, answer
from thriftylib.evidence.differences import judge_difference
from thriftylib.evidence.intervals import ROUND, Mean, decide, half_width, mean_of
from thriftylib.evidence.records import Record
from thriftylib.evidence.statuses import Status, Verdict, behind, mean, measured, notes, outcome, sentence


class Comparison(NamedTuple):
    """Our runs against the claim: ours, how far off still counts as close, the interval of ours less the claimed."""

    status: Status
    ours: float
    tolerance: float
    distance: tuple[float, float] | None


def judge(claim: Claim, records: Iterable[Record], counts: Iterable[Count] = ()) -> Verdict:
    """The rule of this module.

    Raises:
        RecordError: a record is given twice, or networks of different counts fit the claim.
    """
    if claim.not_testable is not None:
        return Verdict(claim=claim.id, status="not testable", reason=sentence(claim.not_testable))
    verdict = _judge_count(claim, counts) if claim.is_counted else _judge_runs(claim, records)
    if claim.reading_changed is None:
        return verdict
    return verdict.model_copy(update={"reason": f"{verdict.reason} {sentence(claim.reading_changed)}"})


def judge_all(
    claims: Mapping[str, Claim], records: Sequence[Record], counts: Sequence[Count] = ()
) -> dict[str, Verdict]:
    """A verdict for each claim, by its id."""
    return {key: judge(claim, records, counts) for key, claim in claims.items()}


def compare(claim: Claim, values: Sequence[float]) -> Comparison:
    """The rule for a claimed value, on the claim's statistic of each of our runs.

    The best of several runs is decided where all of them are given, ``claim.seeds_needed``.
    """
    n, ours = len(values), statistics.fmean(values)
    if claim.is_best_of:
        return _compare_best(claim, values)
    if claim.bound != "equals":
        half = half_width([mean_of(values)]) if n > 1 else None
        status = decide(ours, half, *_bounds(claim), n)
        return Comparison(status, ours, claim.reading_error, _around(ours - claim.value, half))
    tolerance = claim.reading_error + claim.definition.closeness(claim.value)
    half = half_width(_scatter(claim, values)) if n > 1 else None
    status = decide(ours, half, claim.value - tolerance - ROUND, claim.value + tolerance + ROUND, n)
    return Comparison(status, ours, tolerance, _around(ours - claim.value, half))


def _compare_best(claim: Claim, values: Sequence[float]) -> Comparison:
    """Of a stated value at least as good a one is asked for: "the best run reaches c"."""
    lower = claim.definition.better == "lower"
    ours = (min if lower else max)(values)
    lowest, highest = _bounds(claim)
    if claim.bound == "equals":
        room = claim.reading_error + ROUND
        lowest, highest = (-math.inf, claim.value + room) if lower else (claim.value - room, math.inf)
    words: tuple[Status, Status] = ("reproduced", "not reproduced")
    if len(values) < claim.seeds_needed:
        words = ("consistent", "at odds")
    return Comparison(words[not lowest <= ours <= highest], ours, claim.reading_error, None)


def _bounds(claim: Claim) -> tuple[float, float]:
    """The range that a bound leaves, with the reading error."""
    value, error = claim.value, claim.reading_error
    if claim.bound == "at most":
        return -math.inf, value + error + ROUND
    return value - error + (ROUND if claim.bound == "more than" else -ROUND), math.inf


def _scatter(claim: Claim, values: Sequence[float]) -> list[Mean]:
    """How ours and the paper's mean scatter; the paper's as ours where its own spread is not known."""
    spread = claim.known_spread
    if spread is None:
        return [mean_of(values, 1 / (claim.runs or 1))]
    return [mean_of(values), Mean(spread.deviation**2 / spread.runs, spread.runs - 1)]


def _around(centre: float, half: float | None) -> tuple[float, float] | None:
    return None if half is None else (centre - half, centre + half)


def _judge_runs(claim: Claim, records: Iterable[Record]) -> Verdict:
    fitting = [record for record in records if any(side.fits(record.run) for side in claim.sides)]
    if len({record.id for record in fitting}) < len(fitting):
        raise RecordError(f"claim {claim.id}: a record is given twice")
    there = measured(claim, fitting)
    if claim.is_difference:
        return judge_difference(claim, there)
    own = [record for record in there if claim.setting.has_recipe(record.run)]
    if own and (groups := _groups(claim, own)):
        return _verdict(claim, _chosen(claim, groups), len(groups) - 1)
    if there and not own and (groups := _groups(claim, there)):
        return _of_another_recipe(claim, max(groups, key=_weight))
    wanted = " or ".join(claim.setting.recipes)
    reason = f"No record of this network{f' with the recipe {wanted}' if wanted else ''}"
    if len(fitting) > len(there):
        reason += f" holds {claim.definition.key}: {len(fitting)} without it"
    elif there:
        reason += f" has one of the seeds 0 to {claim.seeds_needed - 1}, which alone count"
    return Verdict(claim=claim.id, status="not run", reason=reason + ".")


def _groups(claim: Claim, records: Sequence[Record]) -> list[list[Record]]:
    """Runs that are one another's seeds; for the best of several runs, those seeds that count."""

    def key(record: Record) -> str:
        return record.run.configuration

    if claim.is_best_of:
        records = [record for record in records if record.run.seed < claim.seeds_needed]
    ordered = sorted(records, key=lambda record: (key(record), record.run.seed))
    return [list(group) for _, group in groupby(ordered, key)]


def _chosen(claim: Claim, groups: Sequence[list[Record]]) -> list[Record]:
    """The configuration that decides: the one with the most seeds, and never the one with the best result.

    Of equals it is the first in the claim's own order of alternatives and recipes.
    """
    recipes = list(claim.setting.recipes)

    def place(group: Sequence[Record]) -> tuple[int, int, int, str]:
        run = group[0].run
        recipe = recipes.index(run.recipe_name) if run.recipe_name in recipes else 0
        return -len(group), claim.setting.alternative(run), recipe, run.configuration

    return min(groups, key=place)


def _weight(group: Sequence[Record]) -> tuple[int, int, str]:
    """What another recipe is chosen by, and never by its result."""
    return len(group), group[0].run.epochs, group[0].run.configuration


def _verdict(claim: Claim, group: Sequence[Record], others: int = 0) -> Verdict:
    found = compare(claim, values := [outcome(claim, record) for record in group])
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Verdict(
        claim=claim.id,
        status=found.status,
        reason=f"{_ours(claim, found.ours, sd, group)}; {_told(claim, found, len(group))}{notes(group, others)}.",
        ours=found.ours,
        sd=sd,
        distance=found.distance,
        n=len(group),
        best=mean(record.best_accuracy for record in group),
        final=mean(record.final_accuracy for record in group),
        tolerance=found.tolerance,
        **behind(group),
    )


def _told(claim: Claim, found: Comparison, n: int) -> str:
    words = {"equals": "", "more than": "more than ", "at least": "at least ", "at most": "at most "}
    claimed = f"claimed {words[claim.bound]}{claim.value:g} {claim.unit}".rstrip()
    few = f"; fewer than {SEEDS} seeds decide nothing" if n < SEEDS else ""
    if claim.is_best_of:
        runs = claim.seeds_needed
        few = f"; {runs} runs were fixed in advance, {n} of them are there" if n < runs else ""
        meets = found.status in ("reproduced", "consistent")
        return f"the best one {'meets' if meets else 'does not meet'} the {claimed}{few}"
    if claim.bound != "equals":
        reach = {
            "reproduced": "the whole one-sided 95 % interval meets",
            "not reproduced": "the whole one-sided 95 % interval misses",
            "consistent": "the mean alone meets",
            "at odds": "the mean alone misses",
        }[found.status]
        return f"{reach} the {claimed}{few}"
    off, close = (
        f"off by {found.ours - claim.value:+.2f} from the {claimed}",
        f"the {found.tolerance:.2f} that count as close",
    )
    if found.distance is not None:
        off += f", 90 % interval {found.distance[0]:+.2f} to {found.distance[1]:+.2f}"
    where = {
        "reproduced": f"the whole interval is within {close}",
        "not reproduced": f"the whole interval is outside {close}",
        "consistent": f"the mean is within {close}{few or ', the interval reaches beyond'}",
        "at odds": f"the mean is outside {close}{few or ', the interval reaches inside'}",
    }[found.status]
    return f"{off}: {where}"


def _of_another_recipe(claim: Claim, group: Sequence[Record]) -> Verdict:
    verdict = _verdict(claim, group)
    recipe = f"{verdict.recipe} ({group[0].run.epochs} epochs)"
    shown = f"{_ours(claim, verdict.ours, verdict.sd, group)} with another recipe, {recipe}"
    reason = f"{shown}, beside the claimed {claim.value:g} {claim.unit}".rstrip()
    status = {"status": "other recipe", "reason": f"{reason}; the claim's own recipe was not run."}
    return verdict.model_copy(update={**status, "tolerance": None, "distance": None})


def _judge_count(claim: Claim, counts: Iterable[Count]) -> Verdict:
    ours = answer(claim, counts)
    if ours is None:
        return Verdict(claim=claim.id, status="not counted", reason="Not counted: run thrifty cost --record.")
    difference = ours - claim.value
    equal = abs(difference) <= claim.reading_error + ROUND * max(1.0, abs(claim.value))
    meets = {"equals": equal, "more than": difference > 0, "at least": equal or difference > 0}
    told, stated = (f"{number:,.7g} {claim.unit}" if claim.unit else f"{number:,.0f}" for number in (ours, claim.value))
    reason = f"Our count is {told}, the claimed one {stated}"
    is_met = meets.get(claim.bound, equal or difference < 0)
    status: Status = "equal" if is_met else "differs"
    if is_met and claim.inferred_from_itself:
        status = "by construction"
        reason += "; network or counting was inferred from this number, so that it could hardly differ"
    elif claim.build_unknown:
        status = "consistent" if is_met else "at odds"
        reason += "; how the authors built the baseline is not known"
    return Verdict(claim=claim.id, status=status, reason=reason + ".", ours=ours, tolerance=claim.reading_error)


def _ours(claim: Claim, ours: float, sd: float | None, group: Sequence[Record]) -> str:
    unit = f" {claim.unit}" if claim.unit else ""
    if sd is None:
        return f"One seed: {ours:.2f}{unit}"
    if claim.is_best_of:
        return f"The best of {len(group)} runs: {ours:.2f}{unit}"
    return f"{ours:.2f} +- {sd:.2f}{unit} over {len(group)} seeds"
