"""Check a paper's files: each finding in one line with file and line, what is wrong and what is right."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from thriftylib.authoring.new import TARGETS, TOC
from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import RecordError, SpecError, ThriftyError
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.claims_files import ClaimsFile, load_claims_file
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.experiments import EXPERIMENTS, PRESETS, Experiment
from thriftylib.options import MethodOptions, NetworkOptions, Strict, find, suggest
from thriftylib.paths import project_root, results_dir
from thriftylib.running.notebooks import notebooks, showing
from thriftylib.schedules import steps_per_epoch
from thriftylib.spec import Recipe, Run

SMOKE_EPOCHS, SMOKE_STEPS, SMOKE_MACS, SMOKE_SECONDS = 3, 100, 1_000_000, 60
"""Of a smoke run: epochs or steps, and MACs of one image; of all runs of an experiment: seconds of a CPU."""
MODULE_LINES, PAPER_LINES = 300, 700
GRIDS = [preset for preset in PRESETS if preset != "recorded"]
_MACHINE = re.compile(r"(?<![\w.~])/(home|root|tmp|Users|work|mnt)/|(?<![\w+/])0x[0-9a-f]{6,}")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong: where (a path relative to the checkout, a line from 1), and in words what is right."""

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
        self.name, self.root = name, project_root()
        if name not in paper_names():
            raise ThriftyError(f"unknown paper {name!r}" + suggest(name, paper_names()))
        self.experiments = [shown for shown in EXPERIMENTS.values() if shown.paper == name]
        self.module, _, self.claims_path, _, self.page = (
            self.root / target.format(name) for target in TARGETS.values()
        )
        self.notebooks = [
            path for key, path in notebooks().items() if any(key in showing(shown.name) for shown in self.experiments)
        ]

    @cached_property
    def sources(self) -> list[Path]:
        """The paper's own modules, by their names."""
        folders = [self.root / "thriftylib" / folder for folder in ("papers", "experiments")]
        return [path for folder in folders for path in sorted(folder.glob("*.py")) if _owner(path.stem) == self.name]

    @cached_property
    def claims(self) -> ClaimsFile | None:
        """Its claims file; None where it is refused or missing."""
        try:
            return load_claims_file(self.claims_path)
        except RecordError:
            return None

    def at(self, path: Path, text: str, line: int | str = 1) -> Finding:
        """A finding in a line of a file, which may be given by what it holds."""
        if isinstance(line, str):
            lines = path.read_text("utf-8").splitlines()
            line = next((number for number, content in enumerate(lines, 1) if line in content), 1)
        return Finding(str(path.relative_to(self.root)), line, text)

    def at_claim(self, claim: Claim, text: str) -> Finding:
        """A finding at a claim."""
        return self.at(self.claims_path, f"claim {claim.id}: {text}", self.claims.lines[claim.id])

    def at_experiment(self, shown: Experiment, text: str) -> Finding:
        """A finding at an experiment's grid."""
        code = inspect.unwrap(shown.grid).__code__
        return self.at(Path(code.co_filename), f"experiment {shown.name}: {text}", code.co_firstlineno)


def paper_names() -> list[str]:
    """Every paper: whatever has a claims file or an experiment."""
    claimed = {path.stem for path in (project_root() / "data" / "claims").glob("*.yaml")}
    return sorted(claimed | {shown.paper for shown in EXPERIMENTS.values()})


def _owner(module: str) -> str | None:
    """The paper that a module belongs to by its name."""
    return max((name for name in paper_names() if f"{module}_".startswith(f"{name}_")), key=len, default=None)


def check(name: str) -> list[Finding]:
    """What is wrong with a paper, file by file; nothing is trained.

    Raises:
        ThriftyError: no such paper.
    """
    paper = Paper(name)
    return sorted(set(chain.from_iterable(part(paper) for part in CHECKS)))


