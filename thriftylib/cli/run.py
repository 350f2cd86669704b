"""The command run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import STOPPED, Budget, DataFolder, Device, parse_pairs, say
from thriftylib.errors import ThriftyError
from thriftylib.paths import local_dir, user_path


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NOTEBOOK|EXPERIMENT]...", help="None: all.")] = None,
    preset: Annotated[str, typer.Option(help="recorded, smoke, fast or paper.")] = "recorded",
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else the notebook's own.")] = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    results: Annotated[
        Path | None,
        typer.Option(parser=user_path, metavar="PATH", help="Folder of the records; else the notebook's own choice."),
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Of the notebook; repeatable.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=user_path, metavar="PATH", help="Folder of executed notebooks; else local/notebooks."
        ),
    ] = None,
) -> None:
    """Execute notebooks through papermill: one per GPU at the same time, else one by one; a failure stops no other.

    Example: thrifty run thriftynet-size --preset smoke -p epochs=1
    """
    from thriftylib.experiments import PRESETS
    from thriftylib.options import suggest
    from thriftylib.running.folders import parse_budget
    from thriftylib.running.notebooks import check_parameters, choose, run_notebooks
    from thriftylib.running.parameters import FOLDERS
    from thriftylib.training.progress import duration

    if preset not in PRESETS:
        raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
    limit = parse_budget(budget)
    own = {"preset": preset, "seeds": seeds, "budget": budget, "device": device if device != "auto" else None}
    own |= {"data": data and str(data), "results": results and str(results)}
    pairs = parse_pairs(parameter or (), "-p")
    given = {key: value for key, value in own.items() if value is not None}
    if twice := sorted(given.keys() & pairs.keys() - {"preset"}):
        raise ThriftyError(f"{twice[0]} is given twice, as --{twice[0]} and by -p")
    given |= pairs
    given |= {key: str(user_path(given[key]).absolute()) for key in FOLDERS if given.get(key)}
    chosen = choose(names or [])
    parameters = {path.stem: check_parameters(path, given) for path in chosen}  # all, before the first starts
    codes = set()
    for done in run_notebooks(chosen, parameters, to or local_dir() / "notebooks", gpus=_gpus(device), budget=limit):
        codes.add(done.code)
        if done.error is None:
            say(f"{done.name}: done in {duration(done.seconds)}, {done.output}")
        elif done.code == STOPPED:
            then = "the same command goes on" + (f"; as far as it came: {done.output}" if done.seconds else "")
            say(f"{done.name}: {done.error}; {then}")
        else:
            say(f"{done.name}: FAILED, {done.error}; as far as it came: {done.output}")
    if codes := codes - {0}:
        raise typer.Exit(min(codes))


def _gpus(device: str) -> list[str]:
    """The GPUs that notebooks may share out among themselves, as CUDA_VISIBLE_DEVICES names them."""
    if device != "auto":
        return []
    import torch

    seen = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:seen] or [str(index) for index in range(seen)]  # from the first name that is no GPU on, none is seen
