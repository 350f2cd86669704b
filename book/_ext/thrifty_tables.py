"""The book's tables as HTML, made from claims and records. No Sphinx here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from thriftylib.evidence import tables
from thriftylib.evidence.claims_files import ClaimsFile, Replication, Unavailable
from thriftylib.evidence.counts import NetworkCount
from thriftylib.evidence.quantities import is_difference
from thriftylib.evidence.records import Counted, Record
from thriftylib.evidence.simulation import ErrorRates
from thriftylib.evidence.statuses import STATUSES, sentence

# A verdict is told by a word and a mark; its colour (a class of thrifty.css) comes on top.
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
SORTABLE = {"claimed": "Claimed", "ours": "Ours", "spread": "Spread", "n": "n", "verdict": "Verdict", "cost": "Cost"}


def scoreboard(sheets: Mapping[str, ClaimsFile], records: Sequence[Record], counts: Sequence[NetworkCount]) -> str:
    """Every claim with its verdict, grouped by the figure that states it; scoreboard.js filters, sorts and folds it."""
    claims = {key: claim for sheet in sheets.values() for key, claim in sheet.claims.items()}
    rows = list(tables.scoreboard(claims, records, counts).astype(object).itertuples(index=False))
    counted = {key for key, claim in claims.items() if claim.is_counted}
    sizes = {record.id: record.counted for record in records}
    totals = Counter(row.verdict for row in rows)
    chips = "".join(
        f'<button type="button" class="chip {_slug(status)}" data-verdict="{status}" aria-pressed="false">'
        f"{_mark(status)} {status} <b>{totals[status]}</b></button>"
        for status in STATUSES
        if totals[status]
    )
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.paper, row.figure))]
    body = ""
    for index, group in enumerate(groups):
        if index == 0 or group[0].paper != groups[index - 1][0].paper:
            body += _paper(sheets[group[0].paper])
        body += _group(index, group, sizes)
    papers = "".join(f'<option value="{name}">{_short(sheet.title)}</option>' for name, sheet in sheets.items())
    sorts = "".join(
        f'<option value="{sign}{key}">{label}, {order}</option>'
        for key, label in SORTABLE.items()
        for sign, order in (("", "rising"), ("-", "falling"))
    )
    heads = "".join(_head(key, label) for key, label in SORTABLE.items())
    return f"""
<div class="scoreboard" id="scoreboard">
<div class="chips" role="group" aria-label="Filter by verdict">{chips}</div>
<p class="summary">{_summary(rows, counted)}</p>
<div class="controls">
<input type="search" placeholder="Search: SVHN, T = 30, pooling &hellip;" aria-label="Search the claims">
<select name="paper" aria-label="Paper"><option value="">All papers</option>{papers}</select>
<select name="sort" aria-label="Sort"><option value="">Sort by figure</option>{sorts}</select>
<button type="button" class="fold" data-fold>Open all</button>
<span role="status"></span>
</div>
<div class="sheet"><table class="board" role="table">
<caption>Every claim: what the paper states, what we got, and the verdict</caption>
<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Claim</th>{heads}
<th role="columnheader" scope="col">Command</th></tr></thead>
{body}
</table></div></div>"""


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


def _head(key: str, label: str) -> str:
    kind = "" if key in ("verdict", "cost") else ' class="num"'
    button = f'<button type="button">{label}</button>'
    return f'<th role="columnheader" scope="col" data-sort="{key}"{kind}>{button}</th>'


def _paper(sheet: ClaimsFile) -> str:
    return f"""
