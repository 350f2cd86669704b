"""The book's Sphinx extension: numbers in prose and tables come from claims and records, never from a keyboard.

- ``{num}`key` ``: one number, formatted, a claim's with a link to its page; an unknown key is a warning, so a strict
  build fails.
- ``{scoreboard}``: every claim with its verdict. ``{answer} paper``: what came out of a paper's claims, at a chapter's
  top. ``{unavailable} paper``: what of a paper is unavailable to us.
- ``{replications} paper``: what others measured with its networks.
- ``{local-runs}``: the runs that this machine made. ``{provenance}``: where the committed records come from.
- ``{error-rates}``: how often the rule of the verdicts says each word, by simulation. ``{reliability}``: what was tried
  and went wrong. ``{agreement}``: trainings with and without our kernels.

Everything is read when the site is built, so a build from changed records must be a full one (``thriftylib.book.build``
sees to that).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import thrifty_tables as tables
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from thrifty_local import local_runs

from thriftylib.errors import ThriftyError
from thriftylib.evidence.claims_files import ClaimsFile, load_claims_files
from thriftylib.evidence.counts import load_counts
from thriftylib.evidence.numbers import lookup
from thriftylib.evidence.records import load_records
from thriftylib.evidence.simulation import load_error_rates
from thriftylib.figures import replications
from thriftylib.paths import claims_dir, local_dir, results_dir

logger = logging.getLogger(__name__)
_UNBROKEN = 24  # characters of a number that no line breaks; a longer one is a text, such as a verdict's reason


class Number(SphinxRole):
    """``{num}`key` ``: the text that :func:`thriftylib.evidence.numbers.lookup` gives."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            text = lookup(self.text)
        except ThriftyError as error:
            logger.warning("%s", error, location=self.get_location(), type="thrifty", subtype="number")
            return [nodes.problematic(self.rawtext, self.rawtext)], []
        number = nodes.inline(self.rawtext, text, classes=["number"] if len(text) <= _UNBROKEN else [])
        kind, name, *_ = self.text.split(":")
        if kind != "claim":
            return [number], []
        root = "../" * self.env.docname.count("/")
        return [nodes.reference("", "", number, refuri=f"{root}claims/{name}.html", internal=True)], []


def _claims(paper: str) -> ClaimsFile:
    files = load_claims_files(claims_dir()).sound()
    if paper not in files:
        raise ThriftyError(f"no claims of {paper!r}; known: {', '.join(files)}")
    return files[paper]


def _scoreboard() -> str:
    records, counts = load_records(results_dir()), load_counts(results_dir())
    return tables.scoreboard(load_claims_files(claims_dir()).sound(), records, counts)


def _local_runs() -> str:
    return local_runs(load_records(Path(os.environ.get("THRIFTY_LOCAL", local_dir())) / "results"))


def _answer(paper: str) -> str:
    return tables.answer(_claims(paper), load_records(results_dir()), load_counts(results_dir()))


TABLES: dict[str, Callable[..., str]] = {
    "scoreboard": _scoreboard,
    "answer": _answer,
    "unavailable": lambda paper: tables.unavailable(_claims(paper).unavailable),
    "replications": lambda paper: replications(_claims(paper).replications).data,
    "local-runs": _local_runs,
    "provenance": lambda: tables.provenance(load_records(results_dir())),
    "error-rates": lambda: tables.error_rates(load_error_rates(results_dir())),
    "agreement": lambda: tables.agreement(results_dir() / "agreement.json"),
    "reliability": lambda: tables.reliability(results_dir() / "reliability.json"),
}
"""What makes the HTML of each directive, from the directive's arguments."""


class FromRecords(SphinxDirective):
    """A directive of :data:`TABLES`; a corrupt claim or record is a warning at its place."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            return [nodes.raw("", TABLES[self.name](*self.arguments), format="html")]
        except (ThriftyError, TypeError) as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location(), type="thrifty", subtype=self.name)
            return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role, the directives and the scoreboard's script."""
    app.add_role("num", Number())
    for name in TABLES:
        app.add_directive(name, FromRecords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
