"""The rule of the verdicts worked out for one claim, with its numbers put in, and what would change the word. No torch.

Nothing is decided here: :func:`thriftylib.evidence.intervals.compare` does that, and these are its steps in words.
"""

from __future__ import annotations

import math
import statistics

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.intervals import Answer, Estimate, Side, compare, student, welch
from thriftylib.evidence.statuses import STRONG, Verdict, sentence
from thriftylib.options import Strict

MOST = 200
"""Seeds of a side up to which it is worked out how many would decide."""


BOUNDS = {"equals": "", "at least": "≥ ", "more than": "> ", "at most": "≤ "}


class Step(Strict):
    """One line of the rule."""

    label: str
    text: str


def amount(value: float, unit: str = "", *, signed: bool = False) -> str:
    """A number with its unit: whole numbers with thousands commas, millions of MACs as ``0.47 M``, others to 0.01."""
    sign = "+" if signed else ""
    if unit == "":
        return format(value, f"{sign},.0f" if float(value).is_integer() else f"{sign},.2f")
    return f"{value:{sign},.2f} {'M' if unit == 'MMAC' else unit}"


def stated(value: float, unit: str, bound: str = "equals", *, signed: bool = False) -> str:
    """A claimed number with its bound."""
    return BOUNDS[bound] + amount(value, unit, signed=signed)


def steps(claim: Claim, verdict: Verdict, answer: Answer) -> tuple[Step, ...]:
    """How runs came to a verdict."""
    lines = [("Claimed", _claimed(claim)), ("Met within", _band(claim, answer))]
    lines += [("Ours", _ours(claim, answer)), ("90 % interval", _interval(claim, answer))]
    lines.append(("Verdict", _conclusion(claim, verdict, answer)))
    return tuple(Step(label=label, text=text) for label, text in lines)


