"""What a verdict is made of: its words, its fields, and one run's outcome in a claim's statistic. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from thriftylib.errors import RecordError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record
from thriftylib.options import Strict

Status = Literal[
    "reproduced",
    "not reproduced",
    "consistent",
    "at odds",
    "other recipe",
    "equal",
    "differs",
    "by construction",
    "not run",
    "not counted",
    "not testable",
]
STATUSES: tuple[Status, ...] = Status.__args__
"""Every word, in the order that boards sort them by."""
STRONG: tuple[Status, ...] = ("reproduced", "not reproduced")
UNDECIDED: tuple[Status, ...] = ("consistent", "at odds")


class Verdict(Strict):
    """What the records say about a claim: the rule's answer and all that it rests on.

    ``ours`` is in the claim's statistic and unit, ``sd`` its deviation over ``n`` runs; ``best`` and ``final`` are the
    mean test accuracies (percent) of the best epoch and of the network that training left, of the same runs. Of a
    difference between two networks there is its own 90 % ``interval`` in place of ``sd``, n counts the runs of the side
    that has fewer, and ``best`` and ``final`` are the differences of those means. ``distance`` is the 90 % interval of
    ours less the claimed value, with the paper's own uncertainty; ``tolerance`` how far off still counts as close.
    """

    claim: str
    status: Status
    reason: str
    ours: float | None = None
    sd: float | None = None
    interval: tuple[float, float] | None = None
    distance: tuple[float, float] | None = None
    n: int = 0
    seeds: tuple[int, ...] = ()
    best: float | None = None
    final: float | None = None
    tolerance: float | None = None
    recipe: str | None = None
    seconds: float = 0.0
    device: str = ""
    records: tuple[str, ...] = ()


def outcome(claim: Claim, record: Record) -> float | None:
    """The claim's quantity in the claim's statistic for one run, in the claim's unit; None where it was not measured.

    Of a difference it is that of one side. A run that diverged counts with what it reached, at least with what guessing
    reaches.

    Raises:
        RecordError: what was measured is a list and no number.
    """
    row = claim.definition
    if row.source == "series":
        value = _of_series(claim, record)
    elif row.source == "measured":
        value = record.measured.get(row.key)
        if isinstance(value, list | tuple):
            raise RecordError(f"claim {claim.id}: measured.{row.key} of record {record.id} is a list: must be a number")
    else:
        value = getattr(record.counted, row.key) / (1e6 if row.unit == "MMAC" else 1)
    chance = row.guessing(len(record.run.data.info.classes)) if record.status == "diverged" else None
    if chance is None:
        return value
    return chance if value is None else (min if row.better == "lower" else max)(value, chance)


def _of_series(claim: Claim, record: Record) -> float | None:
    row, is_last = claim.definition, "last epoch" in claim.statistic
    if row.key == TEST_ACCURACY and record.status == "complete":
        return record.final_accuracy if is_last else record.best_accuracy  # of the network that was kept
    known = [value for value in record.series.get(row.key, ()) if value is not None]
    if not known:
        return None
    return known[-1] if is_last else (min if row.better == "lower" else max)(known)


def measured(claim: Claim, records: Iterable[Record]) -> list[Record]:
    """Those of the records that hold what is claimed."""
    return [record for record in records if outcome(claim, record) is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def behind(group: Sequence[Record]) -> dict[str, object]:
    """The fields of a verdict that say on which runs it rests."""
    return {
        "seeds": tuple(sorted({record.run.seed for record in group})),
        "recipe": " and ".join(sorted({record.run.recipe_name for record in group})),
        "seconds": math.fsum(record.seconds for record in group),
        "device": ", ".join(sorted({record.device for record in group})),
        "records": tuple(record.id for record in group),
    }


def notes(group: Sequence[Record], others: int) -> str:
    """What a reason must add: fitting configurations that were left out, and runs of ``group`` that diverged."""
    text = ""
    if others:
        text += f"; {others} other fitting configuration{'s' * (others > 1)} with fewer runs left out"
    if diverged := sum(record.status == "diverged" for record in group):
        text += f"; {diverged} of {len(group)} diverged, counted with the accuracy reached or that of guessing"
    return text


def sentence(text: str) -> str:
    """A text with a capital and a full stop."""
    return text[0].upper() + text[1:].rstrip(".") + "."
