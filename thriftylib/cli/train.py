"""The command train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import (
    FAILED,
    STOPPED,
    Budget,
    DataFolder,
    Device,
    Execution,
    ExecutionOption,
    Jobs,
    Out,
    Precision,
    PrecisionOption,
    Threads,
    parse_pairs,
    parse_value,
    runs_are,
    say,
)
from thriftylib.cli.plan import SEEDS, about, check_presets, conditions_of, estimator_of, summary
from thriftylib.errors import ThriftyError
from thriftylib.paths import data_root, read_json, reading

if TYPE_CHECKING:
    from thriftylib.evidence.claims import Claim
    from thriftylib.evidence.records import Record
    from thriftylib.experiments import Configuration
    from thriftylib.running.folders import OutputFolders
    from thriftylib.running.plan import Pending, Plan
    from thriftylib.spec import Run


def train(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[EXPERIMENT|RUN.json]...", help="None: every experiment.")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="smoke, fast (ours) or paper (the paper's recipe, or our reading of it); may be given twice."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else 0, or a run file's own.")] = None,
    only: Annotated[str | None, typer.Option(help="Only the runs that answer this claim.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", metavar="LABEL=V1,V2", help="Only runs whose label has one of the values."),
    ] = None,
    to: Out = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    precision: PrecisionOption = Precision.auto,
    execution: ExecutionOption = Execution.auto,
    threads: Threads = None,
    jobs: Jobs = 1,
    planned: Annotated[
        bool, typer.Option("--plan", help="Only what ends within --budget, as thrifty plan orders it; seeds 0-4.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Set checkpoints aside that cannot be gone on from, and start anew.")
    ] = False,
) -> None:
    """Train the runs that have no record yet, most valuable first; the same command goes on where it stopped.

    With --plan no run begins that would not end within the budget, unless no shorter one is left: then one that has a
    checkpoint goes on, else the next begins, until the time is up.

    Example: thrifty train thriftynet-size-cifar10 --preset fast --seeds 0-4 --budget 25m --out results
    """
    from thriftylib.experiments import EXPERIMENTS, experiment
    from thriftylib.experiments.base import known_claims, select
    from thriftylib.running.execute import train_missing
    from thriftylib.running.folders import OutputFolders, known_records, parse_budget
    from thriftylib.running.plan import plan as make_plan
    from thriftylib.spec import parse_seeds

    limit, folders = parse_budget(budget), OutputFolders.below(to)
    files = [target for target in targets or () if target.endswith(".json")]
    names = [experiment(target).name for target in targets or () if target not in files]
    if planned and (files or only or where):
        raise ThriftyError("--plan chooses the runs: a run file, --only and --where do not go with it")
    if planned and limit is None:
        raise ThriftyError("--plan needs --budget: for how long may this machine train? such as 2h30m")
    if files and (names or preset or only or where):
        raise ThriftyError("a run file is one run: --preset, --only, --where and experiments do not go with it")
    if not files and not preset:
        raise ThriftyError(
            "which preset? --preset smoke (seconds), fast (minutes on a GPU) or paper (the paper's recipe)"
        )
    expected, left_out = None, 0
    if files:
        runs = [_read_run(Path(file)) for file in files]
        runs = [run.with_seed(seed) for run in runs for seed in parse_seeds(seeds)] if seeds else runs
    else:
        names, presets = names or list(EXPERIMENTS), check_presets(preset)
        claims, records, labels = known_claims(), known_records(folders.results), parse_where(where)
        for fault in claims.faults.values():
            say(fault)
        grids = [select(experiment(name), each, labels) for name in names for each in presets]
        if only is not None:
            _check_claim(only, claims, grids, presets)
        from thriftylib.training.device import all_devices  # imports torch: after all mistakes

        _, conditions = conditions_of(device, threads, jobs, precision)
        slots = jobs * len(all_devices(device))
        made = make_plan(
            names,
            presets,
            parse_seeds(seeds or (SEEDS if planned else "0")),
            estimator=estimator_of(conditions, records),
            records=records,
            claims=claims,
            where=labels,
            longest=limit if planned else None,
            jobs=slots,
            folders=folders,
        )
        if planned:
            say(summary(made, made.within(limit, slots), conditions, limit))
            pending = _possible(made, folders, data)
            left_out = len(made.runs) + len(made.too_long) - len(pending)
            expected = {each.run.id: each.estimate.seconds for each in pending}
        else:
            pending = [each for each in made.runs if only is None or only in each.configuration.claims]
            total = about(sum(each.estimate.seconds for each in pending))
            say(f"{runs_are(len(pending))} missing: ~{total} on {conditions.device}, one after the other (estimate)")
        runs = [each.run for each in pending]

    def announce(run: Run, number: int, of: int) -> None:
        place = f"[{number}]" if planned else f"[{number}/{of}]"
        say(f"{place} {run.network.name} on {run.data.label}, {run.recipe_name}, seed {run.seed}: run {run.id}")

    done = train_missing(
        runs,
        folders,
        data=data,
        device=device,
        budget=limit,
        precision=precision.value,
        execution=execution.value,
        threads=threads,
        jobs=jobs,
        announce=announce,
        expected=expected,
        anew=anew,
    )
    for record in done.records.values():
        say(f"run {record.id} {record.status}: {_in_words(record)}")
    missing = len(done.missing)
    if done.stopped == "left out":
        say(f"stopped: {runs_are(missing)} left: left out as said above, or starting from one that is")
    elif done.stopped:
        say(f"stopped by the {done.stopped}: {runs_are(missing + left_out)} left; the same command goes on")
    elif left_out:
        say(f"{runs_are(left_out)} left that this call could not train; records are in {folders.results}")
    else:
        say(f"no run is missing; records are in {folders.results}")
    if done.stopped or left_out:
        raise typer.Exit(FAILED if done.failed else STOPPED)


def parse_where(texts: Sequence[str] | None) -> Mapping[str, Sequence[Any]]:
    """``["filters=32,64"]`` -> {"filters": (32, 64)}."""
    values = {key: parse_value(text, ["none"]) for key, text in parse_pairs(texts or (), "--where").items()}
    return {key: value if isinstance(value, tuple) else (value,) for key, value in values.items()}


def _check_claim(
    only: str, claims: Mapping[str, Claim], grids: Iterable[Iterable[Configuration]], presets: Sequence[str]
) -> None:
    if only not in claims:
        close = get_close_matches(only, claims, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ThriftyError(f"unknown claim {only!r}{hint}; thrifty status lists them")
    if not any(only in configuration.claims for grid in grids for configuration in grid):
        raise ThriftyError(f"claim {only}: no run of preset {' or '.join(presets)} of these experiments answers it")


def _possible(made: Plan, folders: OutputFolders, data: Path | None) -> list[Pending]:
    """The planned runs that can be trained here, then longer ones that a checkpoint holds; the others with a line."""
    from thriftylib.datasets.releases import present
    from thriftylib.running.queue import orphans

    root, found = data_root(data), [*made.runs, *(pending for pending in made.too_long if pending.done)]
    counted = Counter(pending.run.data.name for pending in found)
    absent = {name for name in sorted(counted) if name != "digits" and not present(name, root)}
    for name in sorted(absent):
        say(f"{runs_are(counted[name])} left out: {name} is not in {root}; thrifty data {name} says how to get it")
    found = [pending for pending in found if pending.run.data.name not in absent]
    while lost := {run.id for run in orphans([pending.run for pending in found], folders)}:
        say(f"{runs_are(len(lost))} left out: the weights to start from are not here")
        found = [pending for pending in found if pending.run.id not in lost]
    return found


def _in_words(record: Record) -> str:
    """What came of a finished run."""
    if record.run.recipe is None:
        return f"measured {', '.join(record.measured)}"
    best = "no accuracy" if record.best_accuracy is None else f"best {record.best_accuracy:.2f} %"
    final = "" if record.final_accuracy is None else f", last {record.final_accuracy:.2f} %"
    return f"{best}{final} after {record.epochs} epochs"


def _read_run(path: Path) -> Run:
    from thriftylib.spec import Run

    content = read_json(path, ThriftyError)
    if not isinstance(content, dict):
        raise ThriftyError(f"{path}: must hold a run, an object with network, data and recipe")
    with reading(path, ThriftyError):
        return Run.model_validate(content.get("run", content))  # a record holds its run
