"""The scoreboard: claims and verdicts as tidy rows and a pandas frame. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thriftylib.datasets.facts import dataset_info
from thriftylib.escaping import for_shell
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.records import Record
from thriftylib.evidence.statuses import Verdict
from thriftylib.evidence.verdicts import judge_all

if TYPE_CHECKING:
    import pandas

SCOREBOARD = (
    *("id", "paper", "figure", "statement", "quantity", "unit", "bound"),
    *("claimed", "error", "claimed_spread", "claimed_n"),
    *("ours", "spread", "n", "difference", "low", "high", "tolerance", "verdict", "reason"),
    *("best", "final", "statistic", "recipe", "cost", "seconds", "device", "seeds", "records", "experiment", "command"),
    *("mark", "source", "how", "confidence", "reading", "reading_changed"),
)
"""The columns of :func:`scoreboard`, in order."""
_NUMBERS = (
    *("claimed", "error", "claimed_spread", "claimed_n", "ours", "spread", "difference", "low", "high", "tolerance"),
    *("best", "final", "cost", "seconds"),
)


def scoreboard(
    claims: Mapping[str, Claim], records: Sequence[Record], counts: Sequence[NetworkCount] = ()
) -> pandas.DataFrame:
    """One row per claim, in the order of ``claims``.

    A difference between two networks is described as in :class:`thriftylib.evidence.statuses.Verdict`.

    ``claimed`` +- ``error`` (0: exact) with the paper's own ``claimed_spread`` over ``claimed_n`` runs; ``ours`` with
    its ``spread`` (of a difference half its own 90 % interval) over ``n`` runs, in the claim's ``statistic`` and
    ``unit``; ``difference``: ours less the claimed, with the 90 % interval ``low`` to ``high``; ``tolerance``: how far
    off still counts as close; ``best`` and ``final``: the same runs' mean test accuracy (percent) in the best and the
    last epoch. ``cost``: seconds of one run, of a difference of one on each side, ``seconds``: of all.
    """
    import pandas

    rows = [claim_row(claims[key], verdict) for key, verdict in judge_all(claims, records, counts).items()]
    return pandas.DataFrame(rows, columns=list(SCOREBOARD)).astype(dict.fromkeys(_NUMBERS, float))


def claim_row(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """A claim's row of the scoreboard, without pandas."""
    low, high = verdict.distance or (None, None)
    return {name: getattr(verdict, name, getattr(claim, name, None)) for name in SCOREBOARD} | {
        "claimed": claim.value,
        "error": claim.reading_error,
        "claimed_spread": claim.stated_spread,
        "claimed_n": claim.runs,
        "spread": verdict.sd if verdict.interval is None else (verdict.interval[1] - verdict.interval[0]) / 2,
        "difference": None if verdict.ours is None else verdict.ours - claim.value,
        "low": low,
        "high": high,
        "verdict": verdict.status,
        "cost": verdict.seconds / len(verdict.records) * (1 + claim.is_difference) if verdict.n else None,
        "seconds": verdict.seconds if verdict.n else None,
        "seeds": ",".join(map(str, verdict.seeds)),
        "records": ",".join(verdict.records),
        "command": command(claim),
        "reading_changed": claim.reading_changed or "",
    }


def command(claim: Claim) -> str:
    """What to type to get our number for a claim; empty where none is available."""
    if claim.not_testable is not None:
        return ""
    if not claim.is_counted:
        return f"thrifty train {for_shell(claim.experiment)} --preset paper --only {for_shell(claim.id)}"
    return " && ".join(_count_command(side) for side in claim.sides)


def _count_command(side: Setting) -> str:
    info = dataset_info(side.dataset, to_count=True)
    images = {"classes": len(info.classes)} if info.image_shape == (3, 32, 32) else {"dataset": side.dataset}
    options = {**side.options, **images}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in options.items()
    }
    words = (side.network, *(f"{name}={text}" for name, text in texts.items()))
    return " ".join(["thrifty cost", *map(for_shell, words)])
