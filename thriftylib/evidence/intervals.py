"""Intervals and the words that they decide: the part that all rules of the verdicts share. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from scipy.special import stdtrit

from thriftylib.evidence.claims import SEEDS

LEVEL = 0.95
"""Of each end of an interval: two ends make it a 90 % interval, that of two one-sided tests at 5 %."""
ROUND = 1e-9
"""Room for rounding in comparisons: sums of two-decimal numbers are not exact."""

Word = Literal["reproduced", "not reproduced", "consistent", "at odds"]


class Mean(NamedTuple):
    """How a mean scatters: its variance, and the degrees of freedom by which this variance was found."""

    variance: float
    freedom: int


def mean_of(values: Sequence[float], more: float = 0.0) -> Mean:
    """How the mean of ``values`` scatters, at least two of them; ``more``: a further mean of so many (1 / runs) values.

    The further mean is taken to scatter as these values do: the variance is of the difference between the two.
    """
    return Mean(statistics.variance(values) * (1 / len(values) + more), len(values) - 1)


def half_width(means: Iterable[Mean]) -> float:
    """Half the 90 % interval of a sum or difference of independent means, with Welch's degrees of freedom."""
    known = [mean for mean in means if mean.variance > 0]
    if not known:
        return 0.0
    total = math.fsum(mean.variance for mean in known)
    freedom = total**2 / math.fsum(mean.variance**2 / mean.freedom for mean in known)
    return float(stdtrit(freedom, LEVEL)) * math.sqrt(total)


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
