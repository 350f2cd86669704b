"""What a notebook asks of the library: tables of experiments, verdicts on claims, and what a rerun costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import Replication, load_claims, load_claims_files
from thriftylib.evidence.counts import load_counts
from thriftylib.evidence.records import Record, load_records
from thriftylib.evidence.tables import scoreboard
from thriftylib.experiments.base import PRESETS, experiment
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running.collect import collect
from thriftylib.running.estimates import Conditions, Estimator
from thriftylib.running.folders import OutputFolders, known_records, parse_budget

if TYPE_CHECKING:
    import pandas


class Report:
    """One execution of a notebook with its parameters, each as :func:`thriftylib.running.collect.collect` takes it.

    ``epochs``: 0 for as many as the recipe has. The budget is for all tables of the notebook together.

    Raises:
        ThriftyError: a value that cannot be.
    """

    def __init__(
        self,
        *,
        preset: str,
        seeds: str | int,
        device: str,
        budget: str,
        data: str,
        results: str,
        epochs: int = 0,
    ) -> None:
        if preset not in PRESETS:
            raise SpecError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
        self.preset, self.results = preset, results
        self._asked = {"seeds": seeds, "device": device, "data": data, "epochs": epochs or None}
        self._asked["progress"] = preset != "smoke"  # seconds long, and a line per epoch would hide what it shows
        seconds = parse_budget(budget)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.claims: dict[str, Claim] = load_claims(claims_dir())

    def images(self, name: str) -> str:
        """What a figure's title calls the images: ``name``, or what a smoke test uses instead."""
        return "Smoke test, 8×8 digits" if self.preset == "smoke" else name

    def table(self, name: str, *, train: bool = True, **where: str | int) -> pandas.DataFrame:
        """An experiment's table, its missing runs trained first where the preset trains.

        Args:
            train: ``False`` shows what is recorded and trains nothing.
            where: values of labels to keep, such as ``filters="32,64"``; empty: all.
        """
        if not train or self.preset == "recorded":
            return collect(name, results=self.results if self.preset == "recorded" else None)
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)
        kept = {label: _numbers(label, values) for label, values in where.items() if values != ""}
        return collect(name, preset=self.preset, results=self.results, budget=left, where=kept, **self._asked)

    def records(self) -> list[Record]:
        """Every record that this execution may show: the committed ones, and those of ``results`` or this machine."""
        if self.preset == "recorded":
            return load_records(Path(self.results) if self.results else results_dir())
        return list(known_records(OutputFolders.below(self.results).results).values())

    def replications(self, paper: str) -> tuple[Replication, ...]:
        """What third parties measured with a paper's networks, as its claims file has it."""
        return load_claims_files(claims_dir())[paper].replications

    def board(self) -> pandas.DataFrame:
        """Every claim with the verdict of these records (``evidence.tables.scoreboard``)."""
        return scoreboard(self.claims, self.records(), load_counts(results_dir()))


def rerun_costs(*names: str) -> pandas.DataFrame:
    """Runs and estimated GPU hours of one seed of each experiment, by the rough model of ``experiments.timing``."""
    import pandas

    estimate, rows = Estimator(Conditions("a data-centre GPU")), []
    for name in names:
        for preset in ("fast", "paper"):
            runs = experiment(name).runs(preset, [0])
            hours = sum(estimate(run).seconds for run in runs) / 3600
            rows.append((name, preset, len(runs), f"{hours:.1f}"))
    return pandas.DataFrame(rows, columns=["experiment", "preset", "runs", "estimated GPU hours, one seed"])


def _numbers(label: str, values: str | int) -> list[int]:
    try:
        return [int(value) for value in str(values).split(",")]
    except ValueError:
        raise SpecError(f"{label} = {values!r}: must be whole numbers such as '32' or '32,64'") from None
