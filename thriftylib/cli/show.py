"""The command show."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import Json, print_json, print_rows, print_table, put, readable, say
from thriftylib.errors import ThriftyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thriftylib.evidence.claims import Claim
    from thriftylib.evidence.explain import Explained
    from thriftylib.evidence.records import Record
    from thriftylib.experiments import Configuration, Experiment

SEEDS = range(10)
"""Of runs without a record, those that their ids are looked for among."""


def show(
    name: Annotated[
        str,
        typer.Argument(help="An experiment, a claim, a paper, or the id of a run (of claims and runs its beginning)."),
    ],
    preset: Annotated[str | None, typer.Option(help="Of an experiment: list this grid's configurations.")] = None,
    as_json: Json = False,
) -> None:
    """Show a claim as its page does, a paper's claims, an experiment with what it asks, or a run with its record.

    Example: thrifty show thriftynet/size-cifar10/t20-f32
    """
    from thriftylib.experiments import EXPERIMENTS
    from thriftylib.experiments.base import known_claims
    from thriftylib.options import suggest
    from thriftylib.running.folders import OutputFolders, known_records

    with readable(known_claims()) as claims:
        if found := find_claims(name, claims):
            _show_claims(found, as_json)
            return
        if preset is not None and name not in EXPERIMENTS:
            known = suggest(name, EXPERIMENTS)
            raise ThriftyError(f"--preset goes with an experiment; unknown experiment {name!r}{known}")
        records = known_records(OutputFolders.below(None).results)
        if name in EXPERIMENTS:
            _show_experiment(EXPERIMENTS[name], preset, claims, records, as_json)
        elif found := [record for key, record in records.items() if key.startswith(name)]:
            if len(found) > 1:
                raise ThriftyError(f"run {name!r}: several begin so: {', '.join(record.id for record in found)}")
            fields = found[0].model_dump(mode="json")
            if not as_json:
                fields["series"] = f"{', '.join(fields['series'])} (--json shows them)"
            _print_fields(fields, as_json)
        elif not re.fullmatch("[0-9a-f]{4,12}", name) or not _show_pending(name):
            raise ThriftyError(f"{name!r}: no experiment, claim, record or run" + suggest(name, EXPERIMENTS))


def find_claims(name: str, claims: Mapping[str, Claim]) -> list[str]:
    """The ids of the claims that ``name`` names: one, or all that begin so, from a paper's whole name on."""
    if name in claims:
        return [name]
    paper = name.split("/")[0]
    return [key for key, claim in claims.items() if claim.paper == paper and key.startswith(name)]


def _show_claims(keys: Sequence[str], as_json: bool) -> None:
    """One claim in full; several in a line each, below their sum."""
    from thriftylib.cli.status import put_claims
    from thriftylib.evidence.claims_files import load_claims_files
    from thriftylib.evidence.counts import load_counts
    from thriftylib.evidence.explain import explain
    from thriftylib.evidence.records import load_records
    from thriftylib.paths import claims_dir, results_dir

    files, records = load_claims_files(claims_dir()), load_records(results_dir())
    counts, known = load_counts(results_dir()), {key: file for file in files.values() for key in file.claims}
    shown = [explain(known[key].claims[key], known[key], records, counts) for key in keys]
    if as_json:
        found = [claim.model_dump(mode="json") for claim in shown]
        print_json(found[0] if len(found) == 1 else found)
    elif len(shown) > 1:
        put_claims(shown)
    else:
        _put_claim(shown[0])


def _put_claim(claim: Explained) -> None:
    put(claim.statement)
    put(f"{claim.verdict}: claimed {claim.stated}" + f", ours {claim.came_out}" * bool(claim.came_out))
    put(f"{claim.reason}\n")
    fields = {
        "paper": " ".join((claim.title, *claim.references)),
        "where": claim.figure,
        "statistic": claim.statistic,
        "read from": f"{claim.source} ({claim.mark.lower()}; {claim.how}; confidence: {claim.confidence})",
        "READING": claim.reading,
    }
    _print_fields({key: value for key, value in fields.items() if value})
    if claim.runs:
        put()
        for number, text in enumerate(claim.sides, 1):
            put(f"side {number}: {text}")
        value = "%" if claim.unit == "points" else claim.unit or "value"
        heads = ("seed", "side", value, "recipe", "epochs", "minutes", "record in data/results/runs")
        runs = claim.runs
        print_table(
            heads, [(r.seed, r.side, r.value, r.recipe, r.epochs, r.seconds / 60, f"{r.id}.json") for r in runs]
        )
    put()
    _print_fields({step.label: step.text for step in claim.rule})
    put("\nWhat would change it:")
    for text in claim.would_change:
        put(f"- {text}")
    if claim.command:
        put(f"\n$ {claim.install}\n$ {claim.command}")


def _show_experiment(
    shown: Experiment,
    preset: str | None,
    claims: Mapping[str, Claim],
    records: Mapping[str, Record],
    as_json: bool,
) -> None:
    from thriftylib.experiments import PRESETS
    from thriftylib.running.collect import claim_of
    from thriftylib.running.notebooks import showing

    seeds: dict[str, list[int]] = {}
    for record in records.values():
        seeds.setdefault(record.run.configuration, []).append(record.run.seed)

    def summary(name: str) -> dict[str, Any]:
        grid = shown.configurations(name)
        return {
            "preset": name,
            "configurations": len(grid),
            "recorded": sum(each.run.id in seeds for each in grid),
            "data": " ".join(dict.fromkeys(each.run.data.name for each in grid)),
            "recipes": " ".join(dict.fromkeys(each.run.recipe_name for each in grid)),
        }

    def row(each: Configuration) -> dict[str, Any]:
        claim = claim_of(each, shown, claims)
        return {
            "run (seed 0)": each.run.id,
            "configuration": " ".join(f"{key}={value}" for key, value in each.labels.items()),
            "recipe": each.run.recipe_name,
            "parameters": each.run.cost.parameters,
            "MMAC": each.run.cost.macs / 1e6,
            "claimed %": claim and claim.value,
            "seeds recorded": ",".join(map(str, sorted(seeds.get(each.run.id, [])))),
        }

    rows = [row(each) for each in shown.configurations(preset)] if preset else [summary(name) for name in PRESETS[1:]]
    head = {"experiment": shown.name, "title": shown.title, "source": shown.source, "question": shown.question}
    head["notebooks"] = ", ".join(showing(shown.name)) or "none"
    if as_json:
        print_json({**head, "configurations" if preset else "presets": rows})
        return
    _print_fields(head)
    put()
    print_rows(rows)


def _show_pending(start: str) -> bool:
    """Print the run without a record whose id begins so, if there is one."""
    from thriftylib.experiments import EXPERIMENTS, PRESETS

    runs = (each.run for shown in EXPERIMENTS.values() for name in PRESETS[1:] for each in shown.configurations(name))
    seeded = (run.model_copy(update={"seed": seed}) for run in runs for seed in SEEDS)
    run = next((run for run in seeded if run.id.startswith(start)), None)
    if run is None:
        return False
    print_json(run.model_dump(mode="json"))
    say(f"run {run.id} has no record yet; put this JSON in a file and thrifty train FILE trains it")
    return True


def _print_fields(fields: Mapping[str, Any], as_json: bool = False) -> None:
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields)) + 2
    for key, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        put(f"{key:<{width}}{text.replace(chr(10), chr(10) + ' ' * width)}")
