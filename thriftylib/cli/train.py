"""Commands that make records and executed notebooks: train, run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thriftylib.cli.app import (
    FAILED,
    STOPPED,
    Budget,
    DataFolder,
    Device,
    Precision,
    Where,
    parse_pairs,
    parse_where,
    say,
)
from thriftylib.cli.plan import SEEDS, about, check_presets, conditions_of, make_plan, summary
from thriftylib.errors import ThriftyError
from thriftylib.evidence.records import Record
from thriftylib.experiments import EXPERIMENTS, PRESETS, experiment
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, data_root, local_dir
from thriftylib.running.execute import OutputFolders, orphans, parse_budget, train_missing
from thriftylib.spec import Run, parse_seeds
from thriftylib.training.progress import duration

if TYPE_CHECKING:
    from thriftylib.running.estimates import Conditions
    from thriftylib.running.plan import Plan, Step


def train(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[EXPERIMENT|RUN.json]...", help="None: every experiment.")
    ] = None,
    preset: Annotated[list[str] | None, typer.Option(help="smoke, fast or paper; may be given twice.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else 0, or a run file's own.")] = None,
    only: Annotated[str | None, typer.Option(help="Only the runs that answer this claim.")] = None,
    where: Where = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of records, weights and checkpoints; else local/.")
    ] = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    precision: Annotated[Precision, typer.Option(help="auto: bf16 on a GPU, fp32 on a CPU.")] = Precision.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU, for a run; last digits depend on it.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs trained at once, on one device; pays for small networks.")] = 1,
    planned: Annotated[
        bool, typer.Option("--plan", help="Only what ends within --budget, as thrifty plan orders it; seeds 0-4.")
    ] = False,
) -> None:
    """Train the runs that have no record yet, most valuable first; the same command goes on where it stopped.

    With --plan no run begins that would not end within the budget, unless no shorter one is left: then one that has a
    checkpoint goes on, else the next begins, until the time is up.

    Example: thrifty train thriftynet-size-cifar10 --preset fast --seeds 0-4 --budget 25m --out results
    """
    limit = parse_budget(budget)
    places = OutputFolders.below(to)
    files = [target for target in targets or () if target.endswith(".json")]
    names = [experiment(target).name for target in targets or () if target not in files]
    expected = None
    left_out = 0
    if planned:
        if files or only or where:
            raise ThriftyError("--plan chooses the runs: a run file, --only and --where do not go with it")
        if limit is None:
            raise ThriftyError("--plan needs --budget: for how long may this machine train? such as 2h30m")
    if files and (names or preset or only or where):
        raise ThriftyError("a run file is one run: --preset, --only, --where and experiments do not go with it")
    if files:
        runs = [_read_run(Path(file)) for file in files]
        runs = [run.with_seed(seed) for run in runs for seed in parse_seeds(seeds)] if seeds else runs
    else:
        if not preset:
            raise ThriftyError(
                "which preset? --preset smoke (seconds), fast (minutes on a GPU) or paper (the authors')"
            )
        presets = check_presets(preset)
        names = names or list(EXPERIMENTS)
        _, conditions = conditions_of(device, threads, jobs, precision.value)
        if planned:
            made = make_plan(names, presets, parse_seeds(seeds or SEEDS), places, conditions, longest=limit)
            say(summary(made, made.within(limit, jobs), conditions, limit))
            steps = _possible(made, places, data)
            left_out = len(made.steps) + len(made.too_long) - len(steps)
            expected = {step.run.id: step.estimate.seconds for step in steps}
        else:
            steps = _missing(names, presets, parse_seeds(seeds or "0"), only, where, places, conditions)
        runs = [step.run for step in steps]

    def announce(run: Run, number: int, of: int) -> None:
        place = f"[{number}]" if planned else f"[{number}/{of}]"
        say(f"{place} {run.network.name} on {run.data.name}, {run.recipe_name}, seed {run.seed}: run {run.id}")

    sitting = train_missing(
        runs,
        places,
        data=data,
        device=device,
        budget=limit,
        precision=precision.value,
        threads=threads,
        jobs=jobs,
        announce=announce,
        expected=expected,
    )
    for record in sitting.records.values():
        say(f"run {record.id} {record.status}: {_told(record)}")
    missing = len(sitting.missing)
    if sitting.stopped == "busy":
        say(f"stopped: other processes are training the {missing} runs that are left, or those that they start from")
    elif sitting.stopped:
        say(f"stopped by the {sitting.stopped}: {missing + left_out} runs are left; the same command goes on")
    elif left_out:
        say(f"{left_out} runs are left, none of which this call could train; records are in {places.results}")
    if sitting.stopped or left_out:
        raise typer.Exit(STOPPED)
    say(f"no run is missing; records are in {places.results}")


def _possible(made: Plan, places: OutputFolders, data: Path | None) -> list[Step]:
    """The planned runs that can be trained here, then longer ones that a checkpoint holds; the others with a line."""
    from thriftylib.datasets.releases import present

    steps = [*made.steps, *(step for step in made.too_long if step.done)]
    root = data_root(data)
    absent = {name for name in {step.run.data.name for step in steps} if name != "digits" and not present(name, root)}
    for name in sorted(absent):
        count = sum(step.run.data.name == name for step in steps)
        say(f"{count} runs are left out: {name} is not in {root}; thrifty data {name} says how to get it")
    steps = [step for step in steps if step.run.data.name not in absent]
    while lost := {run.id for run in orphans([step.run for step in steps], places)}:
        say(f"{len(lost)} runs are left out: the weights that they start from are not here")
        steps = [step for step in steps if step.run.id not in lost]
    return steps


def _told(record: Record) -> str:
    """A finished run's outcome in a few words."""
    if record.run.recipe is None:
        return f"measured {', '.join(record.measured)}"
    best = "no accuracy" if record.best_accuracy is None else f"best {record.best_accuracy:.2f} %"
    final = "" if record.final_accuracy is None else f", last {record.final_accuracy:.2f} %"
    return f"{best}{final} after {record.epochs} epochs"


