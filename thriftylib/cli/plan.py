"""The command plan, and what train shares with it: which runs are missing, in what order, and how long they take."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import Budget, Json, Precision, out, print_json, print_table, say
from thriftylib.errors import ThriftyError
from thriftylib.experiments import EXPERIMENTS, PRESETS, experiment
from thriftylib.experiments.base import Where
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, local_dir
from thriftylib.running.execute import OutputFolders, known_records, parse_budget, threads_each
from thriftylib.spec import Run, parse_seeds

if TYPE_CHECKING:
    import torch

    from thriftylib.running.estimates import Conditions, Estimate
    from thriftylib.running.plan import Plan, Slot, Step

SEEDS = "0-4"
"""As many as a claim can use."""


def plan(
    experiments: Annotated[list[str] | None, typer.Argument(help="Of these experiments; none: of all.")] = None,
    preset: Annotated[list[str] | None, typer.Option(help="paper or fast; may be given twice. None: both.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds such as 0, 0,3 or 0-4.")] = SEEDS,
    budget: Budget = None,
    device: Annotated[str, typer.Option(help="Where: auto, cpu, cuda, or a name such as 'NVIDIA H200'.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="auto: bf16 on a GPU, fp32 on a CPU.")] = Precision.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU, for a run.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs trained at once, on one device.")] = 1,
    to: Annotated[Path | None, typer.Option("--out", help="Folder of records and checkpoints; else local/.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First time some steps of each network family here, for about a minute.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the missing runs in the order of verdicts gained per hour, with what each is estimated to take.

    With a budget, only runs that end within it.

    Example: thrifty plan --preset paper --budget 2h30m --calibrate
    """
    limit = parse_budget(budget)
    presets = check_presets(preset or ["paper", "fast"])
    names = [experiment(name).name for name in experiments or EXPERIMENTS]
    here, conditions = conditions_of(device, threads, jobs, precision.value, elsewhere=True)
    if calibrate:
        if here is None:
            raise ThriftyError(f"--calibrate measures this machine: --device {device!r} is another's name")
        _calibrate(names, presets, here, conditions)
    made = make_plan(names, presets, parse_seeds(seeds), OutputFolders.below(to), conditions, longest=limit)
    chosen = made.within(limit, jobs)
    options = {"budget": budget, "device": device if here and device != "auto" else None, "threads": threads}
    options |= {"precision": precision.value if precision != Precision.auto else None}
    options |= {"jobs": jobs if jobs > 1 else None, "out": to}
    command = _command(experiments or (), presets, seeds, options)
    if as_json:
        print_json(_as_json(made, chosen, conditions, limit, command))
        return
    if chosen:
        print_table(COLUMNS, [_row(slot) for slot in chosen])
        out().print()
    _print_summary(made, chosen, conditions, limit, here=here is not None)
    if chosen:
        out().print(f"To train them in this order: {command}")


COLUMNS = ("run", "preset", "experiment", "what", "recipe", "seed", "brings", "estimate", "basis", "estimated end")


def _row(slot: Slot) -> list[Any]:
    step = slot.step
    run, filters = step.run, step.run.network.options.get("filters")
    labels = ", ".join(str(label) for label in step.labels.values() if label != run.data.name)
    which = labels if filters is None else f"f={filters}"
    brings = ", ".join(f"{count} {word}" for word, count in slot.words._asdict().items() if count)
    done = f"{step.done:.0%} done, " if step.done else ""
    return [
        run.id,
        step.preset,
        step.experiments[0],
        f"{run.network.name} {which} {run.data.name}",
        run.recipe_name,
        run.seed,
        brings,
        done + ranged(step.estimate),
        f"{step.estimate.basis}: {step.estimate.source}".removesuffix(": "),
        f"~{about(slot.end)}",
    ]


def _print_summary(
    made: Plan, chosen: Sequence[Slot], conditions: Conditions, limit: float | None, *, here: bool
) -> None:
    """What is shown, what is left out, and what the estimates rest on."""
    lines = [summary(made, chosen, conditions, limit)]
    if chosen:
        weak, strong = (sum(slot.words[i] for slot in chosen) for i in (0, 1))
        gained = f"They bring {weak} claims a first, weak word and {strong} the seeds for a strong one."
        lines.append(gained if weak or strong else "By these runs alone no claim gets a new word.")
        bases = Counter(slot.step.estimate.basis for slot in chosen)
        told = ", ".join(f"{EXPLAINED[basis]} ({count})" for basis, count in sorted(bases.items()))
        lines.append(f"Estimates rest on {told}; a range holds nine of ten such predictions of the records.")
    if any(step.estimate.basis == "model" for step in (*made.steps, *made.too_long)):
        hint = "thrifty plan --calibrate measures this machine" if here else "no record is of this device"
        lines.append(f"Where it is the model alone, it may be wrong by a factor of ten; {hint}.")
    out().print("\n".join(lines))


EXPLAINED = {
    "other seeds": "records or a calibration of the same configuration",
    "family": "records or a calibration of the same network family",
    "model": "the model alone",
}


def summary(made: Plan, chosen: Sequence[Slot], conditions: Conditions, limit: float | None) -> str:
    """How many runs are missing, how many of them fit, and which do not."""
    missing = [*made.steps, *made.too_long]
    if not missing:
        return "No run is missing."
    if limit is None:
        total = sum(step.estimate.seconds for step in missing)
        return f"{len(missing)} runs are missing: ~{about(total)} on {conditions.device}, one after the other."
    told = f"{len(chosen)} of {len(missing)} missing runs fit into {about(limit)} on {conditions.device}."
    if not chosen:
        told = f"Nothing fits into {about(limit)} on {conditions.device}."
    if made.too_long:
        longer = [step.estimate for step in made.too_long if step.estimate.seconds > limit]
        shortest = min(longer, key=lambda found: found.seconds)
        told += f" {len(made.too_long)} take longer, or start from one that does: the shortest {ranged(shortest)}."
    if late := len(made.steps) - len(chosen):
        told += f" {late} would fit, but not beside these."
    return told


