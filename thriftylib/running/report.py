"""What a notebook asks of the library: tables of experiments, verdicts on claims, and what a rerun costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from thriftylib.errors import RunError, SpecError, StoppedError, ThriftyError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import Replication, load_claims, load_claims_files
from thriftylib.evidence.counts import load_counts
from thriftylib.evidence.records import Record, load_records
from thriftylib.evidence.statuses import STATUSES
from thriftylib.evidence.tables import scoreboard
from thriftylib.evidence.verdicts import judge_all
from thriftylib.experiments.base import PRESETS, experiment
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running import parameters
from thriftylib.running.collect import collect
from thriftylib.running.estimates import Conditions, Estimator
from thriftylib.running.folders import OutputFolders, given_folder, known_records, parse_budget
from thriftylib.running.processes import stop_with_parent
from thriftylib.running.roads import roads

if TYPE_CHECKING:
    import pandas

PARAMETERS = """\
preset: str = "recorded"  # recorded: train nothing | smoke: digits, seconds | fast: our recipe | paper: the paper's
device: str = "auto"  # auto | cpu | cuda | cuda:1
seeds: str = "0"  # such as 0, 0,3 or 0-4; recorded shows every committed seed
budget: str = ""  # stop cleanly after this time, such as 90s, 9m or 1h30m; empty: train to the end
data: str = ""  # folder of the data sets; empty: the variable THRIFTY_DATA, else a per-user cache folder
results: str = ""  # folder of the records; empty: data/results for recorded, else local/results
epochs: int = 0  # train this long instead: another recipe, which answers no claim; 0: as the recipe says
"""
"""The parameters that every notebook has: the first lines of its cell tagged ``parameters``. Its own follow."""

_ENDING = """\
Stop it at any time: the same command goes on from the checkpoint. The hours below are **estimates** from a rough model
of one data-centre GPU, not measurements; `thrifty plan` gives them for the machine at hand."""
_NAMES = [line.partition(":")[0] for line in PARAMETERS.splitlines()]


class Report:
    """One execution of a notebook, with the values of the standard parameters (:data:`PARAMETERS`).

    The budget is for all tables of the notebook together.

    Raises:
        ThriftyError: a parameter is missing or has a value that cannot be.
    """

    def __init__(self, **given: Any) -> None:
        if missing := [name for name in _NAMES if name not in given]:
            raise SpecError(f"the notebook's parameters lack {', '.join(missing)}")
        self.preset, self.results = given["preset"], given["results"]
        if self.preset not in PRESETS:
            raise SpecError(f"unknown preset {self.preset!r}" + suggest(self.preset, PRESETS))
        self._asked = {name: given[name] for name in ("seeds", "device", "data")}
        self._asked["epochs"] = given["epochs"] or None
        self._asked["progress"] = self.preset != "smoke"  # seconds long, and a line per epoch would hide what it shows
        seconds = parse_budget(given["budget"])
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._tables: dict[str, pandas.DataFrame] = {}
        self._stopped: ThriftyError | None = None
        if self.preset == "recorded" and self.results:
            given_folder(self.results)
        self.claims: dict[str, Claim] = load_claims(claims_dir())

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Report:
        """The report of a notebook that calls ``Report.of(globals())``.

        What papermill set is checked; a training then goes on as long as the process that started the kernel.
        """
        given = {name: namespace[name] for name in _NAMES if name in namespace}
        cell, names = parameters.injected(namespace.get("In", ()))
        if known := parameters.parse(cell):
            own = {name: namespace[name] for name in (*known, *names) if name in namespace}
            given |= {name: value for name, value in parameters.check(known, own).items() if name in given}
        stop_with_parent()
        return cls(**given)

    def images(self, name: str) -> str:
        """What a figure's title calls the images: ``name``, or what a smoke test uses instead."""
        return "Smoke test, 8×8 digits" if self.preset == "smoke" else name

    def table(self, name: str, *, train: bool = True, **where: str | int) -> pandas.DataFrame:
        """An experiment's table (:func:`~thriftylib.running.collect.collect`); missing runs are trained first.

        Args:
            train: ``False`` shows what is recorded and trains nothing, as the preset ``recorded`` always does.
            where: values of labels to keep, such as ``filters="32,64"``; empty: all.
        """
        kept = {label: _numbers(label, values) for label, values in where.items() if values != ""}
        if not train or self.preset == "recorded":
            found = collect(name, results=self.results if self.preset == "recorded" else None)
        else:
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)
            found = collect(name, preset=self.preset, results=self.results, budget=left, where=kept, **self._asked)
        self._tables[name] = found
        if stopped := found.attrs.get("stopped"):
            self._stop(stopped, found.attrs["failed"], found.attrs["left"])
        return found

    def _stop(self, stopped: str, failed: list[str], left: int) -> None:
        """Remember why runs are missing, for the notebook's end; after a signal there is no time for it."""
        if failed:
            self._stopped = RunError(f"runs {', '.join(failed)} failed, as said above")
        elif not isinstance(self._stopped, RunError):
            how = "" if stopped == "left out" else f" by the {stopped}"
            self._stopped = StoppedError(f"stopped{how}, with {left} of the runs left; the same command goes on")
        if stopped == "signal":
            raise self._stopped

    def roads(self) -> pandas.DataFrame:
        """Every paper's networks beside the ordinary ones that they started from (:func:`thriftylib.running.roads`)."""
        if self._stopped:
            raise self._stopped
        presets = ("smoke",) if self.preset == "smoke" else ("paper", "fast")
        return roads(self.records(), self.claims, presets)

    def records(self) -> list[Record]:
        """Every record that this execution may show: the committed ones, and those of ``results`` or this machine."""
        if self.preset == "recorded":
            return load_records(given_folder(self.results) if self.results else results_dir())
        return list(known_records(OutputFolders.below(self.results).results).values())

    def replications(self, paper: str) -> tuple[Replication, ...]:
        """What third parties measured with a paper's networks, as its claims file has it."""
        return load_claims_files(claims_dir())[paper].replications

    def board(self) -> pandas.DataFrame:
        """Every claim with the verdict of these records (``evidence.tables.scoreboard``)."""
        return scoreboard(self.claims, self.records(), load_counts(results_dir()))

    def answer(self) -> None:
        """Show what came out so far of the claims on trained networks that this notebook's experiments answer."""
        from IPython.display import Markdown, display

        mine = {name: claim for name, claim in self.claims.items() if claim.experiment in self._tables}
        mine = {name: claim for name, claim in mine.items() if not claim.is_counted}
        found = Counter(verdict.status for verdict in judge_all(mine, self.records()).values())
        told = ", ".join(f"**{found[word]}** {word}" for word in STATUSES if found[word])
        display(Markdown(f"**So far:** of {len(mine)} claims {told}." if mine else "*No claim rests on these runs.*"))

    def training(self, title: str, *tables: pandas.DataFrame) -> None:
        """Show the longest training of these tables, or of all that the notebook asked for, epoch by epoch."""
        from IPython.display import Markdown, display

        from thriftylib import figures

        runs = [run for table in tables or self._tables.values() for run in table["run"]]
        longest = figures.longest(self.records(), runs)
        if longest is None:
            display(Markdown("*No such training is recorded yet.*"))
            return
        series = figures.curves(longest)
        panels = figures.training_curves(series, title=title, caption=figures.describe(longest))
        figures.show(panels, series, f"run-{longest.id}", alt="Accuracy, loss and learning rate by epoch.")

    def ending(self) -> None:
        """Show what a rerun costs: runs and estimated GPU hours of each experiment that the notebook asked for.

        Raises:
            StoppedError: the budget ended before all was trained; what is there is shown above.
            RunError: a run failed.
        """
        import pandas
        from IPython.display import HTML, Markdown, display

        estimate, rows = Estimator(Conditions("a data-centre GPU")), []
        for name in self._tables:
            for preset in ("fast", "paper"):
                runs = experiment(name).runs(preset, [0])
                rows.append((name, preset, len(runs), f"{sum(estimate(run).seconds for run in runs) / 3600:.1f}"))
        costs = pandas.DataFrame(rows, columns=["experiment", "preset", "runs", "estimated GPU hours, one seed"])
        display(Markdown(_ENDING), HTML(costs.to_html(index=False, border=0)))
        if self._stopped:
            raise self._stopped


def _numbers(label: str, values: str | int) -> list[int]:
    try:
        return [int(value) for value in str(values).split(",")]
    except ValueError:
        raise SpecError(f"{label} = {values!r}: must be whole numbers such as '32' or '32,64'") from None