def _files(paper: Paper) -> Iterator[Finding]:
    """Every file is there and filled in, none is too long, and page and notebooks are in the table of contents."""
    if not paper.experiments:
        yield Finding(TARGETS["experiments.py"].format(paper.name), 1, "no experiment; must register at least one")
    here = {str(path.relative_to(paper.root)) for path in (*paper.sources, paper.claims_path, paper.page)}
    for file in sorted(here | {TARGETS["paper.py"].format(paper.name)}):
        if not (paper.root / file).is_file():
            yield Finding(file, 1, f"is missing; thrifty new shows what belongs into it, as does {TOC} of a page")
        else:
            lines = (paper.root / file).read_text("utf-8").splitlines()
            for number, line in enumerate(lines, 1):
                if "TODO" in line:
                    yield Finding(file, number, f"is left to fill in: {line.strip()}")
            if file.endswith(".py") and len(lines) > MODULE_LINES:
                yield Finding(file, MODULE_LINES + 1, f"{len(lines)} lines; a module has at most {MODULE_LINES}")
    total = sum(len(path.read_text("utf-8").splitlines()) for path in paper.sources)
    if total > PAPER_LINES:
        yield paper.at(paper.module, f"{total} lines in the paper's modules; a paper has at most {PAPER_LINES}")
    if paper.module.is_file() and not re.search(r"arxiv|doi", paper.module.read_text("utf-8").split('"""')[1], re.I):
        yield paper.at(paper.module, "the docstring names no paper; must have authors, year and arXiv number or DOI")
    toc = (paper.root / TOC).read_text("utf-8")
    listed = {line.split("file: ")[1].strip() for line in toc.splitlines() if "file: " in line}
    for path in (paper.page, *paper.notebooks):
        if (entry := str(path.relative_to(paper.root).with_suffix(""))) not in listed:
            yield Finding(TOC, 1, f"{entry} is not listed; add - file: {entry}")


def _claims(paper: Paper) -> Iterator[Finding]:
    """The claims file can be read, and every name in it exists: a typo would say "not run" for ever."""
    if paper.claims is None:
        try:
            load_claims_file(paper.claims_path)
        except RecordError as error:
            place = re.match(r".*?\.yaml(?::(\d+))?: (.*)", str(error), re.DOTALL)
            yield paper.at(paper.claims_path, place[2], int(place[1] or 1))
        return
    for claim in (*paper.claims.claims.values(), *paper.claims.counted.values()):
        faults = []
        if claim.experiment not in (None, *EXPERIMENTS):
            faults = ["unknown experiment" + _instead(claim.experiment, EXPERIMENTS)]
        if claim.not_testable is None:
            faults += [fault for side in claim.sides for fault in _unknown_names(side)]
        for fault in faults:
            yield paper.at_claim(claim, fault)
        if claim.definition.needs_runs and claim.not_testable is None and not faults:
            yield from (paper.at_claim(claim, fault) for fault in _unanswered(claim))


def _instead(name: str, known: Iterable[str]) -> str:
    return f" {name!r}" + suggest(name, known)


def _unknown_names(side: Setting) -> Iterator[str]:
    recipes = _recipes()
    for name, epochs in side.recipes.items():
        if name not in recipes:
            yield "unknown recipe" + _instead(name, recipes)
        elif epochs != recipes[name].epochs:
            yield f"recipe {name} has {recipes[name].epochs} epochs, not {epochs}"
    try:
        dataset_info(side.dataset)
        kind = find(NetworkOptions, side.network)
        for options in (side.options, *(side.any_of or [])):
            yield from _wrong_options(kind, side.network, options)
        if side.method is not None:
            yield from _wrong_options(find(MethodOptions, side.method), side.method, side.method_options)
    except SpecError as error:
        yield str(error)


