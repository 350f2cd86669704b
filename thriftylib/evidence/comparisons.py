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
    # The lower p-value of Shapiro and Wilk's test of each sample with three different values; NaN if neither has them.
    normal: float
    differs: float  # Welch's test, two-sided
    equal: float  # two one-sided Welch tests: the means are within the margin


def compare(ours: Sequence[float], theirs: Sequence[float], margin: float) -> Comparison:
    """Compare two samples, of two runs each at least.

    Raises:
        RecordError: fewer runs, a value that is not finite, or a margin that is not above 0.
    """
    from scipy import stats  # a third of a second to import

    n, m = len(ours), len(theirs)
    if not all(map(math.isfinite, (*ours, *theirs, margin))):
        raise RecordError(f"compare: {list(ours)} and {list(theirs)}, margin {margin}: all must be finite")
    if min(n, m) < 2 or margin <= 0:
        raise RecordError(f"compare: {n} and {m} runs, margin {margin}: needs two runs of each and a margin above 0")

    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    variances = statistics.variance(ours), statistics.variance(theirs)

    def p(shift: float, side: str) -> float:
        gap = difference + shift
        if not any(variances):  # without scatter there is nothing to test
            return float({"greater": gap <= 0, "less": gap >= 0, "two-sided": gap == 0}[side])
        one, other = map(math.sqrt, variances)
        return float(stats.ttest_ind_from_stats(gap, one, n, 0, other, m, equal_var=False, alternative=side).pvalue)

    pooled = ((n - 1) * variances[0] + (m - 1) * variances[1]) / (n + m - 2)
    effect = difference / math.sqrt(pooled) * (1 - 3 / (4 * (n + m) - 9)) if pooled else math.nan
    normal = [float(stats.shapiro(side).pvalue) for side in (ours, theirs) if len(set(side)) > 2]
    equal = max(p(margin, "greater"), p(-margin, "less"))
    return Comparison(difference, effect, min(normal, default=math.nan), p(0, "two-sided"), equal)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, after Holm: a false one falls below 5 % in at most 5 % of families."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = highest
    return corrected
