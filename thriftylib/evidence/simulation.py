"""How often the rule of the verdicts says each word, when the truth is known: a simulation. No torch.

``python -m thriftylib.evidence.simulation`` writes ``error_rates.json`` anew. The claim is an accuracy of 75 % without
reading error, so that 1 point counts as close; the paper's runs and ours are normal, both with the standard deviation
:data:`DEVIATION`. Where the paper has several runs it states their deviation, a single run has none.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

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
    """How often each word is said."""

    difference: float
    ours: int
    theirs: int
    words: Rates


class ErrorRates(Strict):
    """A whole simulation."""

    format: Literal[1] = 1
    trials: int
    seed: int
    deviation: float
    rows: list[Row]


def simulate(trials: int = TRIALS, seed: int = SEED) -> ErrorRates:
    """Every difference with every number of runs, ``trials`` times each; the same seed is the same result."""
    import numpy

    draw = numpy.random.default_rng(seed).normal
    rows = []
    for theirs, ours, difference in itertools.product(THEIRS, OURS, DIFFERENCES):
        claims = [_claim(runs) for runs in draw(75.0, DEVIATION, (trials, theirs)).tolist()]
        found = [estimate(runs) for runs in draw(75.0 + difference, DEVIATION, (trials, ours)).tolist()]
        words = Counter(compare(*each).status for each in zip(claims, found, strict=True))
        rates = {word: words[word] / trials for word in sorted(words)}
        rows.append(Row(difference=difference, ours=ours, theirs=theirs, words=rates))
    return ErrorRates(trials=trials, seed=seed, deviation=DEVIATION, rows=rows)


def _claim(runs: list[float]) -> Claim:
    """What a paper with these runs claims."""
    spread = statistics.stdev(runs) if len(runs) > 1 else None
    fields = {"value": statistics.fmean(runs), "error": "exact", "spread": spread, "runs": len(runs)}
    return Claim.model_construct(quantity=TEST_ACCURACY, statistic="mean over runs of the best epoch", **fields)


def load_error_rates(folder: str | os.PathLike[str]) -> ErrorRates:
    """``folder/error_rates.json``.

    Raises:
        RecordError: the file is missing, corrupt or foreign.
    """
    return read_model(Path(folder) / FILE, ErrorRates)


if __name__ == "__main__":
    write_json(simulate().model_dump(mode="json"), results_dir() / FILE)
