"""The command adopt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import FAILED, DataFolder, Device, Json, print_json, print_rows, put, say
from thriftylib.paths import user_path


def adopt(
    folder: Annotated[
        Path, typer.Argument(parser=user_path, metavar="DIR", help="What thrifty train --out wrote, perhaps elsewhere.")
    ],
    device: Device = "auto",
    data: DataFolder = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Say what would be adopted; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check every record and weight of a folder, and put what is sound into data/, the weights up to 1 MB each.

    Each record must be consistent and of an experiment, and its weights must be those that it names and, where the data
    set is there, give its accuracy. Exit code 1 where something was refused.

    Example: thrifty adopt results
    """
    from thriftylib.running.adopt import adopt as adopt_all

    found = []
    for outcome in adopt_all(folder, data=data, device=device, check_only=check_only):
        found.append(outcome)
        if outcome.done == "refused":
            say(f"refused {outcome.path.name}: {outcome.why}")
    rows = [
        {
            "run": outcome.record.id,
            "what": f"{outcome.record.run.network.name} on {outcome.record.run.data.label}",
            "recipe": outcome.record.run.recipe_name,
            "seed": outcome.record.run.seed,
            "last epoch": outcome.record.final_accuracy,
            "done": outcome.done,
            "note": outcome.why,
        }
        for outcome in found
        if outcome.record and outcome.done != "refused"
    ]
    counts = Counter(outcome.done for outcome in found)
    if as_json:
        refused = [{"file": each.path.name, "why": each.why} for each in found if each.done == "refused"]
        print_json({"records": rows, "refused": refused, "written": not check_only})
    else:
        print_rows(rows)
        put(f"{counts['adopted']} adopted, {counts['there already']} there already, {counts['refused']} refused")
        if counts["adopted"] and not check_only:
            put("Figures and verdicts follow when the notebooks are executed again: make notebooks, then make site")
    if counts["refused"]:
        raise typer.Exit(FAILED)
