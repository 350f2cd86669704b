"""The site around the pages: what they load, what search engines and the search field know of them, where they may be.

- Pages load no network, no more of the theme than they use (``thrifty_assets``), and MathJax where there is a formula.
- Each has a description, its first sentence, and a canonical address, relative: a copy may be anywhere.
- Search knows numbers, ``74.61`` or ``40,260``, and puts chapters before the reference.
- ``.nojekyll`` lets GitHub Pages serve the folders with an underscore.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import thrifty_assets as assets
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

_SENTENCE = re.compile(r".{50,}?[.?!](?=\s|$)")  # so long that "et al." ends none
_LONGEST = 200  # characters of a description; search engines cut later ones
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_OTHER_SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>')
_ICONS_AS_SCRIPT = re.compile(r'\s*<script defer src="[^"]*fontawesome\.js[^"]*"></script>')
_MATHJAX = re.compile(r'\s*<script[^>]*(?:>window\.MathJax =|src="[^"]*mathjax\.js)[^<]*</script>')
_SECOND_VIEWPORT = re.compile(r'(<meta name="viewport"[^>]*>)(.*?)<meta name="viewport"[^>]*>', re.DOTALL)
_PRINTED_TITLE = re.compile(r'(<div id="jb-print-docs-body"[^>]*>\s*)<h1>(.*?)</h1>', re.DOTALL)
_FOLDED_PAGES = re.compile(
    r'(<a class="(?:current )?reference internal" href="[^"]*">\s*([^<]*?)\s*</a><details[^>]*>)<summary>'
)
_LAYOUT_TABLE = re.compile(r'<table (?=[^>]*class="indextable)')
_THEME = 'localStorage.getItem("theme") || "auto"'
_THEME_AT_ONCE = (
    """localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")"""
)
_WRONG_LABEL = ' aria-label="Toggle hidden content"'  # of a summary that says itself what it folds
_IMAGE = re.compile(r"<img (?![^>]*\bloading=)(?=[^>]*_images/)")


class SearchWithNumbers(SearchEnglish):
    """English, where a number is one word: as a whole, without the commas of its thousands.

    Sphinx takes 74.61 for two words and ignores a query that is digits alone, so whole numbers get a letter before.
    """

    _word_re = re.compile(r"(?<!\w)\d+(?:,\d{3})*(?:\.\d+)?(?!\w)|\w+")
    js_splitter_code = r"""
var splitQuery = (query) => {
  const words = query.match(/(?<![\p{L}\p{N}_])\d+(?:,\d{3})*(?:\.\d+)?(?![\p{L}\p{N}_])|[\p{L}\p{N}_]+/gu) || [];
  const plain = (word) => word.replace(/,/g, "").replace(/^\d+$/, "n$&");
  return words.map((word) => (/^\d[\d,]*(\.\d+)?$/.test(word) ? plain(word) : word));
};
"""

    def split(self, input: str) -> list[str]:
        """The words of a text, in order."""
        return [_as_word(word) for word in self._word_re.findall(input)]


def _as_word(word: str) -> str:
    if not _NUMBER.fullmatch(word):
        return word
    plain = word.replace(",", "")
    return f"n{plain}" if plain.isdecimal() else plain


def _describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add the page's description and its own address to its head."""
    text = first_sentence(doctree) if doctree else ""
    title = re.sub(r"<[^>]*>", "", context.get("title") or "")
    text = escape(text or ": ".join(filter(None, (title, app.config.html_title))), quote=True)
    context["metatags"] = context.get("metatags", "") + (
        f'\n<meta name="description" content="{text}" />\n<link rel="canonical" href="{Path(page).name}.html" />'
    )


def first_sentence(doctree: nodes.document) -> str:
    """The first sentence of a page's prose; of a long one what fits. Empty where there is none."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 20 and not isinstance(paragraph.parent, nodes.entry | nodes.list_item):
            sentence = _SENTENCE.match(text)
            text = sentence[0] if sentence else text
            return text if len(text) <= _LONGEST else text[:_LONGEST].rsplit(" ", 1)[0] + " …"
    return ""


def finish_page(text: str, *, is_search: bool) -> str:
    """A page of the theme without what it loads in vain and says twice; pictures load when they are scrolled to.

    What scrolls can be reached with keys, and the index's tables, which hold no data, are said to be layout.
    """
    text = _ICONS_AS_SCRIPT.sub("", text)
    text = text if is_search else _OTHER_SEARCH.sub("", text)
    text = text if 'class="math ' in text else _MATHJAX.sub("", text)
    text = _SECOND_VIEWPORT.sub(r"\1\2", text)
    text = _PRINTED_TITLE.sub(r'\1<p class="h1">\2</p>', text)
    text = text.replace(
        '<div class="math ', '<div tabindex="0" class="math '
    )  # a wide one scrolls, so keys must reach it
    text = text.replace(_THEME, _THEME_AT_ONCE)  # else the page is drawn once without colours
    text = _FOLDED_PAGES.sub(r'\1<summary aria-label="Pages of \2">', text)
    text = text.replace(_WRONG_LABEL, "")
    text = _LAYOUT_TABLE.sub('<table role="presentation" ', text)
    return _IMAGE.sub('<img loading="lazy" ', text)


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    html = Path(app.outdir)
    (html / ".nojekyll").touch()
    script = html / "_static" / assets.MATHJAX
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(assets.mathjax(), "utf-8")
    for path in html.rglob("*.html"):
        if "_static" not in path.parts:
            path.write_text(finish_page(path.read_text("utf-8"), is_search=path.name == "search.html"), "utf-8")
    (html / "index.html").write_text(_redirect(app.config.root_doc, app.config.html_title), "utf-8")
    assets.slim(html)


def _redirect(start: str, title: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="refresh" content="0; url={start}.html" />
<link rel="canonical" href="{start}.html" />
<title>{escape(title)}</title>
</head>
<body><p><a href="{start}.html">{escape(title)}</a></p></body>
</html>
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect last: what others write is what is made small."""
    app.add_search_language(SearchWithNumbers)
    app.connect("html-page-context", _describe)
    app.connect("build-finished", _finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
