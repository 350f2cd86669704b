"""Start a new paper: its module, experiments, claims, notebook and page from a skeleton that runs."""

from __future__ import annotations

import keyword
import os
import re
import subprocess
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import yaml

from thriftylib import papers
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.options import NetworkOptions, find
from thriftylib.paths import project_root, write_atomically

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 30  # characters of a name: the skeleton's lines stay within 120 columns
_EXAMPLE = "example_paper"
TARGETS = {
    "paper.py": "thriftylib/papers/{}.py",
    "experiments.py": "thriftylib/experiments/{}.py",
    "claims.yaml": "data/claims/{}.yaml",
    "notebook.ipynb": "notebooks/{}.ipynb",
    "page.md": "book/{}.md",
}
"""Where each file of the skeleton goes, by the paper's name."""
TOC = "book/_toc.yml"


def new_paper(name: str) -> list[Path]:
    """Write a new paper's files and its lines in the table of contents, or nothing at all; execute its notebook.

    Returns:
        What was written, relative to the checkout; the table of contents comes last.

    Raises:
        ThriftyError: the name cannot be used, or this is not the checkout that the running package belongs to.
    """
    root = _checkout()
    _check_name(name)
    content = {root / target.format(name): filled(part, name) for part, target in TARGETS.items()}
    if taken := [path for path in content if path.exists()]:
        raise ThriftyError(f"paper {name!r}: {taken[0].relative_to(root)} exists; choose another name")
    toc = root / TOC
    before = toc.read_text("utf-8")
    content[toc] = _with_paper(before, name)
    try:
        for path, text in content.items():
            write_atomically(path, text.encode())
        _execute(root / TARGETS["notebook.ipynb"].format(name), root)
    except BaseException:
        write_atomically(toc, before.encode())
        for path in content.keys() - {toc}:
            path.unlink(missing_ok=True)
        raise
    return [path.relative_to(root) for path in content]


def _checkout() -> Path:
    """The checkout around the working directory, which must be the one that this package is imported from."""
    root, package = project_root(), Path(__file__).resolve().parents[2]
    if root not in (Path.cwd(), *Path.cwd().parents):
        raise ThriftyError(f"{Path.cwd()}: not in a checkout of the project; cd into your clone first")
    if root != package:
        raise ThriftyError(f"{root}: thrifty runs the package of {package}; pip install -e . in this checkout first")
    return root


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise ThriftyError(
            f"paper {name!r}: must be a module's name of at most {_LONGEST} small letters, digits and single _"
        )
    for other in papers.names():
        if f"{name}_".startswith(f"{other}_") or f"{other}_".startswith(f"{name}_"):
            raise ThriftyError(f"paper {name!r}: would be taken for a part of {other!r}, or that for a part of it")
    with suppress(SpecError):
        kind = find(NetworkOptions, name.replace("_", "-"))
        raise ThriftyError(f"paper {name!r}: {kind.__module__} has a network of this name; choose another")


def _spellings(name: str) -> tuple[str, str, str]:
    """Of a module, of a network or experiment, of a class."""
    return name, name.replace("_", "-"), "".join(map(str.capitalize, name.split("_")))


def filled(part: str, name: str) -> str:
    """A file of the skeleton with a paper's name in place of its example's, in each of the three ways to write it."""
    text = (files("thriftylib.authoring") / "skeleton" / part).read_text("utf-8")
    for example, own in zip(_spellings(_EXAMPLE), _spellings(name), strict=True):
        text = text.replace(example, own)
    return text


def _with_paper(toc: str, name: str) -> str:
    """The table of contents with the paper's page and notebook after the last paper's; other lines stay as they are."""
    chapters = next(part for part in yaml.safe_load(toc)["parts"] if part["caption"] == "Papers")["chapters"]
    last = [chapter for chapter in chapters if "sections" in chapter][-1]["sections"][-1]["file"]
    lines = f"      - file: book/{name}\n        sections:\n          - file: notebooks/{name}\n"
    return toc.replace(f"- file: {last}\n", f"- file: {last}\n{lines}", 1)


def _execute(path: Path, root: Path) -> None:
    """Execute a notebook in place, where Jupyter starts it, with this checkout's package."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from thriftylib.running.notebooks import bare_kernels

    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, kernel_name="python3", record_timing=False, resources=folder)
    try:
        with bare_kernels():
            paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
            client.execute(env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        raise ThriftyError(f"the skeleton's notebook fails: {error.ename}: {error.evalue}") from None
    write_atomically(path, (nbformat.writes(notebook) + "\n").encode())
