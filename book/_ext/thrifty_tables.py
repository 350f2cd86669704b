"""The book's tables as HTML, made from claims and records. No Sphinx here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from thriftylib.evidence import tables
from thriftylib.evidence.claims_files import ClaimsFile, Unavailable
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.explain import explain_all, strongest
from thriftylib.evidence.quantities import is_difference
from thriftylib.evidence.records import Record
from thriftylib.evidence.rule import BOUNDS
from thriftylib.evidence.simulation import ErrorRates
from thriftylib.evidence.statuses import STATUSES, STRONG, sentence
from thriftylib.figures import html_table
from thriftylib.paths import project_root, read_json, read_text
from thriftylib.running.notebooks import showing

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
ANSWERS = 6
"""Claims that a chapter begins with, at most."""
SORTABLE = {"claimed": "Claimed", "ours": "Ours", "spread": "Spread", "n": "n", "verdict": "Verdict", "cost": "Cost"}


def scoreboard(files: Mapping[str, ClaimsFile], records: Sequence[Record], counts: Sequence[NetworkCount]) -> str:
    """Every claim with its verdict, papers with measured ones first, from the template ``scoreboard.html``."""
    claims = {key: claim for file in files.values() for key, claim in file.claims.items()}
    counted = {key for key, claim in claims.items() if claim.is_counted}
    rows = list(tables.scoreboard(claims, records, counts).astype(object).itertuples(index=False))
    papers = [_paper(files[name], list(some), counted) for name, some in groupby(rows, key=lambda row: row.paper)]
    papers.sort(key=lambda paper: -paper["run"])
    rows = [row for paper in papers for row in paper["rows"]]
    groups = [_group(list(group), counted) for _, group in groupby(rows, key=lambda row: (row.paper, row.figure))]
    findings = strongest(explain_all(files, records, counts).values())
    return TEMPLATES.get_template("scoreboard.html").render(
        files=files, groups=groups, papers=papers, totals=Counter(row.verdict for row in rows), statuses=STATUSES,
        marks=MARKS, bounds=BOUNDS, sortable=SORTABLE, sizes={record.id: record.counted for record in records},
        counted=counted, summary=Markup(_summary(rows, counted)),
        findings=[(claim, showing(claim.experiment)) for claim in findings],
    )  # fmt: skip


def answer(file: ClaimsFile, records: Sequence[Record], counts: Sequence[NetworkCount]) -> str:
    """A paper's line of the scoreboard, and its claims that runs answered, from the template ``answer.html``."""
    rows = list(tables.scoreboard(file.claims, records, counts).astype(object).itertuples(index=False))
    counted = {key for key, claim in file.claims.items() if claim.is_counted}
    explained = explain_all({file.paper: file}, records, counts).values()
    found = strongest(explained, most=ANSWERS, of_a_paper=ANSWERS)
    return TEMPLATES.get_template("answer.html").render(
        paper=_paper(file, rows, counted), statuses=STATUSES, marks=MARKS,
        findings=[(claim, showing(claim.experiment)) for claim in found],
    )  # fmt: skip


def _tally(rows: Sequence[Any], counted: Container[str]) -> dict[str, Any]:
    """How many claims have which verdict, by kind, how many there are, and how many their own recipe's runs answer."""
    kinds = {"counted": [row for row in rows if row.id in counted]}
    kinds["measured"] = [row for row in rows if row.id not in counted]
    kinds["every"] = rows
    return {
        "tally": {kind: Counter(row.verdict for row in some) for kind, some in kinds.items()},
        **{kind: len(some) for kind, some in kinds.items()},
        "run": sum(row.n > 0 and row.verdict != "other recipe" for row in kinds["measured"]),
        "rows": rows,
    }


def _paper(file: ClaimsFile, rows: Sequence[Any], counted: Container[str]) -> dict[str, Any]:
    return {"name": rows[0].paper, "short": short_title(file), **_tally(rows, counted)}


def short_title(file: ClaimsFile) -> str:
    """What a paper's chapter is called; of one without, the title up to its colon."""
    chapter = project_root() / "book" / f"{file.paper}.md"
    heads = re.findall(r"^# (.+)$", read_text(chapter), flags=re.MULTILINE) if chapter.is_file() else []
    return heads[0] if heads else file.title.split(":")[0]


def _group(rows: Sequence[Any], counted: Container[str]) -> dict[str, Any]:
    """What the line above a figure's claims says."""
    figure = rows[0].figure.removeprefix("figure: ")
    return {"paper": rows[0].paper, "figure": figure[0].upper() + figure[1:], **_tally(rows, counted)}


def _summary(rows: Sequence[Any], counted: Container[str]) -> str:
    """Measured and counted apart: that a network has the claimed parameters says nothing of its accuracy.

    Each number is marked, so that the page's script can say the same of what a filter leaves.
    """
    testable = [row for row in rows if row.verdict != "not testable"]
    counts = [row.verdict for row in testable if row.id in counted]
    measured = [row for row in testable if row.id not in counted]
    words = [row.verdict for row in measured]
    trainings = {key for row in measured if row.verdict != "other recipe" for key in row.records.split(",") if key}
    equal, differ, built = (counts.count(word) for word in ("equal", "differs", "by construction"))
    numbers = {
        "testable": len(testable),
        "all": len(rows),
        "trainable": len(measured),
        **{word: words.count(word) for word in STRONG},
        "undecided": words.count("consistent") + words.count("at odds"),
        "trainings": len(trainings),
        "countable": len(counts),
        **{"equal": equal, "differ": differ, "built": built, "open": len(counts) - equal - differ - built},
    }
    told = {name: f'<b data-tally="{name}">{number}</b>' for name, number in numbers.items()}
    return (
        "{testable} of {all} claims can be tested. Of the {trainable} that need a training {reproduced} are "
        "reproduced, {not reproduced} not reproduced, {undecided} undecided, by {trainings} independent trainings. Of "
        "the {countable} counts {equal} are equal, {differ} differ, {built} are equal by construction, {open} open."
    ).format_map(told)


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


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.tests["known"] = _known
TEMPLATES.filters |= {
    "slug": lambda status: status.replace(" ", "-"),
    "sentence": sentence,
    "sortkey": _sort_key,
    "cost": _cost,
    "mmac": lambda macs: f"{macs / 1e6:,.{0 if macs >= 1e8 else 2}f} M MACs",
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


def reliability(path: Path) -> str:
    """What was tried, how often, and how often it went wrong, by ``tests/reliability.py``."""
    record = read_json(path)
    rows = [(row["what"], f"{row['tried']:,}", f"{row['faults']:,}", row["note"]) for row in record["rows"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    table = html_table(("What", "Tried", "Went wrong", "Remark"), rows, numbers=(1, 2))
    return f"{table}<p>Measured on {escape(record['system'])} with {escape(versions)}.</p>"


def agreement(path: Path) -> str:
    """The accuracies that one recipe gave on PyTorch's operators and on our kernels, by ``tests/agreement.py``."""
    record = read_json(path)

    def text(values: Sequence[float]) -> str:
        return f"{fmean(values):.2f} ± {stdev(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"

    rows = [(row["what"], text(row["best"]), text(row["last"])) for row in record["rows"]]
    heads = ("Trained on", "Best epoch, %: mean ± sd (each seed)", "Last epoch, %: mean ± sd (each seed)")
    return html_table(heads, rows, numbers=(1, 2))


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
