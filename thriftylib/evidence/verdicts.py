"""Verdicts: a claim against the records, by the rule of the page "Protocols and statistics". No torch.

Which records count is decided here, never by their result; how close is close, in
:mod:`thriftylib.evidence.intervals` and :mod:`thriftylib.evidence.quantities`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from thriftylib.errors import RecordError
from thriftylib.evidence.claims import SEEDS, Claim
from thriftylib.evidence.counts import NetworkCount, answer
from thriftylib.evidence.intervals import ROUND, Answer, Estimate, Finding, compare, estimate, subtract
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record
from thriftylib.evidence.statuses import STRONG, Status, Verdict, sentence

Group = Sequence[Record]
"""The runs of one configuration, by seed."""
Groups = tuple[Group, ...]
"""A group for each side of a claim."""


class Choice(NamedTuple):
    """The runs that a claim is compared with."""

    groups: tuple[Sequence[Record], ...]  # of each side
    others: int | None  # fitting configurations that are left out; None: these follow another recipe, so decide nothing


def judge_all(
    claims: Mapping[str, Claim], records: Sequence[Record], counts: Sequence[NetworkCount] = ()
) -> dict[str, Verdict]:
    """A verdict for each claim, by its id."""
    return {key: judge(claim, records, counts) for key, claim in claims.items()}


def judge(claim: Claim, records: Iterable[Record], counts: Iterable[NetworkCount] = ()) -> Verdict:
    """The verdict on one claim.

    Raises:
        RecordError: a record is given twice, or networks of different counts fit the claim.
    """
    if claim.not_testable is not None:
        return Verdict(claim=claim.id, status="not testable", reason=sentence(claim.not_testable))
    if claim.is_counted:
        verdict = _judge_count(claim, counts)
    elif isinstance(chosen := choose(claim, records), str):
        verdict = Verdict(claim=claim.id, status="not run", reason=chosen)
    else:
        verdict = _verdict(claim, *chosen)
    if claim.reading_changed is None:
        return verdict
    return verdict.model_copy(update={"reason": f"{verdict.reason} {sentence(claim.reading_changed)}"})


def reached(claim: Claim, record: Record) -> float | None:
    """What one run reached of the claim's quantity, in its statistic and unit; None where that was not measured.

    A run that diverged counts with what it reached, at least with what guessing reaches.

    Raises:
        RecordError: what was measured is a list and no number.
    """
    row, is_last = claim.definition, "last epoch" in claim.statistic
    if row.source == "cost":
        return getattr(record.counted, row.key) / (1e6 if row.unit == "MMAC" else 1)
    known = [value for value in record.series.get(row.key, ()) if value is not None]
    if row.source == "measured":
        value = record.measured.get(row.key)
    elif row.key == TEST_ACCURACY and record.status == "complete":
        value = record.final_accuracy if is_last else record.best_accuracy  # of the network that was kept
    else:
        value = row.best(known[-1:] if is_last else known)
    if isinstance(value, list | tuple):
        raise RecordError(f"claim {claim.id}: measured.{row.key} of record {record.id} is a list: must be a number")
    chance = row.guessing(len(record.run.data.info.classes)) if record.status == "diverged" else None
    return row.best(each for each in (value, chance) if each is not None)


def choose(claim: Claim, records: Iterable[Record]) -> Choice | str:
    """The runs that a claim is compared with; a text: why there are none.

    Raises:
        RecordError: a record is given twice.
    """
    fitting = [record for record in records if any(side.fits(record.run) for side in claim.sides)]
    if len({record.id for record in fitting}) < len(fitting):
        raise RecordError(f"claim {claim.id}: a record is given twice")
    measured = [record for record in fitting if reached(claim, record) is not None]
    candidates = _candidates(claim, measured)
    own = [
        groups
        for groups in candidates
        if all(side.has_recipe(group[0].run) for side, group in zip(claim.sides, groups, strict=True))
    ]
    candidates = own or candidates
    if claim.is_best_of:
        early = [[record for record in group if record.run.seed < claim.seeds_needed] for (group,) in candidates]
        candidates = [(group,) for group in early if group]
    if candidates:
        chosen = min(candidates, key=lambda groups: _rank(claim, groups))
        return Choice(chosen, len(candidates) - 1 if own else None)
    return _missing(claim, fitting, measured) + "."


def measure(claim: Claim, groups: Groups) -> Answer:
    """What the rule makes of the runs of each side."""
    sides = tuple({record.run.seed: reached(claim, record) for record in group} for group in groups)
    values = list(sides[0].values())
    found = subtract(*sides, paired=claim.paired is not None) if claim.is_difference else estimate(values)
    return Answer(sides, found, compare(claim, found, claim.definition.best(values)))


def _candidates(claim: Claim, records: Group) -> list[Groups]:
    """Configurations that fit, one for each side of the claim, all sides with one recipe."""
    sides: list[dict[str, list[Record]]] = [{} for _ in claim.sides]
    for record in sorted(records, key=lambda record: record.run.seed):
        for side, groups in zip(claim.sides, sides, strict=True):
            if side.fits(record.run):
                groups.setdefault(record.run.configuration, []).append(record)
    every = itertools.product(*(groups.values() for groups in sides))
    return [groups for groups in every if all(group[0].run.recipe == groups[0][0].run.recipe for group in groups)]


def _rank(claim: Claim, groups: Groups) -> tuple:
    """The configurations with the most runs come first, then the claim's own order, then the longest recipe."""
    runs, sizes = [group[0].run for group in groups], [len(group) for group in groups]
    recipes = [*claim.setting.recipes, runs[0].recipe_name]
    places = [side.alternative(run) for side, run in zip(claim.sides, runs, strict=True)]
    order = (places, recipes.index(runs[0].recipe_name), -runs[0].epochs, [run.configuration for run in runs])
    return -min(sizes), -sum(sizes), *order


