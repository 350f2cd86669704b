"""The command plan, and what train shares with it: which runs are missing, in what order, and how long they take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import (
    Budget,
    Jobs,
    Json,
    Out,
    Precision,
    PrecisionOption,
    Threads,
    print_json,
    print_rows,
    put,
    readable,
    runs_are,
    say,
)
from thriftylib.errors import ThriftyError
from thriftylib.escaping import for_shell
from thriftylib.paths import check_writable, local_dir

if TYPE_CHECKING:
    import torch

    from thriftylib.evidence.records import Record
    from thriftylib.running.estimates import Conditions, Estimator
    from thriftylib.running.plan import Plan, Slot
    from thriftylib.spec import Run

SEEDS = "0-4"
"""As many as a claim can use."""
SHOWN = 50
"""Runs of a plan that are printed as a table."""


def plan(
    experiments: Annotated[list[str] | None, typer.Argument(help="Of these experiments; none: of all.")] = None,
    preset: Annotated[list[str] | None, typer.Option(help="paper or fast; may be given twice. None: both.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds such as 0, 0,3 or 0-4.")] = SEEDS,
    budget: Budget = None,
    device: Annotated[str, typer.Option(help="Where: auto, cpu, cuda, or a name such as 'NVIDIA H200'.")] = "auto",
    precision: PrecisionOption = Precision.auto,
    threads: Threads = None,
    jobs: Jobs = 1,
    to: Out = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First time some steps of each network family here, for about a minute.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the missing runs in the order of verdicts gained per hour, with what each is estimated to take.

    With a budget, only runs that end within it.

    Example: thrifty plan --preset paper --budget 2h30m --calibrate
    """
    from thriftylib.experiments import EXPERIMENTS, experiment
    from thriftylib.experiments.base import known_claims
    from thriftylib.running.folders import OutputFolders, known_records, parse_budget
    from thriftylib.running.plan import plan as make_plan
    from thriftylib.spec import parse_seeds

    limit, folders = parse_budget(budget), OutputFolders.below(to)
    presets = check_presets(preset or ["paper", "fast"])
    names = [experiment(name).name for name in experiments or EXPERIMENTS]
    here, conditions = conditions_of(device, threads, jobs, precision, elsewhere=True)
    if calibrate:
        if here is None:
            raise ThriftyError(f"--calibrate measures this machine: --device {device!r} is another's name")
        runs = [each.run for name in names for each in presets for each in experiment(name).configurations(each)]
        _calibrate(runs, here, conditions)
    with readable(known_claims()) as claims:
        records = known_records(folders.results)
        known = {
            "records": records,
            "claims": claims,
            "folders": folders,
            "estimator": estimator_of(conditions, records),
        }
        made = make_plan(names, presets, parse_seeds(seeds), **known, longest=limit, jobs=jobs)
        chosen = made.within(limit, jobs)
        options = {"budget": budget, "device": device if here and device != "auto" else None, "threads": threads}
        options |= {"precision": precision if precision != Precision.auto else None}
        options |= {"jobs": jobs if jobs > 1 else None, "out": to}
        command = _command(experiments or (), presets, seeds, options)
        rows, missing = [_row(slot) for slot in chosen], [*made.runs, *made.too_long]
        if as_json:
            shortest = min((pending.estimate.seconds for pending in made.too_long), default=None)
            counted = {"missing": len(missing), "too_long": len(made.too_long)}
            counted["missing_seconds_estimated"] = sum(pending.estimate.seconds for pending in missing)
            counted["too_long_shortest_seconds_estimated"] = shortest
            head = {"device": conditions.device, "command": command, "budget_seconds": limit}
            print_json({**head, **counted, "runs": rows})
            return
        print_rows([_shown(row) for row in rows[:SHOWN]])
        if len(rows) > SHOWN:
            put(f"{len(rows) - SHOWN} more follow: --json prints all.")
        lines = [summary(made, chosen, conditions, limit)]
        if chosen:
            weak, strong = (sum(row[word] for row in rows) for word in ("weak", "strong"))
            gained = f"They bring {weak} claims a first, weak word and {strong} the seeds for a strong one."
            lines.append(gained if weak or strong else "By these runs alone no claim gets a new word.")
            lines.append("The range of an estimate holds nine of ten such predictions of the records.")
        if any(pending.estimate.basis == "model" for pending in missing):
            hint = "thrifty plan --calibrate measures this machine" if here else "no record of such a network is of it"
            lines.append(
                f"An estimate by the model alone may be wrong by a factor of ten on {conditions.device}; {hint}."
            )
        if chosen:
            lines.append(f"To train them in this order: {command}")
        put("\n".join(["", *lines] if chosen else lines))


def estimator_of(conditions: Conditions, records: Mapping[str, Record]) -> Estimator:
    """Estimates from records and this machine's calibrations; a device that none of them has is named."""
    from thriftylib.options import suggest
    from thriftylib.running.calibrate import load_calibrations
    from thriftylib.running.estimates import Estimator

    calibrations = load_calibrations(_calibrations())
    known = {each.device for each in (*records.values(), *calibrations)}
    if conditions.cores is None and conditions.device not in known:  # those of this machine are known
        say(f"no record is of the device {conditions.device!r}" + suggest(conditions.device, known))
    return Estimator(conditions, records.values(), calibrations)


