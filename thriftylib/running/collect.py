"""An experiment's outcome as one tidy table: what a notebook shows and a figure draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record, load_records
from thriftylib.experiments.base import Configuration, Experiment, Where, experiment, select
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running.execute import OutputFolders, parse_budget, train_missing
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

    Raises:
        ThriftyError: a name or value that cannot be; data, device or a record that cannot be used.
    """
    chosen = experiment(name)
    presets = ("paper", "fast") if preset == "recorded" else (preset,)
    configurations = [
        (grid, configuration) for grid in presets for configuration in select(chosen, grid, where, epochs)
    ]
    if preset == "recorded":
        committed: dict[str, dict[int, Record | None]] = {}
        for record in load_records(Path(results) if results else results_dir()):
            committed.setdefault(record.run.configuration, {})[record.run.seed] = record
        return _table(
            chosen,
            [
                (grid, configuration, committed.get(configuration.run.id) or {0: None})
                for grid, configuration in configurations
            ],
        )
    numbers = parse_seeds(seeds)
    sitting = train_missing(
        [configuration.run.with_seed(seed) for seed in numbers for _, configuration in configurations],
        OutputFolders.below(results),
        data=Path(data) if data else None,
        device=device,
        budget=parse_budget(budget),
        progress=progress,
    )
    records = sitting.records.get
    return _table(
        chosen,
        [
            (grid, configuration, {seed: records(configuration.run.with_seed(seed).id) for seed in numbers})
            for grid, configuration in configurations
        ],
    )


def _table(
    chosen: Experiment, configurations: Iterable[tuple[str, Configuration, Mapping[int, Record | None]]]
) -> pandas.DataFrame:
    import pandas

    claims = load_claims(claims_dir())
    rows = [
        {**_shared(chosen, preset, configuration, claims), **_outcome(records[seed], configuration, seed)}
        for preset, configuration, records in configurations
        for seed in sorted(records)
    ]
    first = ["experiment", "preset", "recipe", "claim", "run", "seed"]
    last = ["parameters", "macs", "ptflops_macs", "best_accuracy", "final_accuracy", "epochs", "seconds", "device"]
    last += ["claimed", "claim_error", "status"]
    labels = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in first + last]
    numbers = dict.fromkeys(("best_accuracy", "final_accuracy", "epochs", "seconds", "claimed", "claim_error"), float)
    return pandas.DataFrame(rows, columns=first + labels + last).astype(numbers)


def _shared(
    chosen: Experiment, preset: str, configuration: Configuration, claims: Mapping[str, Claim]
) -> dict[str, Any]:
    cost = configuration.run.cost
    claim = claim_of(configuration, chosen, claims)
    return {
        "experiment": chosen.name,
        "preset": preset,
        "recipe": configuration.run.recipe_name,
        "claim": claim.id if claim else None,
        **configuration.labels,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "ptflops_macs": cost.ptflops_macs,
        "claimed": claim.value if claim else None,
        "claim_error": claim.reading_error if claim else None,
    }


def claim_of(configuration: Configuration, chosen: Experiment, claims: Mapping[str, Claim]) -> Claim | None:
    """The test accuracy that the paper states for it: of several, the first that belongs to this experiment."""
    stated = [claims[key] for key in configuration.claims if claims[key].quantity == TEST_ACCURACY]
    return min(stated, key=lambda claim: claim.experiment != chosen.name, default=None)


def _outcome(record: Record | None, configuration: Configuration, seed: int) -> dict[str, Any]:
    if record is None:
        return {"run": configuration.run.with_seed(seed).id, "seed": seed, "status": "missing"}
    return {
        "run": record.id,
        "seed": seed,
        "parameters": record.counted.parameters,
        "macs": record.counted.macs,
        "ptflops_macs": record.counted.ptflops_macs,
        "best_accuracy": record.best_accuracy,
        "final_accuracy": record.final_accuracy,
        "epochs": record.epochs,
        "seconds": record.seconds,
        "device": record.device,
        "status": record.status,
        **{name: number for name, number in record.measured.items() if not isinstance(number, tuple | list)},
    }