<tbody role="rowgroup" class="paper" data-paper="{sheet.paper}">
<tr role="row"><th role="rowheader" scope="rowgroup" colspan="8">{escape(sheet.title)}</th></tr></tbody>"""


def _group(index: int, rows: Sequence[Any], sizes: Mapping[str, Counted]) -> str:
    counts = Counter(row.verdict for row in rows)
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    bar = "".join(f'<i class="{_slug(name)}" style="flex:{counts[name]}"></i>' for name in STATUSES if counts[name])
    first = rows[0]
    figure = first.figure.removeprefix("figure: ")
    head = f'<button type="button" aria-expanded="true"><span>{escape(figure[0].upper() + figure[1:])}</span>'
    bar = f'<span class="bar" role="img" aria-label="{told}" title="{told}">{bar}</span>'
    run = sum(row.n > 0 for row in rows)
    said = f"{run} of {len(rows)} measured" if run else f"{len(rows)} claim{'s' * (len(rows) > 1)}"
    count = f'<span class="count">{said}</span></button>'
    return f"""
<tbody role="rowgroup" class="claims" data-open="{str(first.mark == "ABSTRACT").lower()}">
<tr role="row" class="group"><th role="rowheader" scope="rowgroup" colspan="8">{head}{bar}{count}</th></tr>
{"".join(_row(index, row, sizes) for row in rows)}</tbody>"""


def _row(group: int, row: Any, sizes: Mapping[str, Counted]) -> str:
    sortable = {key: "" if _missing(value := getattr(row, key)) else value for key in SORTABLE}
    sortable |= {"verdict": STATUSES.index(row.verdict), "n": row.n or ""}
    words = " ".join((row.statement, row.figure, row.id, row.mark, row.verdict, row.command)).lower()
    data = {"group": group, "paper": row.paper, "verdict": row.verdict, "text": words}
    data |= {f"by-{key}": value for key, value in sortable.items()}
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    badge = f'<span class="badge {_slug(row.verdict)}">{_mark(row.verdict)}{row.verdict}</span>'
    runs = "" if _missing(row.claimed_n) or row.claimed_n < 2 else f", {row.claimed_n:.0f} runs"
    return f"""
<tr role="row" id="{row.id.replace("/", "-")}" {attributes}>
<td role="cell" class="claim">{escape(row.statement)}
<small title="{escape(row.source)}; {escape(row.how)}">{row.mark.capitalize()}; {row.statistic}{runs}</small></td>
{_cell("Claimed", _claimed(row), "num")}
{_cell("Ours", _ours(row), "num")}
{_cell("Spread", "" if _missing(row.spread) else f"± {row.spread:.2f}", "num")}
{_cell("n", str(row.n or ""), "num")}
<td role="cell" class="verdict">{badge}{_reason(row)}</td>
{_cell("Cost", _cost(row, sizes), "cost")}
{_cell("Command", _command(row.command), "command")}
</tr>"""


def _reason(row: Any) -> str:
    """Why, and beneath it, to be opened, how a reading was changed after results were seen."""
    if not row.reading_changed:
        return f"<small>{escape(row.reason)}</small>"
    changed = sentence(row.reading_changed)
    why = escape(row.reason.removesuffix(changed).rstrip())
    told = f"<details><summary>Reading changed after results were seen</summary>{escape(changed)}</details>"
    return f"<small>{why}{told}</small>"


def _cell(label: str, content: str, kind: str) -> str:
    """A cell; an empty one shows a dash in the table and nothing on a phone's card."""
    empty = "" if content else " empty"
    return f'<td role="cell" class="{kind}{empty}" data-label="{label}">{content or "–"}</td>'


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN is not itself


def _claimed(row: Any) -> str:
    words = {"equals": "", "at least": "≥ ", "more than": "> ", "at most": "≤ "}
    error = f"<small>± {row.error:g}</small>" if row.error else ""
    return f"{words[row.bound]}{_number(row.claimed, row.unit)}{error}"


def _ours(row: Any) -> str:
    if _missing(row.ours):
        return ""
    last = "" if _missing(row.final) else f"<small>last {row.final:.2f} {row.unit}</small>"
    return _number(row.ours, row.unit) + last


def _number(value: float, unit: str) -> str:
    return f"{value:,.2f}&nbsp;{unit}" if unit else f"{value:,.0f}"


