"""Equivalence and difference tests against scipy's and against what they must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thriftylib.errors import RecordError
from thriftylib.evidence.comparisons import compare, holm


def test_comparison_is_that_of_its_formulas():
    ours, theirs = [90.1, 90.4, 90.2, 90.6], [90.0, 90.3, 89.9]
    found = compare(ours, theirs, margin=0.5)
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.differs == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.90)
    assert (found.equal < 0.05) == (interval.low > -0.5 and interval.high < 0.5)  # the same decision
    assert found.normal == pytest.approx(min(stats.shapiro(ours).pvalue, stats.shapiro(theirs).pvalue))
    pooled = math.sqrt((3 * np.var(ours, ddof=1) + 2 * np.var(theirs, ddof=1)) / 5)
    assert found.effect == pytest.approx(found.difference / pooled * (1 - 3 / (4 * 7 - 9)))


def test_equality_and_difference_are_decided_apart():
    close = compare([90.0, 90.1, 90.2], [90.1, 90.0, 90.2], margin=0.5)
    assert close.equal < 0.05 < close.differs
    apart = compare([90.0, 90.1, 90.2], [92.1, 92.0, 92.2], margin=0.5)
    assert apart.differs < 0.05 < apart.equal
    noisy = compare([85.0, 95.0], [86.0, 93.0], margin=0.5)
    assert min(noisy.equal, noisy.differs) > 0.05  # nothing is known
    assert math.isnan(noisy.normal)


def test_without_scatter():
    same, other = compare([90.0, 90.0], [90.0, 90.0], margin=0.5), compare([90.0, 90.0], [91.0, 91.0], margin=0.5)
    assert (same.equal, same.differs) == (0, 1)
    assert (other.equal, other.differs) == (1, 0)
    assert math.isnan(same.effect)


@pytest.mark.filterwarnings("error")
def test_with_scatter_on_one_side():
    found = compare([90.0] * 3, [90.1, 90.2, 90.1], margin=0.5)
    assert found.differs == pytest.approx(stats.ttest_1samp([90.1, 90.2, 90.1], 90.0).pvalue)
    assert math.isnan(found.normal)


@pytest.mark.parametrize(("ours", "margin"), [([1.0, math.nan], 0.5), ([1.0, 2.0], math.inf)])
def test_what_is_not_finite_is_named(ours, margin):
    with pytest.raises(RecordError, match="must be finite"):
        compare(ours, [1.0, 2.0], margin)


@pytest.mark.parametrize(("ours", "theirs", "margin"), [([1.0], [1.0, 2.0], 0.5), ([1.0, 2.0], [1.0, 2.0], 0.0)])
def test_what_cannot_be_compared_is_named(ours, theirs, margin):
    with pytest.raises(RecordError, match="needs two runs of each and a margin above 0"):
        compare(ours, theirs, margin)


def test_holm_of_a_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(values):
    corrected = holm(values)
    assert all(value <= after <= 1 for value, after in zip(values, corrected, strict=True))
    by_value = [after for _, after in sorted(zip(values, corrected, strict=True))]
    assert by_value == sorted(by_value)
