"""What the site is made of, without a build: small styles and fonts, words of the search, heads of pages, citations."""

import base64
import re
import sys
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils import new_document
from fontTools.ttLib import TTFont
from matplotlib import get_data_path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "book" / "_ext"))

import thrifty_assets  # noqa: E402 (not packages: Sphinx finds them by path)
import thrifty_cite  # noqa: E402
import thrifty_notebooks  # noqa: E402
import thrifty_site  # noqa: E402

CSS = """@import "other.css";a{color:red}.used,.not-used>b{x:1}.not-used{x:2}#used:hover::before{content:"}{,"}
@media (min-width:1px){.used{x:3}.not-used{x:4}}@media print{.not-used{x:5}}@keyframes turn{from{x:6}to{x:7}}
p:not(.not-used){x:8}[data-x=".not-used"]{x:9}.used\\:half{x:10}:is(.used,.other){x:11}"""


def test_rules_that_may_apply_are_kept_and_no_others():
    kept = thrifty_assets.used_rules(CSS.replace("\n", ""), {"used", "used:half", "other"})
    assert [int(number) for number in re.findall(r"x:(\d+)", kept)] == [1, 3, 6, 7, 8, 9, 10, 11]
    assert '@import "other.css";' in kept
    assert 'content:"}{,"' in kept
    assert ".used{x:1}" in kept  # of a rule's selectors those that may apply
    assert "print" not in kept


def test_the_icon_font_holds_the_icons_that_pages_use(tmp_path):
    css = '@font-face{src:url(../vendor/fontawesome/x.woff2)}.fa-old:before,.fa-new:before{content:"A"}'
    css = css.replace('"A"', '"\\41"') + '.fa-other:before{content:"\\42"}'
    made = thrifty_assets.with_icons(css, Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), {"fa-new", "before"})
    assert "x.woff2" not in made
    content = re.search(r"url\(data:font/woff;base64,([^)]*)\)", made)[1]
    (tmp_path / "font").write_bytes(base64.b64decode(content))
    assert {ord("A")} == set(TTFont(tmp_path / "font").getBestCmap())


def test_mathjax_is_one_script_with_its_fonts_and_asks_for_no_other_file():
    script = thrifty_assets.mathjax()
    assert script.count("data:font/woff;base64,") == len(thrifty_assets._FONTS)
    assert len(script) < 1.2e6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ThriftyNet reaches 91.01 %", ["ThriftyNet", "reaches", "91.01"]),
        ("40,260 parameters, 10 classes", ["n40260", "parameters", "n10", "classes"]),
        ("3x3 mb1 1,2 1.5,", ["3x3", "mb1", "n1", "n2", "1.5"]),
    ],
)
def test_a_number_is_one_word_of_the_search(text, words):
    assert thrifty_site.SearchWithNumbers({}).split(text) == words


@pytest.mark.parametrize(
    ("page", "description"),
    [
        (
            "Li et al. write that it holds here and elsewhere too. More.",
            "Li et al. write that it holds here and elsewhere too.",
        ),
        ("- An item of a list, long enough to be one.\n\nA paragraph after the list.", "A paragraph after the list."),
        ("", ""),
    ],
)  # fmt: skip
def test_a_page_is_described_by_its_first_sentence(page, description):
    assert thrifty_site.first_sentence(publish_doctree(f"Title\n=====\n\n{page}")) == description


def test_a_long_description_is_cut_between_words():
    text = thrifty_site.first_sentence(publish_doctree("word " * 100))
    assert len(text) < 210
    assert text.endswith("word …")


PAGE = """<head><meta name="viewport" content="a"/><meta name="viewport" content="b" />
<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
<script>window.MathJax = {"options": {}}</script>
<script defer="defer" src="../_static/mathjax/mathjax.js?v=1"></script>
<script src="../_static/searchtools.js"></script><script src="../searchindex.js"></script></head>
<div id="jb-print-docs-body" class="onlyprint">
  <h1>Twice</h1></div><h1>Twice</h1><img alt="a" src="../_images/a.png">%s"""


def test_a_page_loads_what_it_uses():
    plain = thrifty_site.finish_page(PAGE % "", is_search=False)
    assert re.findall(r"<script", plain) == []
    assert (plain.count("<h1>"), plain.count("viewport"), plain.count('loading="lazy"')) == (1, 1, 1)
    formula = thrifty_site.finish_page(PAGE % '<span class="math notranslate">x</span>', is_search=False)
    assert formula.count("<script") == 2
    assert thrifty_site.finish_page(PAGE % "", is_search=True).count("<script") == 2
    assert thrifty_site.finish_page(formula, is_search=False) == formula


def test_entries_are_those_of_the_bibliography_and_of_the_citation_file():
    text = (ROOT / "book" / "references.bib").read_text("utf-8")
    entry = thrifty_cite.entry("coiffier2021thriftynets", text)
    assert entry in text
    assert (entry[:9], entry[-2:]) == ("@article{", "\n}")
    book = thrifty_cite.book_entry(ROOT / "CITATION.cff", "2026")
    assert "title   = {{thriftylib: papers on parameter-thrifty CNNs, put to the test}}," in book
    with pytest.raises(LookupError, match="no entry 'nobody'"):
        thrifty_cite.entry("nobody", text)


def cell(code, tags=("hide-input",), text=""):
    """A cell of a notebook as it is read; its output is a paragraph."""
    parts = [nodes.container("", nodes.literal_block(code, code))]
    parts += [nodes.container("", nodes.paragraph(text, text))] * bool(text)
    return nodes.container("", *parts, classes=["cell", *(f"tag_{tag}" for tag in tags)])


def test_code_that_shows_nothing_folds_with_the_next():
    document = new_document("notebook")
    document += [cell("a = 1", tags=("parameters", "hide-input")), cell("b = a"), cell("show(b)", text="one")]
    document += [cell("c = 2"), nodes.paragraph("", "between"), cell("show(c)", text="two"), cell("d = 3")]
    thrifty_notebooks.join_folds(document)
    cells = [node for node in document if isinstance(node, nodes.container)]
    assert [[code.astext() for code in each[0]] for each in cells] == [
        ["a = 1", "b = a", "show(b)"], ["c = 2"], ["show(c)"], ["d = 3"]
    ]  # fmt: skip
    assert [each.get("prompt_show") for each in cells] == ["parameters and set-up", None, None, None]
    assert [len(each) for each in cells] == [2, 1, 2, 1]
