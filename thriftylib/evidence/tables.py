"""Claims, verdicts and records as tidy pandas frames. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from thriftylib.datasets.facts import dataset_info
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.records import Counted, Record
from thriftylib.evidence.statuses import Verdict
from thriftylib.evidence.verdicts import judge_all

SCOREBOARD = (
    *(
        "id",
        "paper",
        "figure",
        "statement",
        "quantity",
        "unit",
        "bound",
        "claimed",
        "error",
        "claimed_spread",
        "claimed_n",
    ),
    *("ours", "spread", "n", "difference", "low", "high", "tolerance", "verdict", "reason"),
    *("best", "final", "statistic", "recipe", "cost", "seconds", "device", "seeds", "records", "experiment", "command"),
    *("mark", "source", "how", "confidence", "reading", "reading_changed"),
)
"""The columns of :func:`scoreboard`, in order."""

_NUMBERS = ("claimed", "error", "claimed_spread", "claimed_n", "ours", "spread", "difference", "low", "high")
_NUMBERS += ("tolerance", "best", "final", "cost", "seconds")

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
    rows = [_row(claims[key], verdict) for key, verdict in judge_all(claims, records, counts).items()]
    return pandas.DataFrame(rows, columns=list(SCOREBOARD)).astype(dict.fromkeys(_NUMBERS, float))


def _row(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    same = ("id", "paper", "figure", "statement", "quantity", "unit", "bound", "statistic")
    same += ("experiment", "mark", "source", "how", "confidence", "reading")
    low, high = verdict.distance or (None, None)
    return {
        **{name: getattr(claim, name) for name in same},
        "claimed": claim.value,
        "error": claim.reading_error,
        "claimed_spread": claim.stated_spread,
        "claimed_n": claim.runs,
        "ours": verdict.ours,
        "spread": verdict.sd if verdict.interval is None else (verdict.interval[1] - verdict.interval[0]) / 2,
        "n": verdict.n,
        "difference": None if verdict.ours is None else verdict.ours - claim.value,
        "low": low,
        "high": high,
        "tolerance": verdict.tolerance,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "best": verdict.best,
        "final": verdict.final,
        "recipe": verdict.recipe,
        "cost": verdict.seconds / verdict.n if verdict.n else None,
        "seconds": verdict.seconds if verdict.n else None,
        "device": verdict.device,
        "seeds": ",".join(map(str, verdict.seeds)),
        "records": ",".join(verdict.records),
        "command": command(claim),
        "reading_changed": claim.reading_changed or "",
    }


def command(claim: Claim) -> str:
    """What to type to get our number for a claim; empty where none can be had."""
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
    rows = [_record_row(record) for record in records]
    options = sorted({key for row in rows for key in row} - set(RECORDS))
    return pandas.DataFrame(rows, columns=[*RECORDS, *options])


def _record_row(record: Record) -> dict[str, Any]:
    run, options = record.run, record.run.network.options
    same = ("id", "status", "epochs", "images_per_second", "seconds", "device", "precision", "threads", "sittings")
    return {
        **{name: getattr(record, name) for name in (*same, "finished", "commit")},
        "configuration": run.configuration,
        "network": run.network.name,
        "dataset": run.data.name,
        "recipe": run.recipe_name,
        "seed": run.seed,
        "best_epoch": record.best.epoch if record.best else None,
        "best": record.best_accuracy,
        "final": record.final_accuracy,
        **{name: getattr(record.counted, name) for name in Counted.model_fields},
        "weights": record.weights.file if record.weights else None,
        **{f"options.{key}": _json(item) if isinstance(item, list | dict) else item for key, item in options.items()},
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
