"""Commands that show what is there: list, show, status."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import (
    Json,
    out,
    print_json,
    print_table,
    say,
)
from thriftylib.datasets.facts import DATASETS
from thriftylib.errors import ThriftyError
from thriftylib.experiments import EXPERIMENTS, PRESETS, Experiment
from thriftylib.options import NetworkOptions, find, suggest
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running.execute import OutputFolders, known_records

if TYPE_CHECKING:
    from thriftylib.evidence.claims import Claim
    from thriftylib.evidence.records import Record


class Kind(StrEnum):
    papers = "papers"
    experiments = "experiments"
    datasets = "datasets"
    networks = "networks"


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="Only these.")] = None,
    as_json: Json = False,
) -> None:
    """List papers, experiments, data sets and networks.

    Example: thrifty list experiments
    """
    kinds = [kind] if kind else list(Kind)
    found = {kind.value: _LISTS[kind]() for kind in kinds}
    if as_json:
        print_json(found)
        return
    for title, rows in found.items():
        print_table(list(rows[0]), [list(row.values()) for row in rows], title=title)
        out().print()


def _papers() -> list[dict[str, Any]]:
    from thriftylib.evidence.claims_files import load_claims_files

    return [
        {"paper": name, "claims": len(sheet.claims), "title": sheet.title}
        for name, sheet in load_claims_files(claims_dir()).items()
    ]


def _experiments() -> list[dict[str, Any]]:
    return [{"experiment": each.name, "paper": each.paper, "title": each.title} for each in EXPERIMENTS.values()]


def _datasets() -> list[dict[str, Any]]:
    return [
        {
            "data set": info.name,
            "image": "x".join(map(str, info.image_shape)),
            "train": info.train,
            "test": info.test,
            "classes": len(info.classes),
            "note": info.note,
        }
        for info in DATASETS.values()
    ]


def _networks() -> list[dict[str, Any]]:
    with suppress(ThriftyError):
        find(NetworkOptions, "")  # no network's name: imports every paper and then refuses
    return [
        {"network": name, "options": " ".join(options.model_fields)}
        for name, options in sorted(NetworkOptions.known.items())
    ]


_LISTS = {Kind.papers: _papers, Kind.experiments: _experiments, Kind.datasets: _datasets, Kind.networks: _networks}


def show(
    name: Annotated[str, typer.Argument(help="An experiment, a claim's id, or the id of a run (or its beginning).")],
    preset: Annotated[str | None, typer.Option(help="Of an experiment: list this grid's configurations.")] = None,
    as_json: Json = False,
) -> None:
    """Show an experiment with what it asks, a claim with its source, or a run with its record.

    Example: thrifty show thriftynet-size-cifar10 --preset paper
    """
    from thriftylib.evidence.claims_files import load_claims

    claims = load_claims(claims_dir())
    if name in EXPERIMENTS:
        _show_experiment(EXPERIMENTS[name], preset, claims, as_json)
    elif preset is not None:
        raise ThriftyError(
            f"--preset goes with an experiment; unknown experiment {name!r}" + suggest(name, EXPERIMENTS)
        )
    elif name in claims:
        fields = claims[name].model_dump(mode="json", exclude={"declared", "side_spreads"})
        _show_fields({key: value for key, value in fields.items() if value}, as_json)
    else:
        _show_run(name, as_json)


def _show_experiment(shown: Experiment, preset: str | None, claims: dict[str, Claim], as_json: bool) -> None:
    from thriftylib.running.collect import claim_of
    from thriftylib.running.notebooks import showing

    records = known_records(OutputFolders.below(None).results)
    seeds: dict[str, list[int]] = {}
    for record in records.values():
        seeds.setdefault(record.run.configuration, []).append(record.run.seed)
    head = {"experiment": shown.name, "title": shown.title, "source": shown.source, "question": shown.question}
    head["notebooks"] = ", ".join(showing(shown.name)) or "none"
    if preset is None:
        grids = {name: shown.configurations(name) for name in PRESETS if name != "recorded"}
        rows = [
            {
                "preset": name,
                "configurations": len(configurations),
                "recorded": sum(configuration.run.id in seeds for configuration in configurations),
                "data": " ".join(dict.fromkeys(configuration.run.data.name for configuration in configurations)),
                "recipes": " ".join(dict.fromkeys(configuration.run.recipe_name for configuration in configurations)),
            }
            for name, configurations in grids.items()
        ]
    else:
        rows = []
        for configuration in shown.configurations(preset):
            cost, claim = configuration.run.cost, claim_of(configuration, shown, claims)
            rows.append(
                {
                    "run (seed 0)": configuration.run.id,
                    "configuration": " ".join(f"{key}={value}" for key, value in configuration.labels.items()),
                    "recipe": configuration.run.recipe_name,
                    "parameters": cost.parameters,
                    "MMAC": cost.macs / 1e6,
                    "claimed %": claim and claim.value,
                    "seeds recorded": ",".join(map(str, sorted(seeds.get(configuration.run.id, [])))),
                }
            )
    if as_json:
        print_json({**head, "configurations" if preset else "presets": rows})
        return
    _show_fields(head, as_json)
    out().print()
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def _show_fields(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields))
    for key, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        out().print(f"{key:<{width}}  {text.replace(chr(10), chr(10) + ' ' * (width + 2))}", markup=False)


def _show_run(start: str, as_json: bool) -> None:
    records = known_records(OutputFolders.below(None).results)
    found = [record for key, record in records.items() if key.startswith(start)]
    if len(found) > 1:
        raise ThriftyError(f"run {start!r}: several begin so: {', '.join(record.id for record in found)}")
    if found:
        _show_record(found[0], as_json)
        return
    runs = (
        configuration.run
        for each in EXPERIMENTS.values()
        for name in PRESETS
        for configuration in each.configurations(name)
    )
    seeded = (run.model_copy(update={"seed": seed}) for run in runs for seed in range(10))
    run = next((run for run in seeded if run.id.startswith(start)), None)
    if run is None:
        raise ThriftyError(f"{start!r}: no experiment, claim, record or run" + suggest(start, EXPERIMENTS))
    print_json(run.model_dump(mode="json"))
    say(f"run {run.id} has no record yet; put this JSON in a file and thrifty train FILE trains it")


def _show_record(record: Record, as_json: bool) -> None:
    whole = record.model_dump(mode="json")
    if not as_json:
        series = whole.pop("series")
        whole["series"] = f"{', '.join(series)} (--json shows them)"
    _show_fields(whole, as_json)


def status(
    paper: Annotated[str | None, typer.Option(help="Only this paper's claims.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only claims with this verdict, such as 'not run'.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Judge by the records of this folder; else data/results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print every claim with ours beside it and the verdict.

    Example: thrifty status --verdict reproduced
    """
    from thriftylib.evidence.claims_files import load_claims
    from thriftylib.evidence.counts import load_counts
    from thriftylib.evidence.records import load_records
    from thriftylib.evidence.statuses import STATUSES
    from thriftylib.evidence.tables import scoreboard

    if verdict is not None and verdict not in STATUSES:
        raise ThriftyError(f"unknown verdict {verdict!r}" + suggest(verdict, STATUSES))
    claims = load_claims(claims_dir())
    papers = {claim.paper for claim in claims.values()}
    if paper is not None and paper not in papers:
        raise ThriftyError(f"unknown paper {paper!r}" + suggest(paper, papers))
    board = scoreboard(claims, load_records(results or results_dir()), load_counts(results_dir()))
    for column, wanted in (("paper", paper), ("verdict", verdict)):
        board = board if wanted is None else board[board[column] == wanted]
    rows = json.loads(board.to_json(orient="records"))
    if as_json:
        print_json(rows)
        return
    shown = ("id", "claimed", "error", "ours", "spread", "n", "unit", "verdict")
    changes = list(dict.fromkeys(row["reading_changed"] for row in rows if row["n"] and row["reading_changed"]))
    for row in rows:
        if row["reading_changed"] in changes and row["n"]:
            row["verdict"] += "*" * (changes.index(row["reading_changed"]) + 1)
    print_table(shown, [[_brief(row[column], row["unit"]) for column in shown] for row in rows])
    counted = board["verdict"].value_counts()
    out().print("\n" + ", ".join(f"{counted[name]} {name}" for name in STATUSES if name in counted))
    for number, text in enumerate(changes, 1):
        out().print(f"\n{'*' * number} {text}", markup=False)


def _brief(value: Any, unit: str) -> Any:
    """Counts without decimals, and nothing for no runs."""
    return int(value) if isinstance(value, float) and not unit else value or None
