"""Check a paper's files against one another: each finding in one line with file and line. Trains nothing."""

from __future__ import annotations

import ast
import inspect
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from thriftylib.authoring.claims import check_claim, recipes
from thriftylib.authoring.new import TARGETS, TOC
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence.claims_files import load_claims_file
from thriftylib.experiments import EXPERIMENTS, PRESETS, Experiment
from thriftylib.experiments.base import TAKEN
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, project_root
from thriftylib.running.notebooks import notebooks, showing
from thriftylib.running.report import PARAMETERS
from thriftylib.schedules import steps_per_epoch

SMOKE_EPOCHS, SMOKE_STEPS, SMOKE_MACS, SMOKE_SECONDS = 3, 100, 1_000_000, 60
"""Of a smoke run: epochs or steps, and MACs of one image; of all smoke runs of an experiment: seconds of a CPU."""
MODULE_LINES, PAPER_LINES = 300, 700
_MACHINE = re.compile(r"(?<![\w.~])/(home|root|tmp|Users|work|mnt)/|(?<![\w+/])0x[0-9a-f]{6,}")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong: its file, relative to the checkout, the line from 1, and in words what is right."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class Paper:
    """A paper's files and experiments.

    Raises:
        ThriftyError: no paper of that name; names the known ones.
    """

    def __init__(self, name: str) -> None:
        if name not in (known := paper_names()):
            raise ThriftyError(f"unknown paper {name!r}" + suggest(name, known))
        self.name, self.root = name, project_root()
        self.module, self.grids, self.claims, self.notebook, self.page = (
            self.root / target.format(name) for target in TARGETS.values()
        )
        self.experiments = [shown for shown in EXPERIMENTS.values() if shown.paper == name]
        shows = {each for shown in self.experiments for each in showing(shown.name)}
        self.notebooks = [path for each, path in notebooks().items() if each in shows]
        modules = [path for folder in (self.module, self.grids) for path in sorted(folder.parent.glob("*.py"))]
        self.modules = [path for path in modules if f"{path.stem}_".startswith(f"{name}_")]

    def at(self, place: Path | Experiment, text: str, line: int | str = 1) -> Finding:
        """A finding in a line of a file, given by its number or what it holds, or at an experiment's grid."""
        if isinstance(place, Experiment):
            code = place.grid.__code__
            place, line, text = Path(code.co_filename), code.co_firstlineno, f"experiment {place.name}: {text}"
        if isinstance(line, str):
            line = next((number for number, content in enumerate(_lines(place), 1) if line in content), 1)
        return Finding(str(place.relative_to(self.root)), line, " ".join(text.split()))


def paper_names() -> list[str]:
    """Every paper: what has a claims file or an experiment."""
    claimed = {path.stem for path in claims_dir().glob("*.yaml")}
    return sorted(claimed | {shown.paper for shown in EXPERIMENTS.values()})


def check(name: str) -> list[Finding]:
    """What is wrong with a paper, file by file.

    Raises:
        ThriftyError: no such paper.
    """
    paper = Paper(name)
    return sorted(set(chain.from_iterable(part(paper) for part in _CHECKS)))


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def _check_files(paper: Paper) -> Iterator[Finding]:
    """Every file is there and filled in, no module is too long, and pages are in the table of contents."""
    there = {*paper.modules, *paper.notebooks, paper.module, paper.claims, paper.page}
    for path in there:
        if not path.is_file():
            yield paper.at(path, "is missing; thriftylib/authoring/skeleton shows what it holds")
            continue
        lines = _lines(path)
        for number, line in enumerate(lines, 1):
            if "TODO" in line:
                yield paper.at(path, f"left to fill in: {line[line.index('TODO') :][:70]}", number)
        if path.suffix == ".py" and len(lines) > MODULE_LINES:
            yield paper.at(path, f"{len(lines)} lines; a module has at most {MODULE_LINES}", MODULE_LINES + 1)
    if not paper.experiments:
        yield paper.at(paper.grids, "registers no experiment; must register at least one")
    if (total := sum(len(_lines(path)) for path in paper.modules)) > PAPER_LINES:
        yield paper.at(paper.module, f"{total} lines in the paper's modules; a paper has at most {PAPER_LINES}")
    named = paper.module.is_file() and (ast.get_docstring(ast.parse(paper.module.read_text("utf-8"))) or "")
    if named is not False and not re.search(r"arxiv|doi", named, re.I):
        yield paper.at(paper.module, "the docstring names no paper; must give authors, year and arXiv number or DOI")
    listed = [line.strip() for line in _lines(paper.root / TOC)]
    for path in (paper.page, *paper.notebooks):
        if (line := f"- file: {path.relative_to(paper.root).with_suffix('')}") not in listed:
            yield paper.at(paper.root / TOC, f"has no line '{line}'; add it")


