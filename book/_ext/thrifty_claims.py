"""A page for each claim, and the whole evidence as files: what ``thrifty show`` says, at ``claims/<id>.html``.

Beside the pages are ``claims.json`` with its schema, ``claims.csv`` and ``records/<run id>.json``. The pages are
rendered after all documents, by the theme's own template; the search finds them by words, id and claimed number.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import thrifty_drawings as drawings
from docutils import nodes
from docutils.utils import new_document
from markupsafe import Markup
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset
from thrifty_tables import MARKS, TEMPLATES, short_title

from thriftylib.escaping import for_spreadsheet
from thriftylib.evidence.explain import ClaimsJson, Explained, explain_all
from thriftylib.evidence.numbers import Evidence
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running.notebooks import showing

_TITLE, _DESCRIPTION, _BODY, _NAME = (
    "claim-s-title",
    "claim-s-description",
    "claim-s-body",
    "claims/a/claim/claim-s-page",
)
_OTHER_DESCRIPTION = re.compile(rf'<meta name="description" content="(?!{_DESCRIPTION}")[^>]*>\s*')
FILES = ("claims.json", "claims.schema.json", "claims.csv")
"""What lies at the site's root."""


def page(claim_id: str) -> str:
    """The address of a claim's page from the site's root, without its ending."""
    return f"claims/{claim_id}"


def _body(
    claim: Explained, records: Mapping[str, Record], around: tuple[str | None, str | None], chapter: tuple[bool, str]
) -> str:
    """The page's own HTML; ``around``: the claims before and after; ``chapter``: whether there is one, and its name."""
    behind = [records[run.id] for run in claim.runs]
    series = claim.quantity.removesuffix("_difference")
    drawn = series if any(series in record.series for record in behind) else TEST_ACCURACY
    curve = drawings.curves(claim, drawn, behind)
    two = len({run.side for run in claim.runs}) == 2
    words = [f"{drawn.replace('_', ' ').capitalize()} in percent, a line for each run."]
    words += ["Solid: the first network; dashed: the one that it is compared with."] * two
    words += ["Dotted: the claimed number."] * (claim.quantity == drawn)
    what = series.replace("_", " ")
    words += [f"The claim is about {what}, in the table below."] * (series != drawn)
    sign = {"points": "%"}.get(claim.unit, claim.unit)
    unit = f"{what.capitalize()}{f', {sign}' if sign else ''}"
    return TEMPLATES.get_template("claim.html").render(
        claim=claim, sign=MARKS[claim.verdict], two=two, chapter=chapter, unit=unit, before=around[0], after=around[1],
        root="../" * page(claim.id).count("/"), strip=Markup(drawings.strip(claim)), curve=Markup(curve),
        caption=" ".join(words), devices=", ".join(sorted({run.device for run in claim.runs})),
        notebooks=_showing(claim.experiment) if claim.experiment else [],
    )  # fmt: skip


_showing = cache(showing)


def _indexed(claim: Explained) -> nodes.document:
    """What the search knows of a page: its words, and as entries its id and the ways to write its number.

    Without a title node: hundreds of claims would stand before the chapters whenever a paper is searched for.
    """
    document = new_document(claim.id)
    numbers = dict.fromkeys((f"{claim.claimed:g}", f"{claim.claimed:,.10g}", claim.stated, claim.id))
    entries = [("single", entry.replace(";", ","), "", "main", None) for entry in numbers]
    text = " ".join((claim.statement, claim.id, claim.figure, claim.verdict, claim.source, *numbers))
    document += [addnodes.index(entries=entries), nodes.paragraph("", text)]
    return document


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Write every claim's page: the theme renders one, and all around its own part is the same on the others."""
    evidence = Evidence.load(claims_dir(), results_dir())
    claims = explain_all(evidence.files, evidence.records, evidence.counts)
    records = {record.id: record for record in evidence.records}
    write_files(list(claims.values()), app.outdir)
    copy_asset(results_dir() / "runs", app.outdir / "records")
    documents = app.env.found_docs
    chapters = {name: (f"book/{name}" in documents, short_title(file)) for name, file in evidence.files.items()}
    frame, order = _frame(app), [None, *claims, None]
    for place, claim in enumerate(claims.values(), 1):
        name = page(claim.id)
        found = f"Ours: {claim.came_out}. " if claim.came_out else ""
        parts = {
            _TITLE: escape(claim.statement),
            _DESCRIPTION: escape(f"{claim.verdict.capitalize()}. {claim.title}: {claim.statement} {found}".strip()),
            _NAME: name,
            _NAME.rpartition("/")[2]: name.rpartition("/")[2],  # alone in a canonical address
            _BODY: _body(claim, records, (order[place - 1], order[place + 1]), chapters[claim.paper]),
        }
        path = app.outdir / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub("|".join(parts), lambda found, parts=parts: parts[found[0]], frame), "utf-8")
        if app.builder.indexer is not None:
            app.builder.indexer.feed(name, name, f"{claim.statement} ({claim.verdict})", _indexed(claim))
    if (indexer := app.builder.indexer) is not None:  # it would forget all pages that are no documents
        forget, pages = indexer.prune, [page(key) for key in claims]
        indexer.prune = lambda documents: forget([*documents, *pages])
    return iter(())


def _frame(app: Sphinx) -> str:
    """A page of the theme with marks where pages differ; an id has three parts, so links to the root are the same."""
    path = app.outdir / f"{_NAME}.html"
    context = {"title": _TITLE, "body": _BODY, "metatags": f'<meta name="description" content="{_DESCRIPTION}" />'}
    path.parent.mkdir(parents=True, exist_ok=True)
    app.builder.handle_page(_NAME, context, "page.html", outfilename=str(path))
    frame = path.read_text("utf-8")
    shutil.rmtree(path.parent.parent)
    return _OTHER_DESCRIPTION.sub("", frame)


def write_files(claims: Sequence[Explained], folder: Path) -> None:
    """Write :data:`FILES`."""
    whole = ClaimsJson(claims=tuple(claims)).model_dump(mode="json")
    (folder / "claims.json").write_text(json.dumps(whole, ensure_ascii=False, allow_nan=False), "utf-8")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ClaimsJson.model_json_schema(mode="serialization"),
    }
    (folder / "claims.schema.json").write_text(json.dumps(schema, indent=1), "utf-8")
    (folder / "claims.csv").write_text(as_csv(whole["claims"]), "utf-8")


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows without what is nested in them: lists are joined, but those of objects are left out."""
    flat = [
        {
            key: " ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in row.items()
            if key not in ("runs", "rule", "would_change")
        }
        | {"records": " ".join(run["id"] for run in row["runs"])}
        for row in rows
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: for_spreadsheet(value) for key, value in row.items()} for row in flat)
    return out.getvalue()


def _add_scoreboard(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Only pages that have a part of it load the scoreboard's style."""
    if 'class="scoreboard' in context.get("body", ""):
        app.add_css_file("scoreboard.css")


def setup(app: Sphinx) -> dict[str, bool]:
    """Pages are rendered when all documents are written."""
    app.connect("html-collect-pages", _pages)
    app.connect("html-page-context", _add_scoreboard)
    app.add_css_file("claims.css")
    app.add_js_file("tables.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
