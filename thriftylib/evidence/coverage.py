"""How much of a paper is tested so far: its claims against the committed records, in numbers and in one sentence.

``python -m thriftylib.evidence.coverage README.md`` puts the sentence for all papers between the README's marks.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import Record, load_records
from thriftylib.paths import claims_dir, results_dir, write_atomically

MARKS = ("<!-- tested so far -->", "<!-- /tested so far -->")


class Coverage(NamedTuple):
    """Numbers of claims, and of the runs that test them."""

    claims: int
    untestable: int
    counted: int  # checked without training
    trainable: int
    trained: int  # of the trainable: those with runs of the claim's own recipe, on both sides of a comparison
    trainings: int  # these runs, each counted once

    @classmethod
    def of(cls, claims: Iterable[Claim], records: Sequence[Record]) -> Self:
        """Of some claims, by these records; a run that diverged is a run."""
        claims = list(claims)
        testable = [claim for claim in claims if not claim.not_testable]
        trainable = [claim for claim in testable if claim.statistic != "count"]
        answers = [found for claim in trainable if (found := _answers(claim, records))]
        trainings = set().union(*answers)
        untestable, counted = len(claims) - len(testable), len(testable) - len(trainable)
        return cls(len(claims), untestable, counted, len(trainable), len(answers), len(trainings))

    def __str__(self) -> str:
        """One sentence that changes with the records alone: a new claim makes no page stale."""
        return (
            f"Claims tested by their own recipe so far: {self.trained:,}, by {self.trainings:,} training runs; "
            "the first page of the site says what is left."
        )


def _answers(claim: Claim, records: Sequence[Record]) -> set[str]:
    """The ids of the records that follow the claim's own recipe; none where a side has none."""
    sides = [{record.id for record in records if side.answers(record.run)} for side in claim.sides]
    return set().union(*sides) if all(sides) else set()


def with_sentence(text: str, coverage: Coverage) -> str:
    """``text`` with the sentence between its ``MARKS``.

    Raises:
        ValueError: the marks are not there, once each.
    """
    first, last = MARKS
    if text.count(first) != 1 or text.count(last) != 1:
        raise ValueError(f"needs {first} and {last} once each")
    sentence = textwrap.fill(str(coverage), 120)
    return re.sub(f"{first}.*?{last}", lambda _: f"{first}\n{sentence}\n{last}", text, flags=re.DOTALL)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    found = Coverage.of(load_claims(claims_dir()).sound().values(), load_records(results_dir()))
    write_atomically(path, with_sentence(path.read_text("utf-8"), found).encode())
