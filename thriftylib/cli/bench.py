"""The command bench."""

from __future__ import annotations

import statistics
from enum import StrEnum
from typing import Annotated

import typer

from thriftylib.cli.app import Json, print_json, print_table, say
from thriftylib.errors import SpecError
from thriftylib.paths import results_dir


class Bench(StrEnum):
    train = "train"
    smallnet = "smallnet"


class Convs(StrEnum):
    plain = "plain"
    cl = "cl"
    ck = "ck"


def bench(
    what: Annotated[
        Bench,
        typer.Argument(help="train: a ThriftyNet, beside the authors' formulation; smallnet: beside PyTorch's loop."),
    ],
    filters: Annotated[int | None, typer.Option(min=3, help="train: of the ThriftyNet; else 172.")] = None,
    iterations: Annotated[int | None, typer.Option(min=5, help="train: of the ThriftyNet; else 20.")] = None,
    kernel: Annotated[int | None, typer.Option(help="smallnet: 3, 5, 7 or 9; else 3.")] = None,
    convs: Annotated[Convs | None, typer.Option(help="smallnet: how convolutions are expanded; else plain.")] = None,
    linear: Annotated[bool | None, typer.Option("--linear", help="smallnet: expand the hidden linear layer.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images of a step; else 100 or 128.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds; the variants take turns.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Keep it below data/results/bench.")] = False,
    as_json: Json = False,
) -> None:
    """Measure speed and memory as ratios, the variants in turns, on the CPU.

    Example: thrifty bench smallnet --convs cl --linear
    """
    from thriftylib.bench.record import save_bench
    from thriftylib.bench.smallnet import bench_smallnet
    from thriftylib.bench.thriftynet import bench_train

    run, own, others = {
        Bench.train: (
            bench_train,
            {"filters": filters, "iterations": iterations},
            {"kernel": kernel, "convs": convs, "linear": linear},
        ),
        Bench.smallnet: (
            bench_smallnet,
            {"kernel": kernel, "convs": convs and convs.value, "linear": linear},
            {"filters": filters, "iterations": iterations},
        ),
    }[what]
    if foreign := [name for name, value in others.items() if value is not None]:
        raise SpecError(f"--{foreign[0]} does not go with bench {what}; its own options: {', '.join(own)}")
    chosen = {name: value for name, value in {**own, "batch_size": batch_size}.items() if value is not None}
    measured = run(**chosen, rounds=rounds, threads=threads, report=say)
    if record:
        say(f"recorded in {save_bench(measured, results_dir())}")
    if as_json:
        print_json(measured.model_dump(mode="json"))
        return
    typer.echo(f"{measured.what}, {measured.device}, {measured.threads} threads")
    rows = [
        [
            name,
            variant.what,
            variant.precision,
            statistics.median(variant.images_per_second),
            measured.ratio(name),
            variant.peak_bytes and variant.peak_bytes / 2**20,
            measured.memory_ratio(name),
        ]
        for name, variant in measured.variants.items()
    ]
    print_table(("variant", "what", "precision", "images/s", "x as fast", "peak MiB", "x memory"), rows)
