"""The command status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import Json, Results, print_json, print_table, put, readable
from thriftylib.errors import ThriftyError
from thriftylib.paths import claims_dir, results_dir

if TYPE_CHECKING:
    from thriftylib.evidence.explain import Explained

SHOWN = ("id", "claimed", "error", "ours", "spread", "n", "unit", "verdict")


def status(
    paper: Annotated[str | None, typer.Option(help="Only this paper's claims.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only claims with this verdict, such as 'not run'.")] = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Print how many claims have which verdict, then every claim with ours beside it, judged by the records.

    Example: thrifty status --verdict reproduced
    """
    from thriftylib.evidence.claims_files import load_claims
    from thriftylib.evidence.counts import load_counts
    from thriftylib.evidence.records import load_records
    from thriftylib.evidence.statuses import STATUSES
    from thriftylib.evidence.tables import claim_row
    from thriftylib.evidence.verdicts import judge_all
    from thriftylib.options import suggest
    from thriftylib.running.folders import given_folder

    if verdict is not None and verdict not in STATUSES:
        raise ThriftyError(f"unknown verdict {verdict!r}" + suggest(verdict, STATUSES))
    with readable(load_claims(claims_dir())) as claims:
        papers = {claim.paper for claim in claims.values()}
        if paper is not None and paper not in papers:
            raise ThriftyError(f"unknown paper {paper!r}" + suggest(paper, papers))
        judged = judge_all(
            claims, load_records(given_folder(results) if results else results_dir()), load_counts(results_dir())
        )
        rows = [claim_row(claims[key], found) for key, found in judged.items() if verdict in (None, found.status)]
        rows = [row for row in rows if paper in (None, row["paper"])]
        if as_json:
            print_json(rows)
            return
        changes = list(dict.fromkeys(row["reading_changed"] for row in rows if row["n"] and row["reading_changed"]))
        put(f"{tally(row['verdict'] for row in rows)}\n")
        print_table(SHOWN, [[_cell(row, column, changes) for column in SHOWN] for row in rows])
        for number, text in enumerate(changes, 1):
            put(f"\n{'*' * number} {text}")


def tally(verdicts: Iterable[str]) -> str:
    """How many claims there are, and how many of them have each verdict."""
    from thriftylib.evidence.statuses import STATUSES

    counted = Counter(verdicts)
    number = counted.total()
    words = ", ".join(f"{counted[name]} {name}" for name in STATUSES if counted[name])
    return f"{number} claim{'s' * (number != 1)}" + f": {words}" * bool(words)


def put_claims(claims: Sequence[Explained]) -> None:
    """The sum of some claims and a line for each."""
    put(f"{tally(claim.verdict for claim in claims)}\n")
    heads = ("claim", "claimed", "ours", "verdict", "statement")
    print_table(heads, [(one.id, one.stated, one.came_out, one.verdict, one.statement) for one in claims])


def _cell(row: dict[str, Any], column: str, changes: list[str]) -> Any:
    """Counts without decimals, nothing for no runs, and a mark where a reading was changed after results were seen."""
    value = row[column]
    if value == "not counted":
        return row["reason"][0].lower() + row["reason"][1:].rstrip(".")
    if column == "verdict":
        marks = changes.index(row["reading_changed"]) + 1 if row["n"] and row["reading_changed"] in changes else 0
        return value + "*" * marks
    return int(value) if isinstance(value, float) and not row["unit"] else value or None