def count_steps(claim: Claim, verdict: Verdict) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The same of a count, and what would change it."""
    if verdict.ours is None:
        return (Step(label="Count", text=verdict.reason),), ("The count is made: thrifty cost --record.",)
    off = round(verdict.ours - claim.value, 9) + 0.0  # no minus before a zero
    lines = [
        ("Claimed", _claimed(claim)),
        ("Our count", f"{amount(verdict.ours, claim.unit)}, in closed form from the network's options"),
        (
            "Off by",
            f"{amount(off, claim.unit, signed=True)}; the reading error is {amount(claim.reading_error, claim.unit)}",
        ),
        ("Verdict", verdict.status),
    ]
    changes = {
        "equal": "Nothing but a fault in how we count.",
        "by construction": "A source that states the network without this number, so that it could differ.",
        "differs": "Another network or another way of counting, named by a source.",
    }
    undecided = "How the authors built the network becomes known."
    return tuple(Step(label=label, text=text) for label, text in lines), (changes.get(verdict.status, undecided),)


def _claimed(claim: Claim) -> str:
    error = (
        f"e = {claim.reading_error:g} {claim.unit}".strip() if claim.reading_error else "e = 0, it is stated exactly"
    )
    number = stated(claim.value, claim.unit, claim.bound, signed=claim.is_difference)
    if claim.relation == "greater":
        return "a difference above 0" + f"; the paper has c = {number}, {error}" * bool(claim.value)
    return f"c = {number}, {error}"


def _band(claim: Claim, answer: Answer) -> str:
    finding, unit, signed = answer.finding, claim.unit, claim.is_difference
    low, high = (amount(end, unit, signed=signed) if math.isfinite(end) else "" for end in finding.band)
    if claim.relation == "greater":
        return "anything above 0"
    if claim.relation == "no gain":
        return f"at most {high}, the margin"
    if claim.relation == "equal":
        return f"{low} to {high}, the margin on either side of 0"
    if math.isinf(finding.band[0]):
        return f"at most c + e = {high}"
    if math.isinf(finding.band[1]):
        return f"{'more than' if claim.bound == 'more than' else 'at least'} c − e = {low}"
    return f"c ± (e + close) = {low} to {high}; close = {_close(claim)}"


def _close(claim: Claim) -> str:
    if claim.is_difference:
        return f"half of the claimed difference = {amount(abs(claim.value) / 2, claim.unit)}"
    row = claim.definition
    if row.close is None:
        return "0"
    parts = [] if row.close.absolute is None else [f"{row.close.absolute:g}"]
    if row.close.relative is not None:
        distance = abs(row.perfect - claim.value)
        parts.append(f"{row.close.relative:g} · {distance:,.2f} = {row.close.relative * distance:,.2f}")
    word = f"the smaller of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
    return f"{word}: {amount(row.closeness(claim.value), claim.unit)}"


def _values(values: dict[int, float], unit: str = "") -> str:
    mean, numbers = (
        f"{statistics.fmean(values.values()):,.2f} {unit}".rstrip(),
        ", ".join(f"{value:,.2f}" for value in values.values()),
    )
    return f"{mean} (n = {len(values)}" + f": {numbers}" * (len(values) > 1) + ")"


def _ours(claim: Claim, answer: Answer) -> str:
    found, unit = answer.found, claim.unit
    if claim.is_difference:
        means = " less ".join(map(_values, answer.sides))
        pairs = f", over {found.pairs.runs} pairs that share {claim.paired}" if found.pairs else ""
        return f"m = {means}: {amount(found.mean, unit, signed=True)}{pairs}"
    if claim.is_best_of:
        numbers = ", ".join(f"{value:,.2f}" for value in answer.sides[0].values())
        return f"the best of {numbers}: {amount(answer.finding.ours, unit)}"
    spread = f", s = {math.sqrt(found.sides[0].variance):,.2f}" if found.sides else ""
    return f"m = {_values(answer.sides[0], unit)}{spread}"


def _interval(claim: Claim, answer: Answer) -> str:
    found, finding = answer.found, answer.finding
    if claim.is_best_of:
        return f"none: the best of {claim.seeds_needed} runs that were fixed in advance is compared as it is"
    if finding.half is None:
        return "none: it needs two runs" + " of each side" * claim.is_difference
    compares = finding.distance is not None and claim.bound == "equals"
    spreads = claim.reported_spreads if compares else (None,) * len(found.sides)
    runs = (claim.runs or 1) if compares else math.inf
    variance, freedom = welch(found.means_beside(spreads, runs))
    ends = f"{finding.ours - finding.half:,.2f} to {finding.ours + finding.half:,.2f}"
    if not variance:
        return f"{ends}: all runs agree"
    factor = f"t(0.95, v = {freedom:.1f}) · √{variance:.4f} = {student(freedom):.2f} · {math.sqrt(variance):.3f}"
    text = f"m ± {factor} = m ± {finding.half:,.2f}: {ends}"
    if compares:
        theirs = f"the paper's {'spread' if any(spreads) else f'{runs} run' + 's' * (runs > 1)}"
        assumed = "" if any(spreads) else ", taken to scatter as ours do"
        return f"{text}; the root holds our runs' variance and that of {theirs}{assumed}"
    return f"{text}; the root holds our runs' variance"


def _conclusion(claim: Claim, verdict: Verdict, answer: Answer) -> str:
    finding = answer.finding
    low, high = finding.band
    if verdict.status == "other recipe":
        return f"{verdict.status}: the runs follow {verdict.recipe}, and the claim's own recipe was not run"
    needed = claim.seeds_needed
    if answer.found.n < needed:
        return f"{verdict.status}, undecided: {answer.found.n} of the {needed} runs that a strong word needs are there"
    if finding.half is None:
        return verdict.status
    inside = low <= finding.ours - finding.half and finding.ours + finding.half <= high
    outside = finding.ours + finding.half < low or finding.ours - finding.half > high
    what = "the best run" if claim.is_best_of else "the whole interval"
    if verdict.status in STRONG:
        return f"{what} is {'inside' if inside else 'outside'}: {verdict.status}"
    if inside or outside:
        return f"{what} is inside, but the difference is not shown to have a sign: {verdict.status}"
    mean = "inside" if low <= finding.ours <= high else "outside"
    return f"the interval is neither inside nor outside, the mean is {mean}: {verdict.status}, undecided"


def would_change(claim: Claim, verdict: Verdict, answer: Answer | None) -> tuple[str, ...]:
    """What would change a verdict on runs."""
    needed = claim.seeds_needed
    if answer is None or verdict.status == "other recipe":
        recipes = " or ".join(claim.setting.recipes) if claim.setting else ""
        how = f"by the recipe {recipes}" if recipes else "as the claim says"
        return (f"Runs {how}{' of both networks' * claim.is_difference}: {needed} seeds allow a strong word.",)
    finding, found = answer.finding, answer.found
    if found.n < needed:
        missing = [seed for seed in range(needed) if any(seed not in side for side in answer.sides)]
        seeds = ", ".join(map(str, missing[: needed - found.n]))
        return (
            f"More runs: a strong word needs {needed} seeds{' of each side' * claim.is_difference}, such as {seeds}.",
        )
    if claim.is_best_of:
        return ("No further run: the seeds were fixed in advance, and all of them are there.",)
    if verdict.status in STRONG:
        room = amount(_room(verdict, answer), "points" if claim.unit == "%" else claim.unit)
        where = "inside" if verdict.status == "reproduced" else "outside"
        return (f"New seeds that bring the interval {room} closer to the edge that it is {where}.",)
    return (_more_seeds(claim, found, finding.ours),)


def _more_seeds(claim: Claim, found: Estimate, best: float) -> str:
    """How many seeds would decide if mean and spread stayed as they are."""
    for runs in range(found.n + 1, MOST + 1):
        sides = tuple(Side(side.variance, max(side.runs, runs)) for side in found.sides)
        pairs = found.pairs and Side(found.pairs.variance, runs)
        finding = compare(claim, Estimate(found.mean, sides, runs, pairs), best)
        if finding.status in STRONG:
            each = " of each side" * claim.is_difference
            return f"More seeds: with mean and spread as they are, {runs}{each} would say {finding.status}."
    return sentence(
        f"more seeds alone would not decide it: with mean and spread as they are, {MOST} leave the interval across the "
        "edge, since the paper's own uncertainty stays"
    )


def _room(verdict: Verdict, answer: Answer) -> float:
    """How far the interval of a strong word is from the nearest edge of the band."""
    (low, high), centre, half = answer.finding.band, answer.finding.ours, answer.finding.half
    if verdict.status == "reproduced":
        return min(centre - half - low, high - centre - half)
    return max(low - centre - half, centre - half - high)


def clearness(verdict: Verdict, answer: Answer) -> float | None:
    """The same in halves of that interval; None of another word, and of an interval without width."""
    return _room(verdict, answer) / answer.finding.half if verdict.status in STRONG and answer.finding.half else None
