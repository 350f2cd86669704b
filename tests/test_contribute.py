"""The page on adding a paper is followed to the letter, in a checkout of its own: its changes, then its commands."""

from __future__ import annotations

import re
import shlex

import nbformat
import pytest
import yaml
from checkout import ROOT, command, copy_checkout, files

PAGE = (ROOT / "book" / "contribute.md").read_text("utf-8")
STEPS = re.compile(r"^```(?:console|\{code-block\} diff\n:caption: (?P<file>\S+))\n(?P<text>.*?)^```$", re.M | re.S)
PAPER = "tiny_loop"


def change(text, lines):
    """``text`` after each run of removed lines has given way to the added lines that follow it."""
    for removed, added in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", lines, re.M):
        old, new = ("".join(line[1:] + "\n" for line in part.splitlines()) for part in (removed, added))
        assert f"\n{text}\n".count(f"\n{old}") == 1, old
        text = f"\n{text}\n".replace(f"\n{old}", f"\n{new}")[1:-1]
    return text


def apply(path, lines):
    """Change a file as a block of the page says; of a notebook the sources of its cells."""
    if path.suffix != ".ipynb":
        path.write_text(change(path.read_text("utf-8"), lines), "utf-8")
        return
    notebook = nbformat.read(path, as_version=4)
    mark = "\n<!-- cell -->\n"
    sources = change(mark.join(cell.source for cell in notebook.cells), lines).split(mark)
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    nbformat.write(notebook, path)


def leave_out_other_pages(root):
    """The site of this paper alone: what its page links to becomes an empty page, the rest goes."""
    page = (root / "book" / f"{PAPER}.md").read_text("utf-8")
    linked = {f"book/{name}" for name in re.findall(r"\]\((\w+)\.md", page)}
    toc = root / "book" / "_toc.yml"
    own = {f"book/{PAPER}", f"notebooks/{PAPER}"}
    assert own <= set(re.findall(r"file: (\S+)", toc.read_text("utf-8")))
    for path in (*root.glob("book/**/*.md"), *root.glob("notebooks/*.ipynb")):
        if (name := str(path.relative_to(root).with_suffix(""))) in linked:
            path.write_text("# Elsewhere\n", "utf-8")
        elif name not in own:
            path.unlink()
    chapters = [{"file": name} for name in sorted({*linked, *own} - {f"book/{PAPER}"})]
    toc.write_text(yaml.safe_dump({"format": "jb-book", "root": f"book/{PAPER}", "chapters": chapters}), "utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """What each command of the page printed, and the checkout that it ran in with its files before."""
    root = copy_checkout(tmp_path_factory.mktemp("contribute"))
    before, printed = files(root), {}
    for step in STEPS.finditer(PAGE):
        if step["file"]:
            apply(root / step["file"], step["text"])
            continue
        for line in re.findall(r"^\$ (.*)", step["text"], re.M):
            if line == "thrifty book":
                after = files(root)
                leave_out_other_pages(root)
            done = command(root, *shlex.split(line))
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed[line] = done.stdout + done.stderr
    return root, before, after, printed


def test_the_page_can_be_followed(followed):
    root, _, _, printed = followed
    assert list(printed)[0] == f"thrifty new {PAPER}"
    assert printed[f"thrifty check {PAPER} --smoke"].strip() == f"{PAPER}: nothing to mend"
    assert "1 not run" in printed[f"thrifty status --paper {PAPER}"]
    site = root / "book" / "_build" / "html"
    page = (site / "book" / f"{PAPER}.html").read_text("utf-8")
    assert "Everything is made up here." in page
    assert "of the <span" in page or "of the " in page
    notebook = (site / "notebooks" / f"{PAPER}.html").read_text("utf-8")
    assert "76.5" in notebook
    assert "One kernel used 8 times reaches 76.5 % on CIFAR-10." in notebook


def test_nothing_but_the_papers_own_files_changes(followed):
    _, before, after, printed = followed
    kept = {name for name in after if not name.startswith("local/")}
    changed = {name for name in kept if before.get(name) != after[name]}
    assert changed == {
        f"thriftylib/papers/{PAPER}.py",
        f"thriftylib/experiments/{PAPER}.py",
        f"data/claims/{PAPER}.yaml",
        f"notebooks/{PAPER}.ipynb",
        f"book/{PAPER}.md",
        "book/_toc.yml",
    }
    named = set(re.findall(r"^- `([\w./]+)`:", PAGE, re.M))
    assert changed == named, "the page's list of files"
