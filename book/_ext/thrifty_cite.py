"""How to cite: each paper's chapter ends with the paper and this book as BibTeX; ``{cite-the-book}``: the book alone.

A chapter is a page whose name has a claims file, and its paper the first that it cites. The entries are those of
``references.bib`` and of ``CITATION.cff``; none is typed twice.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from thriftylib.evidence.claims_files import load_claims_files
from thriftylib.paths import claims_dir, project_root

logger = logging.getLogger(__name__)


def entry(key: str, text: str) -> str:
    """The entry of a BibTeX file's text, as it is written there.

    Raises:
        LookupError: there is none of that key.
    """
    found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"no entry {key!r} in the bibliography")
    return found[0]


def book_entry(citation: Path, year: str) -> str:
    """The book's own entry, from its ``CITATION.cff``."""
    facts = yaml.safe_load(citation.read_text("utf-8"))
    fields = {
        "author": " and ".join(f"{{{author['name']}}}" for author in facts["authors"]),
        "title": f"{{{facts['title']}}}",
        "year": year,
        "version": str(facts["version"]),
        "note": "Jupyter Book with a record of every run",
    }
    lines = [f"  {name:<7} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["@software{thriftylib,", *lines, "}"])


class CiteTheBook(SphinxDirective):
    """The book's entry as a block."""

    def run(self) -> list[nodes.Node]:
        return [_block(book_entry(project_root() / "CITATION.cff", self.config.copyright))]


def _block(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="bibtex")


def _add(app: Sphinx, doctree: nodes.document) -> None:
    """End a chapter with a folded block that cites its paper and the book."""
    folder, _, paper = app.env.docname.rpartition("/")
    if folder != "book" or paper not in load_claims_files(claims_dir()):
        return
    cited = [node["reftarget"] for node in doctree.findall(pending_xref) if node.get("refdomain") == "cite"]
    bibliography = "\n".join(Path(app.srcdir, name).read_text("utf-8") for name in app.config.bibtex_bibfiles)
    try:
        texts = [entry(key, bibliography) for key in cited[:1]]  # a chapter whose paper is in no bibliography: none
    except LookupError as error:
        logger.warning("no entry to cite: %s", error, location=app.env.docname, type="thrifty")
        return
    texts.append(book_entry(project_root() / "CITATION.cff", app.config.copyright))
    chapter = next(doctree.findall(nodes.section))
    what = "the paper and this book" if cited else "this book"
    start = f'<details class="cite"><summary>Cite {what}</summary>'
    chapter += [
        nodes.raw("", start, format="html"),
        _block("\n\n".join(texts)),
        nodes.raw("", "</details>", format="html"),
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the blocks."""
    app.add_directive("cite-the-book", CiteTheBook)
    app.connect("doctree-read", _add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
