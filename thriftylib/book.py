"""Build the site strictly, and check the links of what was built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from thriftylib.errors import BuildError, ThriftyError
from thriftylib.paths import check_writable, project_root

_TAIL = 40  # lines of the builder's output that an error shows
_IN_SCRIPT = re.compile(r"""["'](https?://[^"']+\.(?:m?js|css|json|woff2?)(?:[?#][^"']*)?)["']""")
_NOISE = re.compile(r"\x1b\[[0-9;]*m")
_NOT_FETCHED = ("author", "canonical", "index", "next", "prev", "search")  # relations of <link> that only point


def build(output: Path | None = None, *, local: Path | None = None) -> Path:
    """Render the book with every warning an error and return the folder of the pages, ``output/_build/html``.

    Always a full build: pages depend on records, which Sphinx does not watch. Nothing is executed.

    Args:
        output: Where ``_build`` goes; by default the ``book`` folder.
        local: Whose ``results`` the page of this machine's own runs shows; by default the checkout's ``local`` folder.

    Raises:
        ThriftyError: the build failed; holds the warnings, else the last lines.
    """
    root = project_root()
    output = (output or root / "book").resolve()
    check_writable(output / "_build" / "html" / "index.html")
    # The builder's own warnings, not those of Python, are errors; and its lines are read as UTF-8.
    environment = os.environ | {"PYTHONWARNINGS": "", "PYTHONUTF8": "1"}
    environment |= {"THRIFTY_LOCAL": str(local.resolve())} if local else {}
    command = [
        *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)),
        *("--config", str(root / "_config.yml"), "--toc", str(root / "book" / "_toc.yml")),
        *("--path-output", str(output), "--all", "-W", "-n", "--keep-going"),
    ]
    began = time.time()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = _NOISE.sub("", done.stdout + done.stderr).splitlines()
        warnings = [line for line in lines if "WARNING" in line or "ERROR" in line]
        shown = "\n".join(warnings or lines[-_TAIL:]).replace(f"{root}/", "")
        raise BuildError(f"the book was not built (exit code {done.returncode}):\n{shown}")
    html = output / "_build" / "html"
    for page in html.rglob("*.html"):
        if page.stat().st_mtime < began - 2 and "_static" not in page.parts:  # its source is there no more
            page.unlink()
    return html


class _Page(HTMLParser):
    """The anchors of a page, what a reader may follow and what a browser fetches by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(path.read_text("utf-8"))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.loads += _IN_SCRIPT.findall(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value is not None}
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if "href" in values:
            fetched = tag == "link" and values.get("rel") not in _NOT_FETCHED
            (self.loads if fetched else self.links).append(values["href"])
        self.loads += [values[key] for key in ("src", "poster", "data") if key in values and tag != "param"]
        self.loads += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]


def check_links(html: Path) -> list[str]:
    """Every broken thing of a built site: links and anchors that lead nowhere, and files that come from the network.

    Links to other sites are not followed. An empty list: all is well.
    """
    pages = {path.resolve(): _Page(path) for path in html.rglob("*.html") if "_static" not in path.parts}
    if not pages:
        raise ThriftyError(f"{html}: holds no pages; build the book first")
    faults = set()
    for path, page in pages.items():
        name = path.relative_to(html.resolve())
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and (parts.scheme in ("http", "https") or address.startswith("//")):
                    faults.add(f"{name}: loads {address} from the network")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                faults.add(f"{name}: {address} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                faults.add(f"{name}: {address} names an anchor that is not there")
    return sorted(faults)
