"""The book's tables as HTML, made from claims and records. No Sphinx here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from thriftylib.evidence import tables
from thriftylib.evidence.claims_files import ClaimsFile, Unavailable
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.quantities import is_difference
from thriftylib.evidence.records import Record
from thriftylib.evidence.simulation import ErrorRates
from thriftylib.evidence.statuses import STATUSES, sentence
from thriftylib.figures import html_table

# A word and a mark identify a verdict; its colour (a class of thrifty.css) only adds to them.
MARKS = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "consistent": "≈",
    "at odds": "≠",
    "other recipe": "◐",
    "equal": "=",
    "differs": "Δ",
    "by construction": "≡",
    "not run": "○",
    "not counted": "◌",
    "not testable": "–",
}
BOUNDS = {"equals": "", "at least": "≥ ", "more than": "> ", "at most": "≤ "}
SORTABLE = {"claimed": "Claimed", "ours": "Ours", "spread": "Spread", "n": "n", "verdict": "Verdict", "cost": "Cost"}


def scoreboard(files: Mapping[str, ClaimsFile], records: Sequence[Record], counts: Sequence[NetworkCount]) -> str:
    """Every claim with its verdict, grouped by the figure that states it, from the template ``scoreboard.html``."""
    claims = {key: claim for file in files.values() for key, claim in file.claims.items()}
    rows = list(tables.scoreboard(claims, records, counts).astype(object).itertuples(index=False))
    groups = [_group(list(group)) for _, group in groupby(rows, key=lambda row: (row.paper, row.figure))]
    return _TEMPLATES.get_template("scoreboard.html").render(
        files=files, groups=groups, totals=Counter(row.verdict for row in rows), statuses=STATUSES, marks=MARKS,
        bounds=BOUNDS, sortable=SORTABLE, sizes={record.id: record.counted for record in records},
        summary=_summary(rows, {key for key, claim in claims.items() if claim.is_counted}),
    )  # fmt: skip


def _group(rows: Sequence[Any]) -> dict[str, Any]:
    """What the line above a figure's claims says."""
    counts, run = Counter(row.verdict for row in rows), sum(row.n > 0 for row in rows)
    figure = rows[0].figure.removeprefix("figure: ")
    return {
        "paper": rows[0].paper,
        "figure": figure[0].upper() + figure[1:],
        "counts": [(name, counts[name]) for name in STATUSES if counts[name]],
        "said": f"{run} of {len(rows)} measured" if run else f"{len(rows)} claim{'s' * (len(rows) > 1)}",
        "rows": rows,
    }


def _summary(rows: Sequence[Any], counted: Container[str]) -> str:
    """Measured and counted apart: that a network has the claimed parameters says nothing of its accuracy."""
    testable = [row for row in rows if row.verdict != "not testable"]
    counts = [row.verdict for row in testable if row.id in counted]
    measured = [row for row in testable if row.id not in counted]
    words = [row.verdict for row in measured]
    trainings = {key for row in measured if row.verdict != "other recipe" for key in row.records.split(",") if key}
    undecided = words.count("consistent") + words.count("at odds")
    equal, differ, built = (counts.count(word) for word in ("equal", "differs", "by construction"))
    return (
        f"{len(testable)} of {len(rows)} claims can be tested. Of the {len(measured)} that need a training "
        f"{words.count('reproduced')} are reproduced, {words.count('not reproduced')} not reproduced, {undecided} "
        f"undecided, by {len(trainings)} independent trainings. Of the {len(counts)} counts {equal} are equal, "
        f"{differ} differ, {built} are equal by construction, {len(counts) - equal - differ - built} open."
    )


def _known(value: Any) -> bool:
    return value is not None and value == value  # NaN is not itself


def _sort_key(row: Any, key: str) -> Any:
    if key == "verdict":
        return STATUSES.index(row.verdict)
    value = getattr(row, key)
    return "" if not _known(value) or (key == "n" and not value) else value


def _cost(row: Any) -> str:
    spent = f"{row.cost / 3600:.1f} h" if row.cost >= 3600 else f"{row.cost / 60:.0f} min"
    return f"{spent} a {'pair' if is_difference(row.quantity) else 'run'}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.tests["known"] = _known
_TEMPLATES.filters |= {
    "slug": lambda status: status.replace(" ", "-"),
    "sentence": sentence,
    "sortkey": _sort_key,
    "cost": _cost,
    "mmac": lambda macs: f"{macs / 1e6:,.{0 if macs >= 1e7 else 2}f} MMAC",
}


def unavailable(items: Sequence[Unavailable]) -> str:
    """What a paper shows and could not be read, with what is known of it; or that its claims file lists nothing."""
    if not items:
        return "<p>Nothing is listed.</p>"
    rows = [(item.figure, item.what, item.why, item.known) for item in items]
    return html_table(("Where", "What", "Why it is missing", "What is known"), rows)


def error_rates(rates: ErrorRates) -> str:
    """How often each word is said, in percent, by the true difference and the numbers of runs."""
    words = ("reproduced", "consistent", "at odds", "not reproduced")
    rows = [
        (
            f"{row.difference:g}",
            str(row.ours),
            str(row.theirs),
            *(f"{100 * row.words.get(word, 0.0):.0f}" for word in words),
        )
        for row in rates.rows
    ]
    headers = ("True difference", "n", "n'", *(word.capitalize() for word in words))
    told = f"{rates.trials:,} times each; runs deviate by {rates.deviation:g} points, and 1 point counts as close."
    return html_table(headers, rows, numbers=range(len(headers))) + f"<p>{told}</p>"


def provenance(records: Sequence[Record]) -> str:
    """How many committed records each device and set of versions gave."""
    if not records:
        return "<p>No record is committed yet.</p>"
    kinds = Counter(
        (record.device, record.precision, *(record.versions[name] for name in ("torch", "torchvision", "python")))
        for record in records
    )
    rows = [(*kind, str(number)) for kind, number in sorted(kinds.items())]
    return html_table(("Device", "Precision", "torch", "torchvision", "Python", "Records"), rows, numbers=(5,))
