"""A claim explained: all that its page, ``thrifty show`` and ``claims.json`` say, from one function. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import ClaimsFile
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.quantities import is_difference
from thriftylib.evidence.records import Record
from thriftylib.evidence.rule import Step, amount, clearness, count_steps, stated, steps, would_change
from thriftylib.evidence.statuses import STRONG, UNDECIDED, Status, Verdict
from thriftylib.evidence.tables import command
from thriftylib.evidence.verdicts import choose, judge, measure, reached
from thriftylib.options import Strict
from thriftylib.spec import Run

INSTALL = "pip install -e ."
"""What comes before any command, in a checkout."""
_HOSTS = {"doi": "https://doi.org/", "arxiv": "https://arxiv.org/abs/"}
Pair = tuple[float, float]


class RunBehind(Strict):
    """One run that a claim was compared with."""

    id: str = Field(description="Of the run and of its record, records/<id>.json.")
    side: Literal[1, 2] = Field(description="1, or 2 for the network that a comparison is made with.")
    seed: int
    value: float = Field(description="What it reached, in the claim's statistic and unit.")
    recipe: str | None = Field(description="Null: nothing was trained.")
    epochs: int
    status: Literal["complete", "diverged"]
    seconds: float
    device: str
    commit: str | None = Field(description="Of the code that trained it; + at its end: the code differed from that.")


class Explained(Strict):
    """A number that a paper states, and what came out of it."""

    id: str
    paper: str
    title: str
    references: tuple[str, ...] = Field(description="Addresses of the paper.")
    figure: str = Field(description="Where in the paper.")
    statement: str
    quantity: str
    unit: str
    kind: Literal["measured", "counted", "quoted"] = Field(
        description="Answered by runs, by a count in closed form, or by nothing."
    )
    bound: Literal["equals", "at least", "more than", "at most"]
    relation: str | None = Field(description="What of a difference is claimed.")
    claimed: float
    error: float = Field(description="How far the reading, or its rounding, may be off; 0: exact.")
    statistic: str
    claimed_runs: int | None = Field(description="The paper's.")
    claimed_spread: float | None = Field(description="The paper's standard deviation over its runs.")
    mark: str = Field(description="What the number was read from.")
    source: str
    how: str
    confidence: Literal["certain", "high", "medium", "low"]
    reading: str = Field(description="What of the setting was inferred by us; empty: nothing.")
    reading_changed: str | None = Field(description="Of a reading that was changed after results were seen.")
    verdict: Status
    reason: str
    ours: float | None
    spread: float | None = Field(description="Standard deviation over our runs.")
    interval: Pair | None = Field(description="Of a difference between two networks: its 90 % interval.")
    distance: Pair | None = Field(description="90 % interval of ours less the claimed.")
    tolerance: float | None = Field(description="How far off still counts as close.")
    clearness: float | None = Field(
        description="How far the interval of a strong word is from the edge that it could cross, in halves of it."
    )
    n: int = Field(description="Runs, of the side that has fewer.")
    best: float | None = Field(description="Mean test accuracy of the best epochs, percent.")
    final: float | None = Field(description="Mean test accuracy after training, percent.")
    recipe: str | None
    seconds: float = Field(description="Of all runs.")
    runs: tuple[RunBehind, ...]
    sides: tuple[str, ...] = Field(description="Of a comparison with runs: what sets each network's runs apart.")
    rule: tuple[Step, ...] = Field(description="The rule of the verdicts, worked out with the numbers put in.")
    would_change: tuple[str, ...] = Field(description="What would change the verdict.")
    experiment: str | None
    install: str
    command: str = Field(description="What trains or counts what the claim needs; empty: nothing can.")

    @property
    def stated(self) -> str:
        """The claimed number with its bound and unit."""
        if self.relation == "greater" and not self.claimed:
            return "above 0"
        return stated(self.claimed, self.unit, self.bound, signed=is_difference(self.quantity))

    @property
    def came_out(self) -> str:
        """Our number with its spread, or interval, and the number of runs; empty where there is none."""
        if self.ours is None:
            return ""
        text = amount(self.ours, self.unit, signed=is_difference(self.quantity))
        if self.spread is not None:
            text += f" ± {self.spread:.2f}"
        if self.interval is not None:
            text += f" ({self.interval[0]:+.2f} to {self.interval[1]:+.2f})"
        return text + (f", n = {self.n}" if self.n else "")


class ClaimsJson(Strict):
    """Every claim of every paper with its verdict, as the site's claims.json has them."""

    format: Literal[1] = 1
    claims: tuple[Explained, ...]


