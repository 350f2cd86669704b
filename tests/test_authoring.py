"""A new paper starts from a skeleton that runs, and a check names what is wrong in a paper's files, and where."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import nbformat
import pytest
from checkout import command, copy_checkout, files

from thriftylib.authoring import check as checking
from thriftylib.authoring import new
from thriftylib.authoring.check import check, check_smoke, paper_names
from thriftylib.errors import ThriftyError
from thriftylib.experiments import experiment

PAPER = "two_words"


@pytest.mark.parametrize("name", paper_names())
def test_every_paper_is_whole(name):
    assert [str(finding) for finding in check(name)] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout, its files as they were, and what thrifty new wrote into it."""
    root = copy_checkout(tmp_path_factory.mktemp("authoring"))
    before = files(root)
    done = command(root, "thrifty", "new", PAPER)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(root=root, before=before, written=done.stdout.split())


def test_a_new_paper_is_four_files_a_page_and_its_lines_in_the_contents(checkout):
    after = files(checkout.root)
    changed = {name for name, content in after.items() if checkout.before.get(name) != content}
    assert changed == set(checkout.written) == {target.format(PAPER) for target in new.TARGETS.values()} | {new.TOC}
    toc = after[new.TOC].decode().splitlines()
    lines = ["      - file: book/two_words", "        sections:", "          - file: notebooks/two_words"]
    start = toc.index(lines[0])
    assert toc[start : start + 3] == lines
    assert toc[:start] + toc[start + 3 :] == checkout.before[new.TOC].decode().splitlines()