def _calibrate(runs: Sequence[Run], here: torch.device, conditions: Conditions) -> None:
    from thriftylib.running.calibrate import TOTAL, calibrate_all, save_calibrations

    check_writable(_calibrations())
    say(f"calibrating network families on {conditions.device}, for about {TOTAL:.0f} s")
    for run, found in calibrate_all(runs, here, conditions):
        if found is not None:
            save_calibrations([found], _calibrations())
        took = "left out, its steps take too long" if found is None else f"an epoch takes ~{about(found.seconds)}"
        say(f"{run.network.name} on {run.data.name}: {took}")


def _calibrations() -> Path:
    return local_dir() / "calibrations.json"


def check_presets(presets: Sequence[str]) -> Sequence[str]:
    """Presets that train.

    Raises:
        ThriftyError: one that does not, or that there is not.
    """
    from thriftylib.experiments.base import PRESETS
    from thriftylib.options import suggest

    for preset in presets:
        if preset == "recorded":
            raise ThriftyError("preset recorded trains nothing; --preset smoke, fast or paper do")
        if preset not in PRESETS:
            raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS[1:]))
    return presets


def conditions_of(
    device: str, threads: int | None, jobs: int, precision: Precision, *, elsewhere: bool = False
) -> tuple[torch.device | None, Conditions]:
    """The device, where it is this machine's, and the conditions under which a call trains there.

    Args:
        elsewhere: whether ``device`` may also be another machine's, by the name that records give it.
    """
    from thriftylib.running.estimates import CPU, Conditions
    from thriftylib.running.execute import threads_each

    if elsewhere and device != "auto" and device.partition(":")[0] not in ("cpu", "cuda"):
        usual = "fp32" if Conditions(device).machine is CPU else "bf16"
        return None, Conditions(device, threads, jobs, usual if precision == Precision.auto else precision.value)
    import torch

    from thriftylib.training.device import choose_device, choose_precision, device_name

    chosen = choose_device(device)
    each = threads_each(threads, jobs) or torch.get_num_threads()
    kind = choose_precision(precision.value, chosen)
    return chosen, Conditions(device_name(chosen), each, jobs, kind, os.cpu_count())


def _row(slot: Slot) -> dict[str, Any]:
    pending, estimate, run = slot.pending, slot.pending.estimate, slot.pending.run
    labels = [str(label) for label in pending.configuration.labels.values() if label != run.data.name]
    if (filters := run.network.options.get("filters")) is not None:
        labels = [f"f={filters}"]
    return {
        "run": run.id,
        "seed": run.seed,
        "preset": pending.preset,
        "experiments": pending.experiments,
        "what": f"{run.network.name} {', '.join(labels)} {run.data.name}",
        "recipe": run.recipe_name,
        "claims": pending.configuration.claims,
        "done": pending.done,
        "seconds_estimated": estimate.seconds,
        "seconds_range": [estimate.low, estimate.high],
        "basis": estimate.basis,
        "source": estimate.source,
        "end": slot.end,
        **slot.words._asdict(),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    done = f"{row['done']:.0%} done, " if row["done"] else ""
    return {
        **{name: row[name] for name in ("run", "preset")},
        "experiment": row["experiments"][0],
        **{name: row[name] for name in ("what", "recipe", "seed")},
        "brings": ", ".join(f"{row[word]} {word}" for word in ("weak", "strong") if row[word]),
        "estimate": done + ranged(row["seconds_estimated"], *row["seconds_range"]),
        "basis": f"{row['basis']}: {row['source']}".removesuffix(": "),
        "estimated end": f"~{about(row['end'])}",
    }


def summary(made: Plan, chosen: Sequence[Slot], conditions: Conditions, limit: float | None) -> str:
    """How many runs are missing, how many of them fit, and which do not."""
    missing = [*made.runs, *made.too_long]
    if not missing:
        return "No run is missing."
    if limit is None:
        total = sum(pending.estimate.seconds for pending in missing)
        return f"{runs_are(len(missing))} missing: ~{about(total)} on {conditions.device}, one after the other."
    fit = "run fits" if len(missing) == 1 else "runs fit"
    text = f"{len(chosen)} of {len(missing)} missing {fit} into {about(limit)} on {conditions.device}."
    if not chosen:
        text = f"Nothing fits into {about(limit)} on {conditions.device}."
    if made.too_long:
        longer = (pending.estimate for pending in made.too_long if pending.estimate.seconds > limit)
        shortest = ranged(*min((estimate.seconds, estimate.low, estimate.high) for estimate in longer))
        text += f" {len(made.too_long)} take longer, or start from one that does: the shortest {shortest}."
    if late := len(made.runs) - len(chosen):
        text += f" {late} would fit, but not beside these."
    return text


def _command(experiments: Sequence[str], presets: Sequence[str], seeds: str, options: Mapping[str, Any]) -> str:
    planned = options["budget"] is not None
    words = ["thrifty train", *experiments, *(["--plan"] if planned else [])]
    words += [f"--preset {name}" for name in presets]
    words += [f"--seeds {seeds}"] if seeds != SEEDS or not planned else []
    words += [f"--{name} {for_shell(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(words)


def about(seconds: float) -> str:
    """A time as roughly as an estimate is known: ``"45s"``, ``"22m"``, ``"3.5h"`` or ``"26h"``."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.1f}h" if hours < 10 else f"{hours:.0f}h"


def ranged(seconds: float, low: float, high: float) -> str:
    """``"12m (9m to 18m)"``."""
    return f"{about(seconds)} ({about(low)} to {about(high)})"
