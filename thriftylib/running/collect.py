"""An experiment's outcome as one tidy table: what a notebook shows and a figure draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record, load_records
from thriftylib.experiments.base import Configuration, Experiment, Where, experiment, select
from thriftylib.paths import claims_dir, results_dir, user_path
from thriftylib.running.execute import train_missing
from thriftylib.running.folders import OutputFolders, given_folder, parse_budget
from thriftylib.spec import parse_seeds

if TYPE_CHECKING:
    import pandas


def collect(
    name: str,
    *,
    preset: str = "recorded",
    seeds: str | int = "0",
    device: str = "auto",
    budget: str | float | None = None,
    data: str | Path | None = None,
    results: str | Path | None = None,
    where: Where | None = None,
    epochs: int | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """One row per configuration and seed of an experiment; trains what is missing, unless ``preset`` is ``recorded``.

    ``recorded`` shows the paper and the fast grid with every committed seed, whatever ``seeds`` says; a configuration
    without a record is one row whose status is ``missing``. The other presets stop at the budget and leave the rest
    ``missing``.

    Args:
        seeds: such as ``"0"``, ``"0,3"`` or ``"0-4"``.
        budget: such as ``"9m"``, for all runs together; empty: to the end.
        data: folder of the data sets; empty: see :func:`thriftylib.paths.data_root`.
        results: folder of the records; empty: ``data/results`` for ``recorded``, else ``local/results``.
        where: keep the configurations whose label is one of the values, such as ``{"filters": [32, 64]}``.
        epochs: train that long instead of as long as the recipe says; the recipe's name then says so.

    Returns:
        Columns experiment, preset, recipe, claim, run, seed, the configurations' labels, parameters, macs,
        ptflops_macs, best_accuracy and final_accuracy (percent), epochs, seconds, device, claimed and claim_error
        (percent), and status: complete, diverged or missing. What a method measured is among the labels, by its name.
        ``attrs`` name the ``experiments``, and say what stopped a training call (``stopped``), how many runs are
        ``left``, and which ``failed``.

    Raises:
        ThriftyError: a name or value that cannot be; data, device or a record that cannot be used.
    """
    chosen = experiment(name)
    presets = ("paper", "fast") if preset == "recorded" else (preset,)
    grid = [(each, configuration) for each in presets for configuration in select(chosen, each, where, epochs)]
    papers = {configuration.run.id for each, configuration in grid if each == "paper"}
    grid = [(each, one) for each, one in grid if each == "paper" or one.run.id not in papers]
    found: dict[str, dict[int, Record | None]] = {}
    done = None
    if preset == "recorded":
        for record in load_records(given_folder(results) if results else results_dir()):
            found.setdefault(record.run.configuration, {})[record.run.seed] = record
    else:
        runs = {seed: [each.run.with_seed(seed) for _, each in grid] for seed in parse_seeds(seeds)}
        done = train_missing(
            [run for seeded in runs.values() for run in seeded],
            OutputFolders.below(results),
            data=user_path(data) if data else None,
            device=device,
            budget=parse_budget(budget),
            progress=progress,
        )
        for seed, seeded in runs.items():
            for (_, configuration), run in zip(grid, seeded, strict=True):
                found.setdefault(configuration.run.id, {})[seed] = done.records.get(run.id)
    claims = load_claims(claims_dir())
    rows = [
        _row(chosen, each, configuration, claim_of(configuration, chosen, claims), seed, record)
        for each, configuration in grid
        for seed, record in sorted(found.get(configuration.run.id, {0: None}).items())
    ]
    import pandas

    own = [claim.definition for claim in claims.values() if claim.experiment == chosen.name]
    measured = [
        quantity.key for quantity in own if quantity.source == "measured"
    ]  # a column before any run is recorded
    keys = dict.fromkeys((*(key for row in rows for key in row), *measured))
    labels = [key for key in keys if key not in (*FIRST, *LAST)]
    table = pandas.DataFrame(rows, columns=[*FIRST, *labels, *LAST]).astype(dict.fromkeys((*NUMBERS, *measured), float))
    table.attrs["experiments"] = (chosen.name,)  # a figure of this table tells by it what to run
    if done and done.stopped:
        table.attrs |= {"stopped": done.stopped, "failed": [run.id for run in done.failed], "left": len(done.missing)}
    return table


FIRST = ("experiment", "preset", "recipe", "claim", "run", "seed")
NUMBERS = ("best_accuracy", "final_accuracy", "epochs", "seconds", "claimed", "claim_error")
LAST = ("parameters", "macs", "ptflops_macs", "best_accuracy", "final_accuracy", "epochs", "seconds", "device")
LAST += ("claimed", "claim_error", "status")


def _row(
    chosen: Experiment, preset: str, configuration: Configuration, claim: Claim | None, seed: int, record: Record | None
) -> dict[str, Any]:
    run, cost = configuration.run, record.counted if record else configuration.run.cost
    row = {
        "experiment": chosen.name,
        "preset": preset,
        "recipe": run.recipe_name,
        "claim": claim and claim.id,
        "run": record.id if record else run.with_seed(seed).id,
        "seed": seed,
        **configuration.labels,
        **{name: getattr(cost, name) for name in ("parameters", "macs", "ptflops_macs")},
        "claimed": claim and claim.value,
        "claim_error": claim and claim.reading_error,
        "status": record.status if record else "missing",
    }
    if record:
        same = ("best_accuracy", "final_accuracy", "epochs", "seconds", "device")
        row |= {name: getattr(record, name) for name in same}
        row |= {name: number for name, number in record.measured.items() if not isinstance(number, tuple | list)}
    return row


def claim_of(configuration: Configuration, chosen: Experiment, claims: Mapping[str, Claim]) -> Claim | None:
    """The test accuracy that the paper states for it: of several, the first that belongs to this experiment."""
    stated = [claims[key] for key in configuration.claims if claims[key].quantity == TEST_ACCURACY]
    return min(stated, key=lambda claim: claim.experiment != chosen.name, default=None)
