"""The command doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from thriftylib.cli.app import FAILED, DataFolder, Device, Json, Threads, print_json, print_table, put, say


def doctor(
    device: Device = "auto",
    data: DataFolder = None,
    threads: Threads = None,
    machine: Annotated[bool, typer.Option("--machine", help="Only say what this machine is; check nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Say what this machine is, and check that it computes what it should: some minutes on a GPU, under one on a CPU.

    One network of each paper on digits: its passes against float64, an epoch against the CPU, each way to execute
    steps, and a training that is killed and resumed. Exit code 1 where a check is not ok.

    Example: thrifty doctor
    """
    import torch

    from thriftylib.running import doctor as checks
    from thriftylib.training.device import choose_device

    chosen = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    here = checks.machine(chosen, data)
    if not as_json:
        print_table(("this machine", ""), list(here.items()))
    found = [] if machine else list(checks.examine(chosen, say))
    if as_json:
        print_json({"machine": here, "checks": [asdict(each) for each in found]})
    elif found:
        put()
        rows = [[each.what, each.network, _size(each.error), _size(each.allowed), each.ok, each.note] for each in found]
        print_table(("check", "network", "error", "allowed", "ok", "note"), rows)
    if bad := [each for each in found if not each.ok]:
        say(f"{len(bad)} of {len(found)} checks are not ok; the first: {bad[0].what}, {bad[0].network}")
        raise typer.Exit(FAILED)


def _size(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"
