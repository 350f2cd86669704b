"""Commands that make records and executed notebooks: train, run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import (
    FAILED,
    STOPPED,
    Budget,
    DataFolder,
    Device,
    Where,
    parse_pairs,
    parse_where,
    say,
)
from thriftylib.errors import ThriftyError
from thriftylib.experiments import EXPERIMENTS, PRESETS, experiment
from thriftylib.experiments.execute import Places, known_records, parse_budget, train_missing
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, local_dir
from thriftylib.spec import Run, parse_seeds
from thriftylib.training.progress import duration


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


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
) -> None:
    """Train the runs that have no record yet, most valuable first; the same command goes on where it stopped.

    Example: thrifty train thriftynet-size-cifar10 --preset fast --seeds 0-4 --budget 25m --out results
    """
    limit = parse_budget(budget)
    places = Places.below(to)
    files = [target for target in targets or () if target.endswith(".json")]
    names = [experiment(target).name for target in targets or () if target not in files]
    if files and (names or preset or only or where):
        raise ThriftyError("a run file is one run: --preset, --only, --where and experiments do not go with it")
    if files:
        runs = [_read_run(Path(file)) for file in files]
        runs = [run.with_seed(seed) for run in runs for seed in parse_seeds(seeds)] if seeds else runs
    else:
        runs = _missing(names or list(EXPERIMENTS), preset or [], seeds or "0", only, where, device, places)
    sitting = train_missing(
        runs,
        places,
        data=data,
        device=device,
        budget=limit,
        precision=precision.value,
        threads=threads,
        jobs=jobs,
        announce=lambda run, number, of: say(
            f"[{number}/{of}] {run.network.name} on {run.data.name}, {run.recipe.name}, seed {run.seed}: run {run.id}"
        ),
    )
    for record in sitting.records.values():
        best = f"best {record.best.test_accuracy:.2f} %" if record.best else "no accuracy"
        final = f", last {record.final.test_accuracy:.2f} %" if record.final else ""
        say(f"run {record.id} {record.status}: {best}{final} after {record.epochs} epochs")
    if sitting.stopped:
        say(f"stopped by the {sitting.stopped}: {len(sitting.missing)} runs are left; the same command goes on")
        raise typer.Exit(STOPPED)
    say(f"no run is missing; records are in {places.results}")


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
    seeds: str,
    only: str | None,
    where: Sequence[str] | None,
    device: str,
    places: Places,
) -> list[Run]:
    if not presets:
        raise ThriftyError("which preset? --preset smoke (seconds), fast (minutes on a GPU) or paper (the authors')")
    if "recorded" in presets:
        raise ThriftyError("preset recorded trains nothing; --preset smoke, fast or paper do")
    for preset in presets:
        if preset not in PRESETS:
            raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
    from thriftylib.evidence.sheets import load_claims
    from thriftylib.experiments.plan import plan
    from thriftylib.training.device import choose_device, device_name

    claims = load_claims(claims_dir())
    if only is not None and only not in claims:
        close = get_close_matches(only, claims, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ThriftyError(f"unknown claim {only!r}{hint}; thrifty status lists them")
    cells = (cell for name in names for preset in presets for cell in experiment(name).cells(preset))
    if only is not None and not any(only in cell.claims for cell in cells):
        raise ThriftyError(f"claim {only}: no run of preset {' or '.join(presets)} of these experiments answers it")
    machine = device_name(choose_device(device))
    steps = plan(
        names,
        presets,
        parse_seeds(seeds),
        device=machine,
        records=known_records(places.results),
        claims=claims,
        where=parse_where(where),
    )
    steps = [step for step in steps if only is None or only in step.claims]
    seconds = sum(step.estimate.seconds for step in steps)
    say(f"{len(steps)} runs are missing: ~{duration(seconds)} on {machine}, one after the other (estimate)")
    return [step.run for step in steps]


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
    from thriftylib.experiments.notebooks import check_parameters, choose, run_notebooks

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
