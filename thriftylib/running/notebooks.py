"""Execute notebooks through papermill: one at a time on a CPU, one per GPU at the same time where there are several."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftylib.errors import FAILED, STOPPED, RecordError, ThriftyError
from thriftylib.escaping import tell
from thriftylib.experiments.base import EXPERIMENTS
from thriftylib.options import suggest
from thriftylib.paths import check_writable, project_root, read_json, reading
from thriftylib.running import parameters
from thriftylib.running.processes import Pool
from thriftylib.training.signals import collect_signals


@dataclass(frozen=True)
class Executed:
    """A notebook's execution: its copy with outputs, why it failed in one line (None: it did not), its exit code."""

    name: str
    output: Path
    seconds: float
    error: str | None
    code: int = 0


def notebooks() -> dict[str, Path]:
    """The committed notebooks by name."""
    return {path.stem: path for path in sorted((project_root() / "notebooks").glob("*.ipynb"))}


def showing(experiment: str) -> list[str]:
    """The notebooks whose code names an experiment; one that cannot be read names none."""
    found = []
    for name, path in notebooks().items():
        with suppress(RecordError):
            found += [name] if f'"{experiment}"' in _code(path) else []
    return found


def _code(path: Path) -> str:
    return "".join(line for cell in _cells(path) if cell["cell_type"] == "code" for line in cell["source"])


def _cells(path: Path) -> list[dict[str, Any]]:
    with reading(path):
        return [{"metadata": {}, "source": "", **cell} for cell in read_json(path)["cells"]]


def _parameters(path: Path) -> str:
    """The cell of a notebook's parameters; empty: it has none, or cannot be read."""
    with suppress(RecordError):
        cells = (cell for cell in _cells(path) if "parameters" in cell["metadata"].get("tags", ()))
        return next(("".join(cell["source"]) for cell in cells), "")
    return ""


def choose(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names, or those that show these experiments; no name: all that have our parameters.

    Raises:
        ThriftyError: neither a notebook nor an experiment, or an experiment that no notebook shows.
    """
    known = notebooks()
    chosen: dict[str, Path] = {}
    if not names:
        for name, path in known.items():
            if "preset" in parameters.parse(_parameters(path)):
                chosen[name] = path
            else:
                tell(f"{path} is left out: it has no cell of our parameters", lines=False)
    for name in names:
        stem = Path(name).stem if name.endswith(".ipynb") else name
        found = [stem] if stem in known else showing(name) if name in EXPERIMENTS else None
        if found is None:
            raise ThriftyError(f"unknown notebook or experiment {name!r}" + suggest(stem, {*known, *EXPERIMENTS}))
        if not found:
            raise ThriftyError(f"no notebook shows the experiment {name}; thrifty train {name} trains it without one")
        chosen |= {stem: known[stem] for stem in found}
    return list(chosen.values())


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` as what the notebook's own defaults are; papermill itself would only warn.

    Raises:
        ThriftyError: the notebook has no such parameter, it is of another type, or has not this value.
    """
    known = parameters.parse(_parameters(path))
    if unknown := next((name for name in given if name not in known), None):
        raise ThriftyError(f"notebook {path.stem} has no parameter {unknown!r}" + suggest(unknown, known))
    with reading(path, ThriftyError):
        return parameters.check(known, given)


def run_notebooks(
    paths: Sequence[Path],
    given: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    gpus: Sequence[str] = (),
    budget: float | None = None,
) -> Iterator[Executed]:
    """Execute notebooks into ``out``, yielding each as it ends; one that fails stops no other.

    Args:
        given: parameters by notebook name.
        gpus: one slot each, as CUDA_VISIBLE_DEVICES names them; none: one slot.
        budget: seconds for all; each notebook gets what is left when it starts, and those left over then are not run.

    Raises:
        OutputError: nothing can be written in ``out``; before the first starts.
    """
    for path in paths:
        check_writable(out / path.name, path.stat().st_size)
    deadline = None if budget is None else time.monotonic() + budget
    waiting, free, started = list(paths), list(gpus or [None]), dict[Path, tuple[str | None, float]]()
    with collect_signals() as received, Pool() as pool:
        while waiting or pool:
            over = "a signal came" if received else None
            if deadline is not None and time.monotonic() >= deadline:
                over = over or "the budget is used up"
            if received:
                pool.stop()
            for path in waiting if over else ():
                yield Executed(path.stem, out / path.name, 0.0, f"not started: {over}", STOPPED)
            while (waiting := [] if over else waiting) and free:
                path, gpu = waiting.pop(0), free.pop(0)
                started[path] = gpu, time.monotonic()
                words = dict(given[path.stem])
                if deadline is not None:
                    words["budget"] = f"{max(1.0, deadline - time.monotonic()):.0f}s"
                pool.start(path, _execute, path, out / path.name, words, project_root(), gpu)
            for path, answer in pool.ended():
                gpu, began = started[path]
                free.append(gpu)
                if not isinstance(answer, tuple):  # "signal", or an error
                    answer = str(answer), getattr(answer, "exit_code", STOPPED)
                yield Executed(path.stem, out / path.name, time.monotonic() - began, *answer)


def _execute(path: Path, output: Path, words: dict[str, Any], folder: Path, gpu: str | None) -> tuple[str | None, int]:
    """In a process of its own: why it failed, if it did, and its exit code."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import papermill

    from thriftylib.running import papermill_engine  # noqa: F401 (registers itself, however the package was installed)

    try:
        with bare_kernels():
            papermill.execute_notebook(
                path, output, words, cwd=folder, progress_bar=False, stderr_file=sys.stderr, kernel_name="python3"
            )
    except papermill.PapermillExecutionError as failure:
        return f"cell {failure.cell_index}: {failure.ename}: {failure.evalue}".splitlines()[0], FAILED
    except SystemExit as stop:
        return "stopped early" if stop.code == STOPPED else "a mistake in its parameters, as said above", stop.code
    return None, 0


@contextmanager
def bare_kernels() -> Iterator[None]:
    """Kernels started within are this Python's, and know nothing of the user's kernels, settings and start-up files.

    Nor do they need a home folder that can be written to.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="thrifty-", ignore_cleanup_errors=True) as folder:
        names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        os.environ |= dict.fromkeys(names, folder) | {"JUPYTER_PREFER_ENV_PATH": "1"}
        os.environ |= dict.fromkeys(("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP", "PYTHONWARNINGS"), "")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