def _missing(claim: Claim, fitting: Group, measured: Group) -> str:
    """Why no run is compared."""
    recipes = " or ".join(claim.setting.recipes)
    if claim.is_difference:
        left, right = (sum(side.fits(record.run) for record in measured) for side in claim.sides)
        reason = f"No records of both networks with the recipe {recipes}, nor with another"
        return reason + f" that both have: {left} of the first and {right} of the second" * bool(left + right)
    reason = "No record of this network" + f" with the recipe {recipes}" * bool(recipes)
    if len(fitting) > len(measured):
        return f"{reason} holds {claim.definition.key}: {len(fitting)} without it"
    return reason + f" has one of the seeds 0 to {claim.seeds_needed - 1}, which alone count" * bool(measured)


def _verdict(claim: Claim, groups: Groups, others: int | None) -> Verdict:
    """On the groups that decide, ``others`` left out; None: they follow another recipe, and decide nothing."""
    (first, *_), found, finding = measure(claim, groups)
    values, every = list(first.values()), [record for group in groups for record in group]
    half = found.half if claim.is_difference else None
    is_own, recipe = others is not None, " and ".join(sorted({record.run.recipe_name for record in every}))
    reason = _ours(claim, finding, found, groups)
    if is_own:
        reason += f"; {_compared(claim, finding, found)}"
        if others:
            reason += f"; {others} other fitting configuration{'s' * (others > 1)} with fewer runs left out"
        if diverged := sum(record.status == "diverged" for record in every):
            reason += f"; {diverged} of {len(every)} diverged, counted with the accuracy reached or that of guessing"
    else:
        reason += f", with another recipe, {recipe} ({groups[0][0].run.epochs} epochs)"
        reason += " on both sides" * claim.is_difference
        reason += f", beside {_claimed(claim)}; the claim's own recipe was not run"
    return Verdict(
        claim=claim.id,
        status=finding.status if is_own else "other recipe",
        reason=reason + ".",
        ours=finding.ours,
        sd=statistics.stdev(values) if len(values) > 1 and not claim.is_difference else None,
        interval=None if half is None else (found.mean - half, found.mean + half),
        distance=finding.distance if is_own else None,
        n=found.n,
        seeds=tuple(sorted({record.run.seed for record in every})),
        best=_mean(groups, "best_accuracy"),
        final=_mean(groups, "final_accuracy"),
        tolerance=finding.tolerance if is_own else None,
        recipe=recipe,
        seconds=math.fsum(record.seconds for record in every),
        device=", ".join(sorted({record.device for record in every})),
        records=tuple(record.id for record in every),
    )


