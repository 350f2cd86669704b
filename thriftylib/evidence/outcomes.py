"""What a verdict is made of: its words, its fields, and one run's outcome in a claim's statistic. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from thriftylib.evidence.claims import ACCURACIES, Claim
from thriftylib.evidence.records import Record
from thriftylib.options import Strict

Status = Literal["reproduced", "partly", "consistent", "at odds", "not reproduced", "not run", "not testable"]
STATUSES: tuple[Status, ...] = Status.__args__

CLOSE = 1.0
"""Points of accuracy: what our mean must be known to, and what still counts as close."""
ROUND = 1e-9
"""Room for rounding in comparisons: sums of two-decimal numbers are not exact."""


class Verdict(Strict):
    """What the records say about a claim: the rule's answer and all that it rests on.

    ``ours`` is in the claim's statistic and unit, ``sd`` its deviation over ``n`` runs; ``best`` and ``final`` are the
    mean test accuracies (percent) of the best and of the last epoch of the same runs. Of a difference between two
    networks there is its 95 % confidence ``interval`` in place of ``sd``, n counts pairs (or the runs of the side that
    has fewer), and ``best`` and ``final`` are the differences of those means.
    """

    claim: str
    status: Status
    reason: str
    ours: float | None = None
    sd: float | None = None
    interval: tuple[float, float] | None = None
    n: int = 0
    seeds: tuple[int, ...] = ()
    best: float | None = None
    final: float | None = None
    tolerance: float | None = None
    recipe: str | None = None
    seconds: float = 0.0
    device: str = ""
    records: tuple[str, ...] = ()


def outcome(claim: Claim, record: Record) -> float:
    """The claim's quantity in the claim's statistic for one run, in percent; chance level if nothing was measured.

    Of a difference it is the test accuracy of one side.
    """
    series = claim.quantity if claim.quantity in ACCURACIES else "test_accuracy"
    measured = [value for value in record.series[series] if value is not None]
    if not measured:
        return 100 / len(record.run.data.info.classes)
    return measured[-1] if claim.statistic == "last epoch of one run" else max(measured)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def notes(group: Sequence[Record], others: int) -> str:
    """What a reason must add: fitting configurations that were left out, and runs of ``group`` that diverged."""
    text = ""
    if others:
        text += f"; {others} other fitting configuration{'s' * (others > 1)} with fewer runs left out"
    if diverged := sum(record.status == "diverged" for record in group):
        text += f"; {diverged} of {len(group)} diverged and counts with the accuracy reached"
    return text