def explain(
    claim: Claim, file: ClaimsFile, records: Sequence[Record], counts: Sequence[NetworkCount] = ()
) -> Explained:
    """What is claimed, how it was read, what came out, and the verdict with its reason.

    Raises:
        RecordError: as :func:`thriftylib.evidence.verdicts.judge`.
    """
    verdict = judge(claim, records, counts)
    runs: list[RunBehind] = []
    clear, sides = None, ()
    if claim.not_testable is not None:
        kind, worked = "quoted", (Step(label="Not testable", text=verdict.reason),)
        changes = ("What it needs becomes known or available.",)
    elif claim.is_counted:
        kind, (worked, changes) = "counted", count_steps(claim, verdict)
    elif isinstance(chosen := choose(claim, records), str):
        kind, worked = "measured", (Step(label="No run", text=chosen),)
        changes = would_change(claim, verdict, None)
    else:
        kind, found = "measured", measure(claim, chosen.groups)
        runs = [_run(claim, side, record) for side, group in enumerate(chosen.groups, 1) for record in group]
        worked, sides = steps(claim, verdict, found), _sides([group[0].run for group in chosen.groups])
        changes, clear = would_change(claim, verdict, found), clearness(verdict, found)
    if claim.reading:
        changes += ("Another reading: what was inferred of the setting decides which runs count.",)
    return Explained(
        **{**_claimed(claim, file), **_found(verdict), "kind": kind, "clearness": clear, "runs": tuple(runs)},
        **{"rule": worked, "would_change": changes, "sides": sides},
    )


def _claimed(claim: Claim, file: ClaimsFile) -> dict[str, Any]:
    same = "id paper figure statement quantity unit bound relation statistic mark source how confidence reading"
    return {name: getattr(claim, name) for name in (*same.split(), "reading_changed", "experiment")} | {
        "title": file.title,
        "references": tuple(map(address, file.references)),
        "claimed": claim.value,
        "error": claim.reading_error,
        "claimed_runs": claim.runs,
        "claimed_spread": claim.stated_spread,
        "install": INSTALL,
        "command": command(claim),
    }


def _found(verdict: Verdict) -> dict[str, Any]:
    same = ("reason", "ours", "interval", "distance", "tolerance", "n", "best", "final", "recipe", "seconds")
    return {name: getattr(verdict, name) for name in same} | {"verdict": verdict.status, "spread": verdict.sd}


def _sides(runs: Sequence[Run]) -> tuple[str, ...]:
    """What two runs differ in: network, data, method and their options."""
    if len(runs) < 2:
        return ()
    described = [
        {"network": run.network.name, "data": run.data.name, "method": run.method.name if run.method else "none"}
        | run.network.options
        | (run.method.options if run.method else {})
        for run in runs
    ]
    names = dict.fromkeys(name for options in described for name in options)
    apart = [name for name in names if len({json.dumps(options.get(name)) for options in described}) > 1]
    return tuple(", ".join(f"{name} = {options[name]}" for name in apart if name in options) for options in described)


def _run(claim: Claim, side: int, record: Record) -> RunBehind:
    same = {name: getattr(record, name) for name in ("id", "epochs", "status", "seconds", "device", "commit")}
    recipe = record.run.recipe_name if record.run.recipe else None
    return RunBehind(side=side, seed=record.run.seed, value=reached(claim, record), recipe=recipe, **same)


def explain_all(
    files: Mapping[str, ClaimsFile], records: Sequence[Record], counts: Sequence[NetworkCount] = ()
) -> dict[str, Explained]:
    """Every claim of some papers by its id, in the order of the files."""
    return {key: explain(claim, file, records, counts) for file in files.values() for key, claim in file.claims.items()}


def strongest(claims: Iterable[Explained], most: int = 5, of_a_paper: int = 2) -> list[Explained]:
    """The findings that runs decided: on most runs first, then those whose interval is clearest of the edge.

    Strong words alone; where fewer than three have one, undecided claims with at least two runs of a side follow.
    """
    ranked = sorted(
        (claim for claim in claims if claim.verdict in STRONG or (claim.verdict in UNDECIDED and claim.n > 1)),
        key=lambda claim: (claim.verdict not in STRONG, -len(claim.runs), -(claim.clearness or 0.0)),
    )
    found: list[Explained] = []
    for claim in ranked:
        enough = len(found) >= (most if claim.verdict in STRONG else 3)
        if not enough and sum(other.paper == claim.paper for other in found) < of_a_paper:
            found.append(claim)
    return found


def address(reference: str) -> str:
    """Where a paper is found: of ``doi:10...`` and ``arxiv:2007.10106`` their resolvers' addresses."""
    kind, _, name = reference.partition(":")
    return _HOSTS[kind] + name