def _check_claims(paper: Paper) -> Iterator[Finding]:
    """The claims file can be read, and each claim refers to what exists."""
    try:
        loaded = load_claims_file(paper.claims)
    except RecordError as error:
        line, text = re.fullmatch(r"(?:.*?\.yaml(?::(\d+))?: )?(.*)", str(error), re.DOTALL).groups()
        yield paper.at(paper.claims, text, int(line or 1))
        return
    for claim in (*loaded.claims.values(), *loaded.counted.values()):
        for fault in check_claim(claim):
            yield paper.at(paper.claims, f"claim {claim.id}: {fault}", loaded.lines[claim.id])


def _check_grids(paper: Paper) -> Iterator[Finding]:
    """Each grid has distinct configurations under the same labels, and a recipe's name means one recipe."""
    for shown in paper.experiments:
        if not shown.question:
            yield paper.at(shown, "asks nothing; the docstring of its grid must say what it asks and how")
        labels: dict[str, set[str]] = {}
        for preset in PRESETS[1:]:
            grid = shown.configurations(preset)
            labels[preset] = {label for each in grid for label in each.labels}
            for what, values in (
                ("run", [each.run.id for each in grid]),
                ("recipe and labels", [(each.run.recipe_name, *each.labels.items()) for each in grid]),
            ):
                if twice := next((value for value in values if values.count(value) > 1), None):
                    yield paper.at(shown, f"{preset}: two configurations have the {what} {twice}")
            for run in (each.run for each in grid):
                if run.seed:
                    yield paper.at(shown, f"{preset}: seed {run.seed}; the runs of a grid have seed 0")
                if run.recipe and run.recipe != recipes().setdefault(run.recipe.name, run.recipe):
                    yield paper.at(shown, f"{preset}: {run.recipe.name} names another recipe elsewhere; rename one")
        if lacking := labels["fast"] - labels["smoke"]:
            yield paper.at(shown, f"smoke lacks labels of fast: {sorted(lacking)}")
        if not showing(shown.name):
            yield paper.at(shown, f'no notebook shows it; one must call report.table("{shown.name}")')


def _check_road(paper: Paper) -> Iterator[Finding]:
    """Of a paper that takes a road: what its runs started from is ordinary, and not every run of it is."""
    word, ordinary = TAKEN.get(paper.name, ("", None))
    kinds = set()
    for shown, preset in product(paper.experiments if ordinary else (), ("smoke", "fast", "paper")):
        for run in (each.run for each in shown.configurations(preset)):
            if (start := ordinary(run)) is None:
                continue
            kinds.add(start.id == run.id)
            if (start.data, start.recipe, start.seed) != (run.data, run.recipe, run.seed):
                yield paper.at(shown, "what a run started from must have its data, recipe and seed")
            elif ordinary(start) not in (None, start):
                yield paper.at(shown, "what a run started from must be ordinary itself")
    if kinds == {True}:
        yield paper.at(paper.grids, f"road {word!r}: every run is ordinary; must tell which are not", "def ordinary")


