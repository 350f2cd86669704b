"""How often the rule of the verdicts says each word, when the truth is known: a simulation. No torch.

``python -m thriftylib.evidence.simulation`` writes ``error_rates.json`` anew. The claim is an accuracy of 75 % without
reading error, so that 1 point counts as close; the paper's runs and ours are normal, both with the standard deviation
:data:`DEVIATION`. Where the paper has several runs it states their deviation, a single run has none.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy
from pydantic import Field
from scipy.special import stdtrit

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.intervals import compare, estimate
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import read_model, write_json
from thriftylib.options import Strict
from thriftylib.paths import results_dir

FILE = "error_rates.json"
DEVIATION = 0.5
"""Points: runs of one configuration on CIFAR-10 deviate by 0.53 (17 degrees of freedom, records of November 2026)."""
DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
"""Points by which our true mean is above the paper's."""
OURS = (3, 5)
THEIRS = (1, 5)
TRIALS = 20_000
SEED = 20261127

Rates = dict[str, Annotated[float, Field(ge=0, le=1)]]


class Row(Strict):
    """The share of each word: of this rule, and of the rule of difference that stood here ``earlier``."""

    difference: float
    ours: int
    theirs: int
    words: Rates
    earlier: Rates


class ErrorRates(Strict):
    """A whole simulation."""

    format: Literal[1] = 1
    trials: int
    seed: int
    deviation: float
    rows: list[Row]


def simulate(trials: int = TRIALS, seed: int = SEED) -> ErrorRates:
    """Every difference with every number of runs, ``trials`` times each; the same seed is the same result."""
    generator = numpy.random.default_rng(seed)
    rows = [
        _row(difference, ours, theirs, trials, generator)
        for theirs in THEIRS
        for ours in OURS
        for difference in DIFFERENCES
    ]
    return ErrorRates(trials=trials, seed=seed, deviation=DEVIATION, rows=rows)


def _row(difference: float, ours: int, theirs: int, trials: int, generator: numpy.random.Generator) -> Row:
    words: Counter[str] = Counter()
    earlier: Counter[str] = Counter()
    papers = generator.normal(75.0, DEVIATION, (trials, theirs)).tolist()
    runs = generator.normal(75.0 + difference, DEVIATION, (trials, ours)).tolist()
    for paper, values in zip(papers, runs, strict=True):
        spread = statistics.stdev(paper) if theirs > 1 else None
        claim = _CLAIM.model_copy(update={"value": statistics.fmean(paper), "spread": spread, "runs": theirs})
        words[compare(claim, estimate(values)).status] += 1
        earlier[_earlier(claim.value, spread, theirs, values)] += 1
    return Row(
        difference=difference,
        ours=ours,
        theirs=theirs,
        words={word: words[word] / trials for word in sorted(words)},
        earlier={word: earlier[word] / trials for word in sorted(earlier)},
    )


def _earlier(value: float, theirs: float | None, runs: int, values: Sequence[float]) -> str:
    """The rule before: a test of difference, so that scatter and few runs were rewarded with "reproduced"."""
    n, spread, freedom = len(values), statistics.stdev(values), len(values) - 1
    if theirs is not None:
        freedom = n + runs - 2
        spread = math.sqrt(((n - 1) * spread**2 + (runs - 1) * theirs**2) / freedom)
    width = float(stdtrit(freedom, 0.975)) * spread
    off = abs(statistics.fmean(values) - value)
    if width / math.sqrt(n) > 1:
        weak = 1.0 if theirs is None else max(1.0, 2 * theirs)
        return "consistent" if off <= weak else "at odds"
    if off <= width * math.sqrt(1 / n + 1 / runs):
        return "reproduced"
    return "partly" if off <= 1 else "not reproduced"


_CLAIM = Claim(
    id="simulated/accuracy/one",
    paper="simulated",
    figure="simulation",
    statement="A simulated accuracy.",
    quantity=TEST_ACCURACY,
    value=75.0,
    unit="%",
    error="exact",
    statistic="mean over runs of the best epoch",
    mark="COUNTED",
    source="this module",
    how="drawn",
    confidence="certain",
    not_testable="it is simulated",
)


def load_error_rates(folder: str | os.PathLike[str]) -> ErrorRates:
    """``folder/error_rates.json``.

    Raises:
        RecordError: the file is missing, corrupt or foreign.
    """
    return read_model(Path(folder) / FILE, ErrorRates)


if __name__ == "__main__":
    write_json(simulate().model_dump(mode="json"), results_dir() / FILE)
