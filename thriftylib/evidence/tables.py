"""Claims, verdicts and records as tidy rows and pandas frames. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thriftylib.datasets.facts import dataset_info
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.records import Counted, Record
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

RECORDS = (
    *("id", "configuration", "network", "dataset", "recipe", "seed", "status", "epochs"),
    *("best_epoch", "best", "final", "parameters", "macs", "ptflops_macs", "weight_bytes", "activation_bytes"),
    *("images_per_second", "seconds", "device", "precision", "threads", "sittings", "finished", "commit", "weights"),
)
"""The columns of :func:`records_frame` before the options, in order."""


def scoreboard(
    claims: Mapping[str, Claim], records: Sequence[Record], counts: Sequence[NetworkCount] = ()
) -> pandas.DataFrame:
    """One row per claim, in the order of ``claims``.

    ``claimed`` +- ``error`` (0: exact) with the paper's own ``claimed_spread`` over ``claimed_n`` runs; ``ours`` with
    its ``spread`` over ``n`` runs, in the claim's ``statistic`` and ``unit``; ``difference``: ours less the claimed,
    with the 90 % interval ``low`` to ``high``; ``tolerance``: how far off still counts as close; ``best`` and
    ``final``: the same runs' mean test accuracy (percent) in the best and the last epoch. ``cost``: seconds of one run,
    ``seconds``: of all. ``reading_changed``: how a reading came to be that was changed after results were seen.

    Of a difference between two networks the ``spread`` is half its own 90 % interval, ``n`` the runs of the side that
    has fewer, ``best`` and ``final`` are differences (points), and ``cost`` is that of a run of both.
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
        "cost": verdict.seconds / verdict.n if verdict.n else None,
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
        return f"thrifty train {claim.experiment} --preset paper --only {claim.id}"
    return " && ".join(_count_command(side) for side in claim.sides)


def _count_command(side: Setting) -> str:
    options = {**side.options, "classes": len(dataset_info(side.dataset).classes)}
    words = (f"{name}={value if isinstance(value, str) else _json(value)}" for name, value in options.items())
    return " ".join(["thrifty cost", side.network, *words])


def records_frame(records: Sequence[Record]) -> pandas.DataFrame:
    """One row per record; the network's options follow as ``options.<name>``, lists as JSON text.

    ``best`` and ``final`` are test accuracies in percent, ``best_epoch`` counts from 0. Accuracies and counts are those
    of the network that the run kept.
    """
    import pandas

    rows = []
    for record in records:
        options = record.run.network.options.items()
        named = {f"options.{key}": _json(item) if isinstance(item, list | dict) else item for key, item in options}
        rows.append(record_row(record) | named)
    options = sorted({key for row in rows for key in row} - set(RECORDS))
    return pandas.DataFrame(rows, columns=[*RECORDS, *options])


def record_row(record: Record) -> dict[str, Any]:
    """A record's row, without its options and without pandas."""
    run, counted = record.run, record.counted
    return {name: getattr(record, name, None) for name in RECORDS} | {
        "configuration": run.configuration,
        "network": run.network.name,
        "dataset": run.data.name,
        "recipe": run.recipe_name,
        "seed": run.seed,
        "best_epoch": record.best.epoch if record.best else None,
        "best": record.best_accuracy,
        "final": record.final_accuracy,
        **{name: getattr(counted, name) for name in Counted.model_fields},
        "weights": record.weights.file if record.weights else None,
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
