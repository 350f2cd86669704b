"""Execute notebooks through papermill: one at a time on a CPU, one per GPU at the same time where there are several."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftylib.errors import ThriftyError
from thriftylib.experiments.base import EXPERIMENTS
from thriftylib.options import suggest
from thriftylib.paths import project_root


@dataclass(frozen=True)
class Executed:
    """A notebook's execution: its copy with outputs, and in one line why it failed (None: it did not)."""

    name: str
    output: Path
    seconds: float
    error: str | None


def notebooks() -> dict[str, Path]:
    """The committed notebooks by name."""
    return {path.stem: path for path in sorted((project_root() / "notebooks").glob("*.ipynb"))}


def showing(experiment: str) -> list[str]:
    """The notebooks whose code names an experiment."""
    return [name for name, path in notebooks().items() if f'"{experiment}"' in _code(path)]


def _code(path: Path) -> str:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])


def choose(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names, or those that show these experiments; no name: all.

    Raises:
        ThriftyError: neither a notebook nor an experiment, or an experiment that no notebook shows.
    """
    known = notebooks()
    chosen: dict[str, Path] = {}
    for name in names or known:
        stem = Path(name).stem if name.endswith(".ipynb") else name
        found = [stem] if stem in known else showing(name) if name in EXPERIMENTS else None
        if found is None:
            raise ThriftyError(f"unknown notebook or experiment {name!r}" + suggest(stem, {*known, *EXPERIMENTS}))
        if not found:
            raise ThriftyError(f"no notebook shows the experiment {name}; thrifty train {name} trains it without one")
        chosen |= {stem: known[stem] for stem in found}
    return list(chosen.values())


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with texts turned into what the notebook's own defaults are; papermill itself would only warn.

    Raises:
        ThriftyError: the notebook has no such parameter, or it is of another type.
    """
    from papermill import inspect_notebook
    from pydantic import TypeAdapter, ValidationError

    known = inspect_notebook(str(path))
    checked = dict(given)
    for name, value in given.items():
        if name not in known:
            raise ThriftyError(f"notebook {path.stem} has no parameter {name!r}" + suggest(name, known))
        default = ast.literal_eval(known[name]["default"])
        if isinstance(value, str) and default is not None:
            kind = type(default)
            try:
                checked[name] = TypeAdapter(kind).validate_python(value)
            except ValidationError:
                expected = f"must be of type {kind.__name__} such as {default!r}"
                raise ThriftyError(f"notebook {path.stem}: {name} = {value!r}: {expected}") from None
    return checked


def run_notebooks(
    paths: Sequence[Path],
    parameters: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    gpus: Sequence[str] = (),
    budget: float | None = None,
) -> Iterator[Executed]:
    """Execute notebooks into ``out``, yielding each as it ends; one that fails stops no other.

    Args:
        parameters: by notebook name.
        gpus: one slot each, as CUDA_VISIBLE_DEVICES names them; none: one slot.
        budget: seconds for all; each notebook gets what is left when it starts, and those left over then are not run.
    """
    out.mkdir(parents=True, exist_ok=True)
    deadline = None if budget is None else time.monotonic() + budget
    context = multiprocessing.get_context("spawn")
    slots = context.Queue()
    for gpu in gpus or [None]:
        slots.put(gpu)
    with ProcessPoolExecutor(len(gpus) or 1, context, _take_slot, (slots,)) as pool:
        waiting = {
            pool.submit(_execute, path, out / path.name, dict(parameters[path.stem]), deadline, project_root()): path
            for path in paths
        }
        for future in as_completed(waiting):
            yield _result(future, waiting[future].stem, out / waiting[future].name)


def _result(future: Future[Executed], name: str, output: Path) -> Executed:
    try:
        return future.result()
    except Exception as error:  # the worker itself died; what it left says how far it came
        return Executed(name, output, 0.0, f"{type(error).__name__}: {error}")


def _take_slot(slots: multiprocessing.Queue[str | None]) -> None:
    if (gpu := slots.get()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _execute(path: Path, output: Path, parameters: dict[str, Any], deadline: float | None, folder: Path) -> Executed:
    import papermill

    started = time.monotonic()
    if deadline is not None:
        if deadline <= started:
            return Executed(path.stem, output, 0.0, "not started: the budget is used up")
        parameters["budget"] = f"{deadline - started:.0f}s"  # the monotonic clock is the machine's, not the process's
    error = None
    try:
        papermill.execute_notebook(
            path, output, parameters, cwd=folder, progress_bar=False, stderr_file=sys.stderr, kernel_name="python3"
        )
    except papermill.PapermillExecutionError as failure:
        error = f"cell {failure.cell_index}: {failure.ename}: {failure.evalue}".splitlines()[0]
    return Executed(path.stem, output, time.monotonic() - started, error)