def _wrong_options(kind: type[Strict], owner: str, options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if name not in kind.model_fields:
            yield f"{owner} has no option" + _instead(name, kind.model_fields)
            continue
        field = kind.model_fields[name]
        allowed = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        adapter = TypeAdapter(allowed, config=ConfigDict(strict=True))
        try:
            stored = adapter.dump_python(adapter.validate_json(json.dumps(value)), mode="json")
            if stored != value or isinstance(stored, bool) != isinstance(value, bool):
                yield f"{owner}: {name} = {value!r}: runs have it as {stored!r}"
        except ValidationError as error:
            yield f"{owner}: {name} = {value!r}: {error.errors()[0]['msg'].replace('Input should', 'should')}"


def _unanswered(claim: Claim) -> Iterator[str]:
    grid = EXPERIMENTS[claim.experiment].configurations("paper")
    for side in claim.sides:
        if not any(claim.id in each.claims and side.fits(each.run) for each in grid):
            differences = min((_differences(side, each.run) for each in grid), key=len, default=["there is none"])
            yield f"no configuration of {claim.experiment} (paper) answers it; the nearest: {', '.join(differences)}"


def _differences(side: Setting, run: Run) -> list[str]:
    """In what a run differs from a setting."""
    wanted: dict[str, Any] = {"network": side.network, "dataset": side.dataset, "method": side.method}
    wanted |= {"label_noise": side.label_noise, "derived": side.derived}
    has: dict[str, Any] = {"network": run.network.name, "dataset": run.data.name, "label_noise": run.data.label_noise}
    has |= {"method": run.method.name if run.method else None, "derived": run.parent is not None}
    if not side.has_recipe(run):
        wanted["recipe"], has["recipe"] = " or ".join(side.recipes) or None, run.recipe_name
    wanted |= side.options | side.method_options | ((side.any_of or [{}])[0])
    has |= run.network.options | (run.method.options if run.method else {})
    return [f"{key} is {has.get(key)!r}, claimed {value!r}" for key, value in wanted.items() if has.get(key) != value]


@cache
def _recipes() -> dict[str, Recipe]:
    """The recipes of all grids by name, the first of each name."""
    found: dict[str, Recipe] = {}
    for shown in EXPERIMENTS.values():
        for configuration in shown.configurations("recorded"):
            if configuration.run.recipe:
                found.setdefault(configuration.run.recipe.name, configuration.run.recipe)
    return found


def _grids(paper: Paper) -> Iterator[Finding]:
    """Every grid has distinct configurations under the same labels, and its recipes' names mean one recipe."""
    recipes = dict(_recipes())
    for shown in paper.experiments:
        if not shown.question:
            yield paper.at_experiment(shown, "asks nothing; its docstring must say what it asks and how")
        labels: dict[str, set[str]] = {}
        for preset in GRIDS:
            grid = shown.configurations(preset)
            labels[preset] = {key for configuration in grid for key in configuration.labels}
            points = [(configuration.run.recipe_name, *configuration.labels.items()) for configuration in grid]
            for what, values in (("runs", [each.run.id for each in grid]), ("labels", points)):
                if twice := next((value for value in values if values.count(value) > 1), None):
                    yield paper.at_experiment(shown, f"{preset}: two configurations have the {what} {twice}")
            for run in (configuration.run for configuration in grid):
                if run.seed:
                    yield paper.at_experiment(shown, f"{preset}: a grid's runs have seed 0, not {run.seed}")
                if run.recipe and run.recipe != recipes.setdefault(run.recipe.name, run.recipe):
                    yield paper.at_experiment(shown, f"{preset}: {run.recipe.name} names two recipes; rename one")
        if labels["fast"] - labels["smoke"]:
            yield paper.at_experiment(shown, f"smoke lacks labels of fast: {sorted(labels['fast'] - labels['smoke'])}")
        if not showing(shown.name):
            yield paper.at_experiment(shown, f'no notebook shows it; one must ask for report.table("{shown.name}")')


def _smoke(paper: Paper) -> Iterator[Finding]:
    """Smoke runs are small, and what a network costs in closed form is what it counts when it is built."""
    from thriftylib.training.counting import check_cost

    built: set[str] = set()
    for shown in paper.experiments:
        for run in (configuration.run for configuration in shown.configurations("smoke")):
            if run.data.name != "digits":
                yield paper.at_experiment(shown, f"smoke: trains on {run.data.name}; must be digits")
            steps = run.epochs * steps_per_epoch(run.data.training_images, run.recipe.batch_size) if run.recipe else 0
            if run.epochs > SMOKE_EPOCHS and steps > SMOKE_STEPS:
                limits = f"at most {SMOKE_EPOCHS} epochs or {SMOKE_STEPS} steps"
                yield paper.at_experiment(shown, f"smoke: {run.epochs} epochs, {steps} steps; must be {limits}")
            if (network := run.network.model_dump_json()) in built:
                continue
            built.add(network)
            try:
                if run.cost.macs > SMOKE_MACS:
                    limits = f"at most {SMOKE_MACS:,}"
                    yield paper.at_experiment(shown, f"smoke: {run.cost.macs:,} MACs an image; must be {limits}")
                check_cost(run, run.build())
            except Exception as error:  # an author's build() may fail in any way
                kind = type(run.options)
                text = str(error) if isinstance(error, ThriftyError) else f"build(): {type(error).__name__}: {error}"
                yield paper.at(Path(inspect.getfile(kind)), text, f"class {kind.__name__}")


def _notebooks(paper: Paper) -> Iterator[Finding]:
    """Notebooks have the standard parameters, were executed in order without errors, and name no machine."""
    import papermill

    standard = papermill.inspect_notebook(str(files("thriftylib.authoring") / "skeleton" / "notebook.ipynb"))
    standard = dict(list(standard.items())[:-1])  # the last is the example's own
    for path in paper.notebooks:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        if sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) != 1:
            yield paper.at(path, "no cell is tagged parameters; exactly one must be")
            continue
        known = papermill.inspect_notebook(str(path))
        for name, wanted in standard.items():
            found = known.get(name, {"inferred_type_name": None, "default": None})
            if found["inferred_type_name"] != wanted["inferred_type_name"] or found["default"] != wanted["default"]:
                right = f"{name}: {wanted['inferred_type_name']} = {wanted['default']}"
                yield paper.at(path, f"parameter {name} is missing or another; must be {right}", f"{name}: ")
        for name, found in known.items():
            if found["inferred_type_name"] == "None" or not found["help"]:
                yield paper.at(path, f"parameter {name}: must have a type and a comment that explains it", f"{name}")
        if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
            yield paper.at(path, "was not executed from first to last cell; run jupyter execute --inplace on it")
        for output in (output for cell in code for output in cell["outputs"]):
            if output["output_type"] == "error" or output.get("name") == "stderr":
                text = "".join(output.get("text", output.get("evalue", ""))).splitlines()[:1]
                yield paper.at(path, f"a cell ended in an error or wrote to standard error: {''.join(text)}")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if place := _MACHINE.search(line):
                yield paper.at(path, f"names a place of one machine: {place[0]}; must be relative", number)
        sources = {json.dumps(line)[1:-1] for cell in cells for line in "".join(cell["source"]).splitlines()}
        for line in sorted(line for line in sources if "TODO" in line):
            yield paper.at(path, f"is left to fill in: {line}", line)