def _read_run(path: Path) -> Run:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ThriftyError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ThriftyError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ThriftyError(f"{path}: must hold a run, an object with network, data and recipe")
    return Run.model_validate(content.get("run", content))  # a record holds its run


def _missing(
    names: Sequence[str],
    presets: Sequence[str],
    seeds: Sequence[int],
    only: str | None,
    where: Sequence[str] | None,
    places: OutputFolders,
    conditions: Conditions,
) -> list[Step]:
    from thriftylib.evidence.claims_files import load_claims

    claims = load_claims(claims_dir())
    if only is not None and only not in claims:
        close = get_close_matches(only, claims, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ThriftyError(f"unknown claim {only!r}{hint}; thrifty status lists them")
    configurations = (
        configuration
        for name in names
        for preset in presets
        for configuration in experiment(name).configurations(preset)
    )
    if only is not None and not any(only in configuration.claims for configuration in configurations):
        raise ThriftyError(f"claim {only}: no run of preset {' or '.join(presets)} of these experiments answers it")
    steps = make_plan(names, presets, seeds, places, conditions, where=parse_where(where)).steps
    steps = [step for step in steps if only is None or only in step.claims]
    seconds = sum(step.estimate.seconds for step in steps)
    say(f"{len(steps)} runs are missing: ~{about(seconds)} on {conditions.device}, one after the other (estimate)")
    return steps


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NOTEBOOK|EXPERIMENT]...", help="None: all.")] = None,
    preset: Annotated[str, typer.Option(help="recorded, smoke, fast or paper.")] = "recorded",
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else the notebook's own.")] = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; else the notebook's own choice.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Of the notebook; repeatable.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of executed notebooks; else local/notebooks.")
    ] = None,
) -> None:
    """Execute notebooks through papermill: one per GPU at the same time, else one by one; a failure stops no other.

    Example: thrifty run thriftynet-size --preset smoke -p epochs=1
    """
    from thriftylib.running.notebooks import check_parameters, choose, run_notebooks

    if preset not in PRESETS:
        raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
    limit = parse_budget(budget)
    if seeds is not None:
        parse_seeds(seeds)
    own = {"seeds": seeds, "budget": budget, "data": data and str(data.resolve())}
    own |= {"results": results and str(results.resolve()), "device": device if device != "auto" else None}
    given = {"preset": preset, **{key: value for key, value in own.items() if value is not None}}
    given |= parse_pairs(parameter or (), "-p")
    chosen = choose(names or [])
    parameters = {path.stem: check_parameters(path, given) for path in chosen}  # all, before the first starts
    failed = stopped = 0
    for done in run_notebooks(chosen, parameters, to or local_dir() / "notebooks", gpus=_gpus(device), budget=limit):
        if done.error is None:
            say(f"{done.name}: done in {duration(done.seconds)}, {done.output}")
        elif done.seconds:
            failed += 1
            say(f"{done.name}: FAILED, {done.error}; as far as it came: {done.output}")
        else:
            stopped += 1
            say(f"{done.name}: {done.error}")
    if failed or stopped:
        raise typer.Exit(FAILED if failed else STOPPED)


def _gpus(device: str) -> list[str]:
    """The GPUs that notebooks may share out among themselves, as CUDA_VISIBLE_DEVICES names them."""
    if device != "auto":
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
