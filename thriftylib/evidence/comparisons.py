"""Two samples of runs compared: is one's mean another, and is it the same to within a margin? Both may be undecided."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from thriftylib.errors import RecordError


class Comparison(NamedTuple):
    """One sample less another: effect and p-values. A p-value above the level proves nothing, equality least of all."""

    difference: float  # of the means
    effect: float  # Hedges' g: the difference over the pooled deviation, corrected for small samples; NaN without any
    normal: float  # the lower p-value of Shapiro and Wilk's test of both samples; NaN below three runs of each
    differs: float  # Welch's test, two-sided
    equal: float  # two one-sided Welch tests: the means are within the margin


def compare(ours: Sequence[float], theirs: Sequence[float], margin: float) -> Comparison:
    """Compare two samples, of two runs each at least.

    Raises:
        RecordError: fewer runs, or a margin that is not above 0.
    """
    from scipy import stats  # a third of a second to import

    n, m = len(ours), len(theirs)
    if min(n, m) < 2 or not margin > 0:
        raise RecordError(f"compare: {n} and {m} runs, margin {margin}: needs two runs of each and a margin above 0")

    def p(shift: float, side: str) -> float:
        moved = [value + shift for value in ours]
        if statistics.variance(moved) + statistics.variance(theirs) == 0:  # without scatter there is nothing to test
            gap = statistics.fmean(moved) - statistics.fmean(theirs)
            return float({"greater": gap <= 0, "less": gap >= 0, "two-sided": gap == 0}[side])
        return float(stats.ttest_ind(moved, theirs, equal_var=False, alternative=side).pvalue)

    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    pooled = ((n - 1) * statistics.variance(ours) + (m - 1) * statistics.variance(theirs)) / (n + m - 2)
    effect = difference / math.sqrt(pooled) * (1 - 3 / (4 * (n + m) - 9)) if pooled else math.nan
    normal = [float(stats.shapiro(side).pvalue) for side in (ours, theirs) if len(set(side)) > 2]
    equal = max(p(margin, "greater"), p(-margin, "less"))
    return Comparison(difference, effect, min(normal, default=math.nan), p(0, "two-sided"), equal)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, after Holm: no more than 5 % of families have a false one below 5 %."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = highest
    return corrected