def _cost(row: Any, sizes: Mapping[str, Counted]) -> str:
    if _missing(row.cost):
        return ""
    spent = f"{row.cost / 3600:.1f} h" if row.cost >= 3600 else f"{row.cost / 60:.0f} min"
    size = sizes[row.records.split(",")[0]]
    what = "pair" if is_difference(row.quantity) else "run"
    macs = f"{size.macs / 1e6:,.{0 if size.macs >= 1e7 else 2}f} MMAC"
    return f"{spent} a {what}<small>{size.parameters:,} parameters<br>{macs}</small>"


def _command(command: str) -> str:
    if not command:
        return ""
    copy = f'<button type="button" data-copy="{escape(command)}">Copy</button>'
    return f"<details><summary>Rerun</summary><code>{escape(command)}</code>{copy}</details>"


def _slug(status: str) -> str:
    return status.replace(" ", "-")


def _mark(status: str) -> str:
    return f'<span class="sign" aria-hidden="true">{MARKS[status]}</span>'


def _short(title: str) -> str:
    return escape(title.split(":")[0])


def html_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A plain table of text whose columns ``numbers`` are aligned to the right."""

    def cells(values: Sequence[str], tag: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = [' class="num"' if column in numbers else "" for column in range(len(values))]
        pairs = zip(kinds, values, strict=True)
        return "".join(f"<{tag}{scope}{kind}>{escape(value)}</{tag}>" for kind, value in pairs)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{cells(headers, 'th')}</tr></thead>"
    return f'<div class="table-scroll" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def unread(items: Sequence[Unavailable]) -> str:
    """What a paper shows and could not be read, with what is known of it."""
    rows = [(item.figure, item.what, item.why, item.known) for item in items]
    return html_table(("Where", "What", "Why it is missing", "What is known"), rows)


def replications(items: Sequence[Replication]) -> str:
    """What third parties measured with a paper's networks: theirs, and no claim."""
    shown = []
    for item in items:
        rows = [
            (each.network, each.start, f"{each.value:.2f}" + ("" if each.spread is None else f" ± {each.spread:.2f}"))
            for each in item.results
        ]
        shown.append(
            f"<p>{escape(item.what)}, by {escape(item.by)}. Their recipe: {escape(item.recipe)}.</p>"
            + html_table(("Network", "First weights", f"Measured by them, {item.unit}"), rows, numbers=(2,))
            + f"<p>{escape(item.remark)}</p>" * bool(item.remark)
        )
    return "".join(shown)


def local_runs(records: Sequence[Record]) -> str:
    """The runs of this machine, or the plain statement that there are none."""
    if not records:
        return (
            "<p><strong>This machine has no runs of its own yet.</strong> "
            "<code>make book</code> trains some before it renders the site.</p>"
        )
    rows = [
        (
            record.run.network.name,
            record.run.data.name,
            f"{record.counted.parameters:,}",
            str(record.epochs),
            _percent(record.best_accuracy),
            _percent(record.final_accuracy),
            f"{record.seconds:.1f}",
            record.id if record.status == "complete" else f"{record.id} ({record.status})",
        )
        for record in records
    ]
    headers = ("Network", "Data", "Parameters", "Epochs", "Best %", "Last %", "Seconds", "Record")
    devices = ", ".join(sorted({record.device for record in records}))
    digits = all(record.run.data.name == "digits" for record in records)
    note = (
        "<p>All of them are smoke runs: tiny networks on 8x8 digits, a few epochs each. They show that this machine "
        "can train, record and render. <strong>They prove nothing about any claim.</strong></p>"
        if digits
        else "<p>These runs are this machine's own; the scoreboard shows committed records alone.</p>"
    )
    return f"{note}<p>{len(records)} runs on {escape(devices)}.</p>" + html_table(headers, rows, numbers=range(2, 7))


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


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