def test_what_is_left_of_a_new_paper_is_to_fill_it_in(checkout):
    done = command(checkout.root, "thrifty", "check", PAPER, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert {finding["text"].split(":")[0] for finding in found} == {"left to fill in"}
    for finding in found:
        assert "TODO" in (checkout.root / finding["file"]).read_text("utf-8").splitlines()[finding["line"] - 1]
    assert {finding["file"] for finding in found} == {target.format(PAPER) for target in new.TARGETS.values()}


@pytest.mark.parametrize("name", ["ab", "a_name_of_thirty_letters_or_so"])
def test_the_skeleton_has_the_style_of_the_code_whatever_the_name(name, checkout):
    written = {checkout.root / target.format(name): new.filled(part, name) for part, target in new.TARGETS.items()}
    for path, text in written.items():
        path.write_text(text, "utf-8")
    try:
        for words in (["check"], ["format", "--check"]):
            code = [str(path) for path in written if path.suffix in (".py", ".ipynb")]
            done = command(checkout.root, "ruff", *words, "--no-cache", *code)
            assert done.returncode == 0, done.stdout
    finally:
        for path in written:
            path.unlink()


@pytest.fixture
def bare(tmp_path, monkeypatch, checkout):
    """A folder that is taken for the checkout and holds its table of contents, with what is written into it."""
    (tmp_path / "book").mkdir()
    (tmp_path / new.TOC).write_bytes(checkout.before[new.TOC])
    monkeypatch.setattr(new, "_checkout", lambda: tmp_path)
    return tmp_path


def test_what_fails_leaves_nothing_behind(bare, monkeypatch):
    before = files(bare)

    def fail(path, root):
        assert path.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(new, "_execute", fail)
    with pytest.raises(KeyboardInterrupt):
        new.new_paper(PAPER)
    assert files(bare) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Two", "must be a module's name"),
        ("two__words", "must be a module's name"),
        ("2words", "must be a module's name"),
        ("class", "must be a module's name"),
        ("a" * 31, "must be a module's name"),
        ("../up", "must be a module's name"),
        ("dacnn", "taken for a part of 'dacnn'"),
        ("dacnn_again", "taken for a part of 'dacnn'"),
        ("vgg16_bn", "has a network of this name"),
        ("taken", "book/taken.md exists"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(name, message, bare):
    (bare / "book" / "taken.md").touch()
    before = files(bare)
    with pytest.raises(ThriftyError) as caught:
        new.new_paper(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(bare) == before


def test_a_new_paper_is_written_inside_its_own_checkout_alone(tmp_path, checkout, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThriftyError, match="not in a checkout"):
        new.new_paper(PAPER)
    monkeypatch.chdir(checkout.root)
    with pytest.raises(ThriftyError, match=r"pip install -e \. in this checkout first"):
        new.new_paper("another")


CLAIMS = {
    "answered-by-nothing": ("options: {filters: 32, depth: 3}", "in the nearest depth is 2 and not 3"),
    "option": ("options: {filtres: 32}", "unknown key 'filtres'; did you mean 'filters'?"),
    "value": ("options: {filters: many}", "filters = 'many': should be a valid integer"),
    "number": ("options: {shared: 1}", "shared = 1: should be a valid boolean"),
    "network": ("network: two-wrds", "unknown network 'two-wrds'; did you mean 'two-words'?"),
    "dataset": ("dataset: cifar11", "'cifar11'"),
    "recipe": ("recipes: {two-wrds: 100}", "unknown recipe 'two-wrds'; did you mean 'two-words'?"),
    "epochs": ("recipes: {two-words: 99}", "recipe two-words has 100 epochs, not 99"),
    "method": ("method: mended", "unknown method 'mended'"),
    "experiment": (
        "experiment: two-words-dept",
        "unknown experiment 'two-words-dept'; did you mean",
    ),
    "count": ("quantity: parameters", "is not counted in data/results/counts.json as it is now"),
}


def claims(text):
    """The claims file with a claim for each of CLAIMS, which changes one line of the skeleton's own."""
    start, end = text.index("      - id: "), text.index("        # not_testable")
    own = text[start:end]
    added = ""
    for name, (line, _) in CLAIMS.items():
        key = line.split(":")[0]
        claim = re.sub(r"id: \S+", f"id: {name}", own, count=1).replace("{depth}", "some")
        if re.search(rf"(?m)^ +{key}: ", claim):
            claim = re.sub(rf"(?m)^( +){key}: .*", rf"\1{line}", claim)
        elif key == "method":
            claim += f"          {line}\n"
        else:
            claim += f"        {line}\n"
        if name == "count":
            claim += '        unit: ""\n        statistic: count\n'
        added += claim
    return text[:end] + added + text[end:]


def test_the_check_names_what_is_wrong_and_where(checkout, tmp_path):
    """Many mistakes at once: each is one finding, in its own line."""
    for name, content in files(checkout.root).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def edit(part, *changes):
        path = tmp_path / (new.TARGETS[part].format(PAPER) if part in new.TARGETS else part)
        text = path.read_text("utf-8").replace("TODO", "done")
        for before, after in changes:
            assert before in text, before
            text = text.replace(before, after, 1)
        path.write_text(text, "utf-8")

    edit("claims.yaml")
    path = tmp_path / new.TARGETS["claims.yaml"].format(PAPER)
    path.write_text(claims(path.read_text("utf-8")), "utf-8")
    edit("paper.py", ("arXiv", "paper"), ("self.filters, classes),", "self.filters, classes, bias=False),"))
    edit("experiments.py", ("epochs=2,", "epochs=9,"), ('"digits", 8, (1, 2)', '"digits", 8, (1, 1)'))
    edit("page.md")
    edit(new.TOC, ("- file: book/two_words\n", "- file: book/two_word\n"))
    edit(
        "notebook.ipynb",
        ('preset: str = \\"recorded\\"', 'preset: str = \\"smoke\\"'),
        ('depths: str = \\"\\"', "depths = 3"),
        ('"execution_count": 1', '"execution_count": 7'),
        ("# What this", "# What /home/somebody/"),
    )
    done = command(tmp_path, "thrifty", "check", PAPER)
    assert done.returncode == 1, done.stderr
    found = [re.fullmatch(r"([\w./]+):(\d+): (.*)", line).groups() for line in done.stdout.splitlines()]
    in_line = [((tmp_path / file).read_text("utf-8").splitlines()[int(line) - 1], text) for file, line, text in found]

    module = [text for file, _, text in found if file == "thriftylib/papers/two_words.py"]
    assert len(module) == 2
    assert "names no paper" in module[0]
    assert "cost() says 98 parameters" in module[1] or "parameters, the built network has" in module[1]
    assert [text for file, _, text in found if file == new.TOC] == ["has no line '- file: book/two_words'; add it"]
    grids = "\n".join(text for file, _, text in found if file == "thriftylib/experiments/two_words.py")
    assert "smoke: two configurations have the run" in grids
    assert "smoke: two configurations have the recipe and labels" in grids
    assert re.search(r"smoke: 9 epochs, \d+ steps; must be at most 3 epochs or 100 steps", grids)
    assert len(grids.splitlines()) == 3
    notebook = {text for file, _, text in found if file == "notebooks/two_words.ipynb"}
    assert notebook == {
        "one cell, tagged parameters, must begin with running.report.PARAMETERS as they are",
        "parameter depths must have a type, a default and a comment that explains it",
        "was not executed from first to last cell; run jupyter execute --inplace on it",
        "names a place of one machine, /home/",
    }
    wrong = [(line, text) for line, text in in_line if text.startswith("claim ")]
    assert len(wrong) == len(CLAIMS)
    for name, (_, message) in CLAIMS.items():
        (where, text) = next(each for each in wrong if each[1].startswith(f"claim two_words/depth/{name}: "))
        assert message in text
        assert f"id: {name}" in where
    assert len(found) == 2 + 1 + 3 + 4 + len(CLAIMS)


def test_a_claims_file_that_is_refused_is_named_with_its_line(checkout, monkeypatch):
    path = checkout.root / "data" / "claims" / f"{PAPER}.yaml"
    text = path.read_text("utf-8")
    monkeypatch.chdir(checkout.root)
    path.write_text(text.replace("value: 75.0", "value: 175.0"), "utf-8")
    try:
        (finding,) = [each for each in check(PAPER) if "must be from 0 to 100 %" in each.text]
    finally:
        path.write_text(text, "utf-8")
    assert finding.file == f"data/claims/{PAPER}.yaml"
    assert "id: one-kernel-8" in text.splitlines()[finding.line - 1]


def test_an_error_or_a_warning_in_a_notebook_is_found(checkout, monkeypatch):
    path = checkout.root / "notebooks" / f"{PAPER}.ipynb"
    before = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    code[2].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="none", traceback=[])]
    monkeypatch.chdir(checkout.root)
    monkeypatch.setattr(checking, "showing", lambda experiment: [PAPER])
    monkeypatch.setattr(checking, "EXPERIMENTS", {"any": SimpleNamespace(name="any", paper=PAPER)})
    nbformat.write(notebook, path)
    try:
        found = [finding.text for finding in checking._check_notebooks(checking.Paper(PAPER))]
    finally:
        path.write_bytes(before)
    assert found == [
        "a cell ended in: text on standard error; must run without",
        "a cell ended in: none; must run without",
    ]


def test_what_no_smoke_run_measures_is_found(monkeypatch, tmp_path):
    """No record: whatever a claim is about was not measured, and it took longer than it may."""
    shown = experiment("dacnn-scatter")
    monkeypatch.setattr(checking, "EXPERIMENTS", {shown.name: shown})
    monkeypatch.setattr("thriftylib.running.execute.train_missing", lambda *a, **b: SimpleNamespace(records={}))
    clock = iter([0.0, 61.0])
    monkeypatch.setattr(checking, "time", SimpleNamespace(process_time=lambda: next(clock)))
    slow, untrained, *others = check_smoke("dacnn", tmp_path)
    assert "smoke: 61 s; must be under 60 s" in slow.text
    assert "runs left no record; each must train" in untrained.text
    assert all("no smoke run of dacnn-scatter has 'test_accuracy'" in each.text for each in others)
    assert others


def test_an_unknown_paper_is_refused():
    with pytest.raises(ThriftyError, match="unknown paper 'dacn'; did you mean 'dacnn'"):
        check("dacn")