def _as_json(
    made: Plan, chosen: Sequence[Slot], conditions: Conditions, limit: float | None, command: str
) -> dict[str, Any]:
    missing = [*made.steps, *made.too_long]
    return {
        "device": conditions.device,
        "command": command,
        "budget_seconds": limit,
        "missing": len(missing),
        "missing_seconds_estimated": sum(step.estimate.seconds for step in missing),
        "too_long": len(made.too_long),
        "too_long_shortest_seconds_estimated": min((step.estimate.seconds for step in made.too_long), default=None),
        "runs": [_run_as_json(slot.step) | {"end": slot.end, **slot.words._asdict()} for slot in chosen],
    }


def _run_as_json(step: Step) -> dict[str, Any]:
    estimate = step.estimate
    return {
        "run": step.run.id,
        "seed": step.run.seed,
        "preset": step.preset,
        "experiments": step.experiments,
        "claims": step.claims,
        "done": step.done,
        "seconds_estimated": estimate.seconds,
        "seconds_range": [estimate.low, estimate.high],
        "basis": estimate.basis,
        "source": estimate.source,
    }


def _command(experiments: Sequence[str], presets: Sequence[str], seeds: str, options: Mapping[str, Any]) -> str:
    planned = options["budget"] is not None
    words = ["thrifty train", *experiments, *(["--plan"] if planned else [])]
    words += [f"--preset {name}" for name in presets]
    words += [f"--seeds {seeds}"] if seeds != SEEDS or not planned else []
    return " ".join([*words, *(f"--{name} {value}" for name, value in options.items() if value is not None)])


def about(seconds: float) -> str:
    """A time as roughly as an estimate is known: ``"45s"``, ``"22m"``, ``"3.5h"`` or ``"26h"``."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.1f}h" if hours < 10 else f"{hours:.0f}h"


def ranged(estimate: Estimate) -> str:
    """``"12m (9m to 18m)"``."""
    return f"{about(estimate.seconds)} ({about(estimate.low)} to {about(estimate.high)})"


def check_presets(presets: Sequence[str]) -> list[str]:
    """Presets that train.

    Raises:
        ThriftyError: one that does not, or that there is not.
    """
    known = [each for each in PRESETS if each != "recorded"]
    for preset in presets:
        if preset == "recorded":
            raise ThriftyError("preset recorded trains nothing; --preset smoke, fast or paper do")
        if preset not in known:
            raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, known))
    return list(presets)


def conditions_of(
    device: str, threads: int | None, jobs: int, precision: str, *, elsewhere: bool = False
) -> tuple[torch.device | None, Conditions]:
    """The device, where it is this machine's, and the conditions under which a call trains there.

    Args:
        elsewhere: whether ``device`` may also be another machine's, by the name that records give it.
    """
    from thriftylib.running.estimates import Conditions

    if elsewhere and device != "auto" and device.partition(":")[0] not in ("cpu", "cuda"):
        asked = Conditions(device, threads, jobs)
        usual = "fp32" if asked.on_cpu else "bf16"
        return None, Conditions(device, threads, jobs, usual if precision == "auto" else precision)
    import torch

    from thriftylib.training.device import choose_device, choose_precision, device_name

    chosen = choose_device(device)
    each = threads_each(threads, jobs) or torch.get_num_threads()
    return chosen, Conditions(device_name(chosen), each, jobs, choose_precision(precision, chosen), os.cpu_count())


def make_plan(
    names: Sequence[str],
    presets: Sequence[str],
    seeds: Sequence[int],
    places: OutputFolders,
    conditions: Conditions,
    *,
    where: Where | None = None,
    longest: float | None = None,
) -> Plan:
    """The plan from the records in ``places`` and the committed ones, and this machine's calibrations."""
    from thriftylib.evidence.claims_files import load_claims
    from thriftylib.running.calibrate import load_calibrations
    from thriftylib.running.estimates import Estimator
    from thriftylib.running.plan import plan as order

    records = known_records(places.results)
    calibrations = [one.measured() for one in load_calibrations(_calibrations())]
    return order(
        names,
        presets,
        seeds,
        estimator=Estimator(conditions, records.values(), calibrations),
        records=records,
        claims=load_claims(claims_dir()),
        where=where,
        longest=longest,
        jobs=conditions.jobs,
        checkpoints=places.checkpoints,
    )


def _calibrations() -> Path:
    return local_dir() / "calibrations.json"


def _calibrate(names: Sequence[str], presets: Sequence[str], here: torch.device, conditions: Conditions) -> None:
    from thriftylib.running.calibrate import TOTAL, Calibration, calibrate_all, save_calibrations

    def done(found: Calibration) -> None:
        save_calibrations([found], _calibrations())
        say(f"{_named(found.run)}: an epoch takes ~{about(found.measured().seconds)}")

    say(f"calibrating network families on {conditions.device}, for about {TOTAL:.0f} s")
    runs = [
        configuration.run
        for name in names
        for preset in presets
        for configuration in experiment(name).configurations(preset)
    ]
    for run in calibrate_all(runs, here, conditions, done=done):
        say(f"{_named(run)}: left out, its steps take too long")


def _named(run: Run) -> str:
    method = f" ({run.method.name})" if run.method and run.method.name != run.network.name else ""
    return f"{run.network.name}{method} on {run.data.name}"
