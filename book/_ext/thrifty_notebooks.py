"""What the site makes of a notebook: code folds once a part, figures are described, and all leads to claims."""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from thrifty_claims import page

from thriftylib.evidence.claims_files import load_claims
from thriftylib.paths import claims_dir

_CSV = re.compile(r'download="([^"]*)\.csv" href="data:text/csv')
_SETUP = "parameters and set-up"
"""What the fold of a notebook's first cells is called."""


def _enrich(app: Sphinx, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    root = "../" * app.env.docname.count("/")
    join_folds(doctree)
    _describe(doctree, path)
    for output in list(doctree.findall(nodes.raw)):
        if name := _CSV.search(output.astext()):
            _finish_figure(output, name[1], f"{root}_sources/{app.env.docname}.ipynb")
    for output in list(doctree.findall(nodes.raw)):
        if "<table" in output.astext():
            output.replace_self(nodes.raw("", _link_statements(output.astext(), root), **output.attributes))
    for image in list(doctree.findall(nodes.image)):
        _link_points(image, Path(app.srcdir) / image["uri"], root)


def join_folds(doctree: nodes.document) -> None:
    """A cell of code that shows nothing folds with the next one, where nothing stands between them."""
    for cell in list(doctree.findall(_is_cell)):
        after = cell.next_node(siblings=True, descend=False)
        if len(cell) == 1 and _is_cell(after):
            after[0].insert(0, cell[0].children)
            is_setup = "tag_parameters" in cell["classes"] or cell.get("prompt_show") == _SETUP
            after.update_basic_atts({"classes": [], "ids": cell["ids"]})
            if is_setup:
                after["prompt_show"] = after["prompt_hide"] = _SETUP
            cell.parent.remove(cell)


def _is_cell(node: nodes.Node | None) -> bool:
    return isinstance(node, nodes.container) and "tag_hide-input" in node["classes"]


def _describe(doctree: nodes.document, path: Path) -> None:
    """Give each figure its output's description, of which myst-nb takes the size alone."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    words = {
        hashlib.sha256(binascii.a2b_base64(output["data"]["image/png"])).hexdigest(): alt
        for output in outputs
        if (alt := output["metadata"].get("image/png", {}).get("alt"))
    }
    for image in doctree.findall(nodes.image):
        if alt := words.get(Path(image["uri"]).stem):
            image["alt"] = alt


def _finish_figure(output: nodes.raw, name: str, notebook: str) -> None:
    """Beside a figure's data: a download of the notebook, and the figure's own address.

    One that holds nothing of ours folds under what it would show.
    """
    more = f' · <a download href="{notebook}">This notebook</a> · <a href="#figure-{name}">Link to this figure</a>'
    changed = nodes.raw("", output.astext() + more, **output.attributes)
    output.replace_self(changed)
    end = changed
    while not any(end.parent.findall(nodes.image)):
        end = end.parent
    outputs, last = end.parent, end.parent.index(end)
    start = max(at for at, node in enumerate(outputs[:last]) if any(node.findall(nodes.image)))
    before = f'<span id="figure-{name}"></span>'
    if 'class="still-to-run"' in changed.astext():
        alt = next(outputs[start].findall(nodes.image))["alt"]
        before += f'<details class="still-to-run"><summary>Still to run: {escape(alt)}</summary>'
        outputs.insert(last + 1, nodes.raw("", "</details>", format="html"))
    outputs.insert(start, nodes.raw("", before, format="html"))


@cache
def _statements() -> dict[str, str]:
    """The claim of each statement, as HTML; of a statement that two claims share none."""
    said: dict[str, list[str]] = {}
    for key, claim in _claims().items():
        said.setdefault(escape(claim), []).append(key)
    return {text: keys[0] for text, keys in said.items() if len(keys) == 1}


@cache
def _claims() -> dict[str, str]:
    """The statement of each claim, by its id."""
    return {key: claim.statement for key, claim in load_claims(claims_dir()).sound().items()}


def _link_statements(table: str, root: str) -> str:
    """The table, with a link in each cell that is a claim's statement."""
    pages = _statements()

    def linked(cell: re.Match[str]) -> str:
        key = pages.get(cell[2])
        return f'{cell[1]}<a href="{root}{page(key)}.html">{cell[2]}</a></td>' if key else cell[0]

    return re.sub("(<td[^>]*>)([^<]+)</td>", linked, table)


def _link_points(image: nodes.image, file: Path, root: str) -> None:
    """Lay a link over each point of a figure that shows or answers a claim (``figures.show`` says where they are).

    The tables below a figure lead to the same claims, so keys and screen readers pass over its points.
    """
    if file.suffix != ".png" or not file.is_file():
        return
    with Image.open(file) as picture:
        points = json.loads(picture.info.get("Points", "[]"))
    claims = _claims()
    links = [
        f'<a href="{root}{page(key)}.html" tabindex="-1" title="{escape(claims[key])}" '
        f'style="left:{left}%;top:{top}%"></a>'
        for left, top, key in points
        if key in claims
    ]
    if links:
        over = nodes.raw("", f'<span aria-hidden="true">{"".join(links)}</span>', format="html")
        inner = nodes.container("", image.deepcopy(), over, classes=["linked-points"])
        image.replace_self(nodes.container("", inner, classes=["wide-figure"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to what is read."""
    app.connect("doctree-read", _enrich)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