def _mean(groups: Groups, name: str) -> float | None:
    """The mean of an accuracy, of a comparison the difference of two; None where a side has none."""
    known = [[value for record in group if (value := getattr(record, name)) is not None] for group in groups]
    if not all(known):
        return None
    means = list(map(statistics.fmean, known))
    return means[0] - means[1] if len(means) == 2 else means[0]


def _ours(claim: Claim, finding: Finding, found: Estimate, groups: Groups) -> str:
    """What our runs came to."""
    unit, half = f" {claim.unit}" if claim.unit else "", found.half
    if claim.is_difference:
        runs = f"{len(groups[0])} and {len(groups[1])} runs"
        if found.pairs:
            runs = f"{found.pairs.runs} pairs of runs that share {claim.paired}"
        ends = "" if half is None else f", 90 % interval {found.mean - half:+.2f} to {found.mean + half:+.2f}"
        return f"{found.mean:+.2f}{unit}{ends}, from {runs}"
    if half is None:
        return f"One seed: {finding.ours:.2f}{unit}"
    if claim.is_best_of:
        return f"The best of {found.n} runs: {finding.ours:.2f}{unit}"
    return f"{finding.ours:.2f} ± {math.sqrt(found.sides[0].variance):.2f}{unit} over {found.n} seeds"


def _claimed(claim: Claim) -> str:
    """What is claimed."""
    if claim.relation == "greater":
        return "the claimed difference above 0"
    if claim.margin is not None:
        return f"the claimed {'equality within' if claim.relation == 'equal' else 'gain of at most'} {claim.margin:g}"
    bound = "" if claim.bound == "equals" else f"{claim.bound} "
    return f"the claimed {bound}{claim.value:{'+g' if claim.is_difference else 'g'}} {claim.unit}".rstrip()


def _compared(claim: Claim, finding: Finding, found: Estimate) -> str:
    """How far what is claimed is from ours, and what decides."""
    meets, is_one_sided = finding.status in ("reproduced", "consistent"), claim.bound != "equals"
    subject = f"the whole {'one-sided 95 % ' * is_one_sided}interval" if finding.status in STRONG else "the mean alone"
    few = f"; fewer than {SEEDS} runs{' of a side' * claim.is_difference} decide nothing" * (found.n < SEEDS)
    if claim.is_best_of:
        subject, needed = "the best one", claim.seeds_needed
        few = f"; {needed} runs were fixed in advance, {found.n} of them are there" * (found.n < needed)
    if claim.is_best_of or is_one_sided or claim.relation not in (None, "value"):
        return f"{subject} {'meets' if meets else 'misses'} {_claimed(claim)}{few}"
    off = f"off by {finding.ours - claim.value:+.2f} from {_claimed(claim)}"
    if claim.is_difference and abs(claim.value) <= claim.reading_error:
        off += ", which is no larger than its reading error"
    if finding.distance is not None:
        off += f", 90 % interval {finding.distance[0]:+.2f} to {finding.distance[1]:+.2f}"
    where = "within" if meets else "outside"
    return f"{off}: {subject} is {where} the {finding.tolerance:.2f} that count as close{few}"


def _judge_count(claim: Claim, counts: Iterable[NetworkCount]) -> Verdict:
    ours = answer(claim, counts)
    if ours is None:
        return Verdict(claim=claim.id, status="not counted", reason="Not counted: run thrifty cost --record.")
    difference = ours - claim.value
    equal = abs(difference) <= claim.reading_error + ROUND * max(1.0, abs(claim.value))
    meets = {"equals": equal, "more than": difference > 0, "at least": equal or difference > 0}
    is_met = meets.get(claim.bound, equal or difference < 0)
    status: Status = "equal" if is_met else "differs"
    counted, stated = (f"{value:,.7g} {claim.unit}" if claim.unit else f"{value:,.0f}" for value in (ours, claim.value))
    reason = f"Our count is {counted}, the claimed one {stated}"
    if is_met and claim.inferred_from_itself:
        status = "by construction"
        reason += "; network or counting was inferred from this number, so that it could hardly differ"
    elif claim.build_unknown:
        status = "consistent" if is_met else "at odds"
        reason += "; how the authors built the baseline is not known"
    return Verdict(claim=claim.id, status=status, reason=reason + ".", ours=ours, tolerance=claim.reading_error)