def _check_smoke(paper: Paper) -> Iterator[Finding]:
    """Smoke runs are small, and what their networks cost in closed form is what they count when they are built."""
    from thriftylib.training.counting import check_cost

    built: set[str] = set()
    for shown in paper.experiments:
        for run in (each.run for each in shown.configurations("smoke")):
            if run.data.name != "digits":
                yield paper.at(shown, f"smoke: trains on {run.data.name}; must be digits")
            steps = run.epochs * steps_per_epoch(run.data.training_images, run.recipe.batch_size) if run.recipe else 0
            if run.epochs > SMOKE_EPOCHS and steps > SMOKE_STEPS:
                limit = f"at most {SMOKE_EPOCHS} epochs or {SMOKE_STEPS} steps"
                yield paper.at(shown, f"smoke: {run.epochs} epochs, {steps} steps; must be {limit}")
            if (network := run.network.model_dump_json()) in built:
                continue
            built.add(network)
            try:
                if run.cost.macs > SMOKE_MACS:
                    yield paper.at(shown, f"smoke: {run.cost.macs:,} MACs an image; must be at most {SMOKE_MACS:,}")
                check_cost(run, run.build())
            except Exception as error:  # an author's cost() and build() may fail in any way
                kind = type(run.options)
                text = str(error) if isinstance(error, ThriftyError) else f"{type(error).__name__}: {error}"
                yield paper.at(Path(inspect.getfile(kind)), text, f"class {kind.__name__}(")


def _check_notebooks(paper: Paper) -> Iterator[Finding]:
    """Notebooks have the standard parameters, were executed in order without errors, and name no machine."""
    for path in paper.notebooks:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        if len(tagged) != 1 or not tagged[0].startswith(PARAMETERS.rstrip()):
            text = "one cell, tagged parameters, must begin with running.report.PARAMETERS as they are"
            yield paper.at(path, text, '"parameters"')
        for line in "\n".join(tagged).splitlines():
            if not re.fullmatch(r"\w+: \w+ = .+  # .+", line):
                text = f"parameter {line.split()[0]} must have a type, a default and a comment that explains it"
                yield paper.at(path, text, json.dumps(line)[1:-1])
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
            text = "was not executed from first to last cell; run jupyter execute --inplace on it"
            yield paper.at(path, text, '"execution_count": null')
        for output in chain.from_iterable(cell["outputs"] for cell in code):
            if output["output_type"] == "error" or output.get("name") == "stderr":
                text = output.get("evalue", "text on standard error")
                yield paper.at(
                    path, f"a cell ended in: {text}; must run without", f'"output_type": "{output["output_type"]}"'
                )
        for number, line in enumerate(_lines(path), 1):
            if place := _MACHINE.search(line):
                yield paper.at(path, f"names a place of one machine, {place[0]}", number)


_CHECKS: tuple[Callable[[Paper], Iterator[Finding]], ...]
_CHECKS = (_check_files, _check_claims, _check_grids, _check_road, _check_smoke, _check_notebooks)


def check_smoke(name: str, folder: Path) -> Iterator[Finding]:
    """Train the smoke grids of a paper into ``folder``: each in time, and they measure what the claims are about.

    Raises:
        ThriftyError: no such paper, a claims file that is refused, or a run fails.
    """
    from thriftylib.running.execute import OutputFolders, train_missing

    paper = Paper(name)
    loaded = load_claims_file(paper.claims)
    for shown in paper.experiments:
        started, runs = time.process_time(), shown.runs("smoke", [0])
        records = train_missing(runs, OutputFolders.below(folder), device="cpu", progress=False).records.values()
        if (seconds := time.process_time() - started) > SMOKE_SECONDS:
            yield paper.at(shown, f"smoke: {seconds:.0f} s; must be under {SMOKE_SECONDS} s")
        if missing := len(runs) - len(records):
            yield paper.at(shown, f"smoke: {missing} of {len(runs)} runs left no record; each must train")
        names = {name for record in records for name in (*record.series, *record.measured)}
        for claim in (each for each in loaded.claims.values() if each.experiment == shown.name):
            key, is_read = claim.definition.key, claim.definition.source in ("series", "measured")
            if is_read and not claim.not_testable and key not in names:
                text = f"claim {claim.id}: no smoke run of {shown.name} has {key!r}" + suggest(key, names)
                yield paper.at(paper.claims, text, loaded.lines[claim.id])