def _counts(paper: Paper) -> Iterator[Finding]:
    """What the claims count is counted as it is counted now."""
    counts = load_counts(results_dir())
    for claim in paper.claims.claims.values() if paper.claims else ():
        try:
            if any(row not in counts for row in count_claims([claim])):
                yield paper.at_claim(claim, "data/results/counts.json has no such count; run thrifty cost --record")
        except SpecError:
            pass  # an unknown name, told by the claims' own check


CHECKS: tuple[Callable[[Paper], Iterator[Finding]], ...] = (_files, _claims, _grids, _smoke, _notebooks, _counts)


def check_smoke(name: str, folder: Path) -> list[Finding]:
    """Train the smoke grids of a paper into ``folder``: each in time, and it measures what the claims are about.

    Raises:
        ThriftyError: no such paper, or a run fails.
    """
    import time

    from thriftylib.evidence.statuses import outcome
    from thriftylib.running.execute import OutputFolders, train_missing

    paper, found = Paper(name), []
    claims = paper.claims.claims.values() if paper.claims else ()
    for shown in paper.experiments:
        started = time.process_time()
        runs = [configuration.run for configuration in shown.configurations("smoke")]
        result = train_missing(runs, OutputFolders.below(folder), device="cpu", progress=False)
        if (seconds := time.process_time() - started) > SMOKE_SECONDS:
            found.append(paper.at_experiment(shown, f"smoke: {seconds:.0f} s; must be under {SMOKE_SECONDS} s"))
        for claim in (claim for claim in claims if claim.experiment == shown.name and claim.definition.needs_runs):
            if all(outcome(claim, record) is None for record in result.records.values()):
                key = claim.definition.key
                found.append(paper.at_claim(claim, f"no smoke run of {shown.name} has {key!r}; correct its name"))
    return found
