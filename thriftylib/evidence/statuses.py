"""What a verdict is made of: its words and its fields. No torch."""

from __future__ import annotations

from typing import Literal

from thriftylib.options import Strict

Strong = Literal["reproduced", "not reproduced"]
Undecided = Literal["consistent", "at odds"]
Word = Literal[Strong, Undecided]
"""What runs of the claim's own recipe decide."""
Status = Literal[Word, "other recipe", "equal", "differs", "by construction", "not run", "not counted", "not testable"]
STRONG: tuple[Status, ...] = Strong.__args__
UNDECIDED: tuple[Status, ...] = Undecided.__args__
STATUSES: tuple[Status, ...] = Status.__args__
"""Every word, in the order that boards sort them by."""


class Verdict(Strict):
    """What the records say about a claim: the rule's answer and all that it rests on.

    Of a difference between two networks there is its own 90 % ``interval`` in place of ``sd``, n counts the runs of the
    side that has fewer, and ``best`` and ``final`` are the differences of those means.
    """

    claim: str
    status: Status
    reason: str
    ours: float | None = None  # in the claim's statistic and unit
    sd: float | None = None  # over n runs
    interval: tuple[float, float] | None = None
    distance: tuple[float, float] | None = None  # 90 % interval of ours less the claimed, with the paper's uncertainty
    n: int = 0
    seeds: tuple[int, ...] = ()
    best: float | None = None  # mean test accuracy (percent) of the best epoch, of the same runs
    final: float | None = None  # of the network that training left
    tolerance: float | None = None  # how far off still counts as close
    recipe: str | None = None
    seconds: float = 0.0
    device: str = ""
    records: tuple[str, ...] = ()


def sentence(text: str) -> str:
    """A text with a capital and a full stop."""
    return text[0].upper() + text[1:].rstrip(".") + "."
